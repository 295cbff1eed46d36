"""Makes a model that ships, from its texts to its folder and its card. Every stage goes on where it was stopped.

    texts     reads the data sets, keeps apart what is measured on, prunes the vocabulary, writes token ids
    teachers  fine-tunes two small sentence encoders
    student   distils them into an ALBERT with one group of layers: at a constant rate, then at a falling one on the grid of int8
    export    saves a Hugging Face checkpoint, converts it to a verified folder, and fits when a text may leave early
    measure   measures the folder through the program and through transformers, and writes its card

`teachers` and `student` read the work folder alone, so they can run on a machine that has nothing else.
"""

import argparse
import collections
import json
import logging
import shutil
import sys
from pathlib import Path

import numpy
import torch

import data_sets
import distillation
import encoded
import export
import grid
import measure
import networks
import overlaps
import training
import vocabulary
from albertine_models.errors import ConversionError
from recipes import RECIPES
from work import Work

LOG = logging.getLogger("recipe")

# The stages in their order, and which options each needs.
STAGES = {
    "texts": ("data", "demo", "encoders"),
    "teachers": (),
    "student": (),
    "export": ("data", "albertine"),
    "measure": ("data", "demo", "albertine"),
}


TEACHER_RATE = 1e-4
DISTIL_RATE = {"cpu": 3e-4, "cuda": 5e-4}
# On CPUs batches are small: a higher rate would unlearn what long texts have taught.
FINISH_RATE = {"cpu": 1e-4, "cuda": 5e-4}

# Tokens of a batch over all processes. Smaller ones give more steps; in them the optimiser and the exchange of gradients weigh more.
TEACHER_BATCH_TOKENS = {"cpu": 4096, "cuda": 8192}
STUDENT_BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}

# The student starts from layers of a teacher, so its hidden states only have to stay near; at the end the logits decide. It reads
# the labelled texts more often than the teachers did, and must not know them by heart.
DISTIL_WEIGHTS = distillation.Weights(hidden=0.3, labels=0.2)
FINISH_WEIGHTS = distillation.Weights(hidden=0.1, labels=0.3)

# Tokens of the windows that are trained on, which are those that the program reads.
LONGEST = networks.MAX_POSITIONS

# Rows of each set that is looked at after a stage.
VALIDATION_ROWS = 500


def all_held_out(data):
    """Sets that any model is measured on: a text of one may not teach another either."""
    return {name: rows for recipe in RECIPES.values() for name, rows in recipe.texts.held_out_sets(data).items()}


def repeated(examples, times):
    """The examples, those of some sets several times; in which order they are read is drawn later."""
    if unknown := times.keys() - {example.source for example in examples}:
        raise ValueError(f"no training set is named {', '.join(sorted(unknown))}, which a recipe wants several times")
    return [example for example in examples for _ in range(times.get(example.source, 1))]


def write_texts(recipe, work, options):
    """Stage `texts`."""
    if work.report.exists():
        return
    measured = overlaps.Measured(all_held_out(options.data), options.demo)
    labelled, removed = overlaps.without_overlap(recipe.texts.training_candidates(options.data), measured)
    # From texts that may be trained on, so that none of a measured set comes back in another spelling.
    made, made_removed = overlaps.without_overlap(recipe.texts.made_from(labelled), measured)
    unlabelled, also_removed = overlaps.without_overlap(recipe.texts.unlabelled_texts(options.data), measured)
    labelled += [example for example in made if example.label >= 0]
    unlabelled += [example for example in made if example.label < 0]
    encoders = Path(options.encoders)
    old = vocabulary.plain(str(encoders / f"{networks.ENCODERS[0]}-tokenizer.json"))
    words = vocabulary.Vocabulary(old, frequencies_of_all(old, options.data, work), networks.VOCABULARY_SIZE)
    tokenizer = words.tokenizer()
    tokenizer.save(str(work.tokenizer))
    for name in networks.ENCODERS:
        weights = networks.read_encoder(encoders / f"{name}.onnx")
        weights["embeddings.word_embeddings.weight"] = words.table(weights["embeddings.word_embeddings.weight"])
        halves = {name: value.astype(numpy.float16) for name, value in weights.items()}
        numpy.savez_compressed(work.encoder(name), **halves)

    def write(kind, examples):
        ids = vocabulary.encode(tokenizer, [example.text for example in examples], encoded.LONGEST_TEXT)
        of_rows = zip(*((example.label, example.weight, example.among) for example in examples))
        encoded.Texts.of(ids, *of_rows).write(work.texts(kind))

    write("labelled", repeated(labelled, recipe.times))
    write("unlabelled", unlabelled)
    for name, examples in recipe.texts.held_out_sets(options.data).items():
        write(name, data_sets.sample(examples, VALIDATION_ROWS))
    kept = collections.Counter(example.source for example in labelled + unlabelled)
    report = {"kept": kept, "removed": removed | made_removed | also_removed}
    LOG.info("texts: %s", json.dumps(report))
    work.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def frequencies_of_all(tokenizer, data, work):
    """How often each token occurs in what any model trains on; counted once for all models."""
    if work.frequencies.exists():
        return numpy.load(work.frequencies)
    texts = []
    for recipe in RECIPES.values():
        texts += [example.text for example in recipe.texts.training_candidates(data)]
        texts += [example.text for example in recipe.texts.unlabelled_texts(data)]
    counts = vocabulary.counts(tokenizer, texts, encoded.LONGEST_TEXT)
    numpy.save(work.frequencies, counts)
    return counts


def frequencies_of(texts):
    """How often each token of the pruned vocabulary occurs in encoded texts."""
    return sum(numpy.bincount(part.ids, minlength=networks.VOCABULARY_SIZE) for part in texts)


def mixture(work, kinds, shares, batch_tokens, options, machine):
    """The batches of one stage."""
    special = encoded.Special.of(vocabulary.plain(str(work.tokenizer)))
    streams = [
        encoded.Stream(encoded.Texts.read(work.texts(kind)), special, LONGEST, options.seed + place)
        for place, kind in enumerate(kinds)
    ]
    tokens_of_process = tokens_of_batch(batch_tokens, options) // machine.processes
    return encoded.Mixture(
        streams, shares, tokens_of_process, options.seed, machine.processes, options.device == "cuda"
    )


def tokens_of_batch(by_device, options):
    """Tokens of a batch over all processes, by device unless the options say otherwise."""
    return options.batch_tokens or by_device[options.device]


def load_teacher(name, recipe, work, machine):
    """A teacher as it starts."""
    with numpy.load(work.encoder(name)) as weights:
        return networks.teacher_of(dict(weights), len(recipe.texts.LABELS)).to(machine.device)


def load_teachers(recipe, work, machine):
    """All teachers as they were trained, as one."""
    return networks.Teachers(
        networks.frozen(load_teacher(name, recipe, work, machine), work.checkpoint(name)) for name in networks.ENCODERS
    )


def train_teachers(machine, work, options):
    """Stage `teachers`, one after the other."""
    recipe = RECIPES[options.model]
    length = tokens(recipe.teacher_tokens, options)
    rise = training.RISE_STEPS * tokens_of_batch(TEACHER_BATCH_TOKENS, options)
    schedules = {
        name: training.Schedule(length, TEACHER_RATE, work.checkpoint(name), rise) for name in networks.ENCODERS
    }
    unfinished = [name for name, schedule in schedules.items() if not training.is_complete(schedule)]
    for name in unfinished:
        torch.manual_seed(options.seed)
        teacher = load_teacher(name, recipe, work, machine)
        batches = mixture(work, ["labelled"], [1], TEACHER_BATCH_TOKENS, options, machine)
        training.train(teacher, batches, schedules[name], machine, distillation.teacher_loss(teacher, machine))
    if unfinished and machine.rank == 0:
        together = load_teachers(recipe, work, machine)
        for name, network in zip(networks.ENCODERS, together.networks):
            LOG.info("%s alone", name)
            validate_teachers(recipe, work, machine, networks.Teachers([network]))
        LOG.info("%s", " and ".join(networks.ENCODERS))
        validate_teachers(recipe, work, machine, together)


def validate_teachers(recipe, work, machine, teachers):
    """`validate` for teachers, which have one depth."""
    validate(recipe, work, machine, lambda ids, mask: teachers(ids, mask)[1][:, None])


def train_student(machine, work, options):
    """Stage `student`: two runs."""
    recipe = RECIPES[options.model]
    torch.manual_seed(options.seed)
    teachers = load_teachers(recipe, work, machine)
    kinds = ["labelled", "unlabelled"]
    frequencies = frequencies_of([encoded.Texts.read(work.texts(kind)) for kind in kinds])
    student = networks.albert_from_teacher(teachers.networks[0].cpu(), frequencies).to(machine.device)
    # Frozen, so that their weights need not be rounded anew for each batch.
    teachers.to(machine.device, machine.dtype)
    runs = [
        ("distil", recipe.distil_tokens, True, DISTIL_RATE, DISTIL_WEIGHTS),
        ("finish", recipe.finish_tokens, False, FINISH_RATE, FINISH_WEIGHTS),
    ]
    shares = [1, recipe.unlabelled_share]
    for name, length, is_first, rates, weights in runs:
        checkpoint = work.checkpoint(name)
        rise = training.RISE_STEPS * tokens_of_batch(STUDENT_BATCH_TOKENS, options) if is_first else 0
        schedule = training.Schedule(
            tokens(length, options), rates[options.device], checkpoint, rise, falls=not is_first
        )
        if training.is_complete(schedule):
            student.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["network"])
            continue
        if is_first:
            # They come from what was before this run was made longer.
            work.checkpoint("finish").unlink(missing_ok=True)
            work.roundings.unlink(missing_ok=True)
        batches = mixture(work, kinds, shares, STUDENT_BATCH_TOKENS, options, machine)
        loss = distillation.student_loss(student, teachers, weights, machine)
        product = (
            networks.plain if is_first else grid.on_grid(roundings(student, batches, work, machine), machine.device)
        )
        with student.computing(product):
            training.train(student, batches, schedule, machine, loss)
        if machine.rank == 0:
            validate(recipe, work, machine, lambda ids, mask: torch.stack(student(ids, mask)[1], 1))


def roundings(student, batches, work, machine):
    """How the student's activations are rounded, by what they are before it goes on the grid."""
    if not work.roundings.exists():
        found = grid.roundings_of(student, batches.batches(0), machine.device)
        if machine.rank == 0:
            grid.write(work.roundings, found)
        return found
    return grid.read(work.roundings)


def tokens(wanted, options):
    """A part of the length that a recipe wants."""
    return int(wanted * options.share)


def validate(recipe, work, machine, run):
    """Logs accuracy by depth on the first window of the held-out sets that are for tuning; `run` gives [rows, depths, labels]."""
    special = encoded.Special.of(vocabulary.plain(str(work.tokenizer)))

    def by_depth(input_ids, mask):
        with machine.precision():
            return run(input_ids, mask)

    for name in recipe.texts.TUNING_SETS:
        texts = encoded.Texts.read(work.texts(name))
        rows = [special.framed(texts.row(index)[: LONGEST - 2]) for index in range(len(texts))]
        logits = encoded.predict(by_depth, rows, device=machine.device)
        truth = torch.from_numpy(texts.labels.astype(numpy.int64))
        present = truth.unique()
        predicted = present[logits[:, :, present].argmax(-1)]
        hits = (predicted == truth[:, None]).float().mean(0)
        LOG.info(
            "%s, %d rows, %d classes: accuracy %s",
            name,
            len(rows),
            len(present),
            [round(hit, 4) for hit in hits.tolist()],
        )


def parser():
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("model", choices=sorted(RECIPES))
    top.add_argument("--stages", default=",".join(STAGES), help="some of them, with commas (default: all)")
    top.add_argument("--work", required=True, help="folder for token ids and checkpoints")
    top.add_argument("--data", help="folder of gzip'd JSONL sets")
    top.add_argument("--demo", help="vaderSentiment source distribution (.tar.gz)")
    names = ", ".join(f"{name}.onnx" for name in networks.ENCODERS)
    top.add_argument("--encoders", help=f"folder with {names} and {networks.ENCODERS[0]}-tokenizer.json")
    top.add_argument("--albertine", default="albertine", help="the program (default: the one in PATH)")
    top.add_argument("--output", help="model folder to write; default: models/MODEL of this repository")
    top.add_argument("--golden", help="file of golden logits to write; default: the one that the program's tests read")
    top.add_argument("--version", default="1", help="of the model; raise it whenever what it says of a text changes")
    top.add_argument("--core", default="unnamed core", help="kind of core, named beside figures")
    top.add_argument("--dynamic", nargs="*", default=[], help="int8: sites whose activation scales follow the batch")
    top.add_argument("--keep-float", nargs="*", default=[], help="int8: sites that stay float32")
    top.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    top.add_argument("--processes", type=int, default=1, help="on CPUs: processes that average their gradients")
    top.add_argument("--share", type=float, default=1.0, help="of the recipe's length of training (default: 1)")
    top.add_argument("--batch-tokens", type=int, help="tokens of a batch over all processes")
    top.add_argument("--seed", type=int, default=1)
    return top


def main(arguments):
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    options = parser().parse_args(arguments)
    recipe, work = RECIPES[options.model], Work(options.work, options.model)
    options.output = Path(options.output or Path(__file__).parent.parent / options.model)
    stages = options.stages.split(",")
    check_stages(stages, options)
    try:
        for stage in stages:
            run(stage, recipe, work, options)
    except ConversionError as error:
        sys.exit(f"error: {error}")


def check_stages(stages, options):
    """Says what is missing before hours are spent."""
    for stage in stages:
        if stage not in STAGES:
            sys.exit(f"error: there is no stage `{stage}`; there are {', '.join(STAGES)}")
        for name in STAGES[stage]:
            if getattr(options, name) is None:
                sys.exit(f"error: stage `{stage}` needs `--{name}`")
        if "albertine" in STAGES[stage] and not shutil.which(options.albertine):
            sys.exit(f"error: there is no program `{options.albertine}`; name it with `--albertine`")


def run(stage, recipe, work, options):
    """One stage."""
    match stage:
        case "texts":
            write_texts(recipe, work, options)
        case "teachers":
            training.on_machine(options.device, options.processes, train_teachers, work, options)
        case "student":
            training.on_machine(options.device, options.processes, train_student, work, options)
        case "export":
            export.write_folder(recipe, work, options)
        case "measure":
            measure.write_card(recipe, work, options)


if __name__ == "__main__":
    main(sys.argv[1:])
