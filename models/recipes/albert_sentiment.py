"""Builds `models/albert-sentiment`: one command a stage, each of which goes on from what the last one left.

    teacher   fine-tunes bge-small-en-v1.5 on three classes
    student   distils it into an ALBERT with one shared layer
    export    saves a Hugging Face checkpoint and converts it to the verified model folder
    evaluate  measures a finished model folder

`--data` is the folder of gzip'd JSONL sets, `--demo` the vaderSentiment source distribution, `--work` a folder for
checkpoints. `models/README.md` lists the commands in order.
"""

import argparse
import json
import logging
import sys

import torch
from torch.nn import functional

import calibration
import corpora
import measuring
import model_folder
import networks
import training
from albertine_models.errors import ConversionError

LOG = logging.getLogger("albert_sentiment")


def encoded_training_set(options):
    """Training examples with their token ids."""
    examples, report = corpora.training_set(options.data, options.demo)
    LOG.info("training set: %s", json.dumps(report))
    tokenizer = training.load_tokenizer(options.tokenizer)
    return examples, training.encode(tokenizer, [example.text for example in examples])


def weighted_cross_entropy(logits, labels, weights):
    """Mean loss of a batch in which every row counts by its weight."""
    return (functional.cross_entropy(logits.float(), labels, reduction="none") * weights).mean()


def mixed_precision():
    """bfloat16 products: twice as fast on cores that have them, and as good."""
    return torch.autocast("cpu", dtype=torch.bfloat16)


def log_validation(run, options):
    """Logs the accuracy of `run` on sst5 dev (three classes) and a part of sst2's held-out phrases (two)."""
    tokenizer = training.load_tokenizer(options.tokenizer)
    held_out = corpora.held_out_sets(options.data)
    for name in ("sst5_dev", "sst2_train_heldout"):
        rows = held_out[name][:1200]
        logits = training.predict(run, training.encode(tokenizer, [row.text for row in rows]), options.max_length)
        labels = torch.tensor([row.label for row in rows])
        if name.startswith("sst2"):
            logits = logits.clone()
            logits[..., corpora.NEUTRAL] = -1e9
        hits = (logits.argmax(-1) == (labels if logits.dim() == 2 else labels[:, None])).float().mean(0)
        LOG.info("%s accuracy %s", name, [round(value, 4) for value in hits.flatten().tolist()])


def train_teacher(options):
    """Stage `teacher`: bge-small on three classes."""
    torch.manual_seed(options.seed)
    network = networks.load_bge(options.bge)
    training.join_processes(options)
    examples, encoded = encoded_training_set(options)

    def loss_of(rows, labels, weights):
        input_ids, mask = training.padded(rows)
        with mixed_precision():
            logits = network(input_ids=input_ids, attention_mask=mask).logits
        return weighted_cross_entropy(logits, labels, weights)

    training.train(network, examples, encoded, options, loss_of)
    network.eval()

    def run(input_ids, mask):
        with mixed_precision():
            return network(input_ids=input_ids, attention_mask=mask).logits

    if options.rank == 0:
        log_validation(run, options)


def load_teacher(options):
    """The fine-tuned teacher, or bge-small as it is; frozen."""
    if options.teacher:
        network = networks.teacher_network()
        network.load_state_dict(torch.load(options.teacher, weights_only=True)["network"])
    else:
        network = networks.load_bge(options.bge)
    network.eval()
    return network.requires_grad_(False)


def distillation_loss(student, teacher, batch, options):
    """Labels, the teacher's hidden states and, where it is fine-tuned, its logits, at every depth.

    Deeper passes count more. Depth 0 is the embedding, matched to the teacher's.
    """
    rows, labels, weights = batch
    input_ids, mask = training.padded(rows)
    with torch.no_grad(), mixed_precision():
        wanted = teacher(input_ids=input_ids, attention_mask=mask, output_hidden_states=True)
    with mixed_precision():
        states, logits = student(input_ids, mask)
    wanted_probabilities = functional.softmax(wanted.logits.float() / 2, -1)
    real = mask[:, :, None].float()
    real_values = real.sum() * networks.HIDDEN_SIZE
    depth_sum = sum(range(1, networks.PASSES + 1))
    label_share = 0.2 if options.teacher else 1.0
    total = 0.0
    for depth, state in enumerate(states):
        target = wanted.hidden_states[depth * networks.TEACHER_LAYERS // networks.PASSES].float()
        distance = ((state.float() - target) ** 2 * real).sum() / real_values
        total = total + options.hidden_weight / networks.PASSES * distance / (target.var() + 1e-6)
        if depth == 0:
            continue
        own = logits[depth - 1].float()
        divergence = functional.kl_div(functional.log_softmax(own / 2, -1), wanted_probabilities, reduction="none")
        distilled = 4 * (divergence.sum(-1) * weights).mean()
        labelled = weighted_cross_entropy(own, labels, weights)
        total = total + depth / depth_sum * (label_share * labelled + (1 - label_share) * distilled)
    return total


def train_student(options):
    """Stage `student`. Without `--teacher` it learns the hidden states of bge-small itself and the labels."""
    torch.manual_seed(options.seed)
    teacher = load_teacher(options)
    student = networks.albert_from_teacher(teacher)
    if options.start:
        student.load_state_dict(torch.load(options.start, weights_only=True)["network"])
    if options.ranges:
        student.quantisation = calibration.read_ranges(options.ranges)
    training.join_processes(options)
    examples, encoded = encoded_training_set(options)

    def loss_of(*batch):
        return distillation_loss(student, teacher, batch, options)

    training.train(student, examples, encoded, options, loss_of)
    student.eval()
    if options.rank == 0:
        log_validation(lambda input_ids, mask: torch.stack(student(input_ids, mask)[1], 1), options)


def export(options):
    """Stage `export`: the model folder and the golden file."""
    model_folder.export(options)


def evaluate(options):
    """Stage `evaluate`: prints the figures of a finished folder as JSON."""
    measuring.report(options)


def parser():
    """Command line of all stages."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = top.add_subparsers(required=True, metavar="STAGE")

    def stage(name, run):
        command = stages.add_parser(name, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("--data", required=True, help="folder of gzip'd JSONL sets")
        command.add_argument("--demo", required=True, help="vaderSentiment source distribution (.tar.gz)")
        command.add_argument("--tokenizer", required=True, help="tokenizer.json of bge-small-en-v1.5")
        command.add_argument("--max-length", type=int, default=256, help="tokens of one window")
        return command

    for name, run, rate in (("teacher", train_teacher, 6e-5), ("student", train_student, 4e-4)):
        command = stage(name, run)
        command.add_argument("--bge", help="bge-small-en-v1.5.onnx")
        command.add_argument("--checkpoint", required=True, help="written every two minutes; resumed if it exists")
        command.add_argument("--steps", type=int, required=True, help="batches of about 2,048 tokens a process")
        command.add_argument("--rate", type=float, default=rate, help="highest learning rate")
        command.add_argument("--seed", type=int, default=1)
        command.add_argument("--processes", type=int, default=1, help="processes that average their gradients")
        command.add_argument("--rank", type=int, default=0, help="number of this process")
        command.add_argument("--port", type=int, default=29517, help="loopback port of the first process")
        if name == "student":
            command.add_argument("--teacher", help="the teacher's checkpoint")
            command.add_argument("--start", help="student checkpoint to start from")
            command.add_argument("--ranges", help="ranges.json of an export: train on the int8 grid")
            command.add_argument("--hidden-weight", type=float, default=1.0, help="weight of the hidden states")

    command = stage("export", export)
    command.add_argument("--student", required=True, help="the student's checkpoint")
    command.add_argument("--work", required=True, help="folder for the checkpoint, texts and ranges.json")
    command.add_argument("--output", required=True, help="model folder to replace")
    command.add_argument("--golden", required=True, help="golden file to write")
    command.add_argument("--version", default="1")
    command.add_argument("--ranges", help="ranges.json that the student was trained on")
    command.add_argument("--core", default="unnamed core", help="kind of core, named beside the speed")
    command.add_argument("--dynamic", nargs="*", default=[], help="sites with dynamic activation scales")

    command = stage("evaluate", evaluate)
    command.add_argument("--output", required=True, help="model folder to measure")
    return top


def main(arguments):
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except ConversionError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
