"""Stage `export`: from a trained student to a verified model folder.

The student becomes a Hugging Face checkpoint, which `albertine_models` converts like any other: it verifies the graphs, judges
int8 on held-out texts that stay out of the folder, and replaces the folder only when all is well. What is fitted after
training (the classes' bias, temperatures, the exit rule) is fitted on the tuning sets.
"""

import json
import logging
import subprocess
from pathlib import Path

import numpy
import torch
import transformers
from torch.nn import functional

import data_sets
import encoded
import golden_texts
import grid
import networks
import vocabulary
from albertine_models import runtime
from albertine_models.acceptance import macro_f1
from albertine_models.convert import convert
from albertine_models.settings import Options
from albertine_models.terminal import Terminal

LOG = logging.getLogger("recipe")

# Where the program's tests find golden logits.
GOLDEN_FOLDER = Path(__file__).parent.parent.parent / "tests" / "fixtures"

# Rows of one set that int8 is judged on: each is computed by transformers and by both kinds of graphs.
JUDGED_ROWS = 500

# Rows of one set that a rule is fitted on: more take time and change nothing.
TUNING_ROWS = 1000

# Of the classes' biases, in logits.
BIAS_STEP = 0.1
BIAS_MOST = 1.5

# Temperatures that are tried: from, below, by steps of.
TEMPERATURES = (0.5, 3.0, 0.01)


def best_bias(logits, labels):
    """Addition to the logits with the best mean macro-F1 over several sets (lists of tensors, one a set).

    Found class by class, again and again until none moves. A tenth of a logit must buy at least a hundredth of a point, so that
    no shift is made for noise.
    """
    steps = [place * BIAS_STEP for place in range(round(-BIAS_MOST / BIAS_STEP), round(BIAS_MOST / BIAS_STEP) + 1)]
    bias = torch.zeros(logits[0].shape[1])

    def score(candidate):
        scores = [
            macro_f1((own + candidate).argmax(-1).numpy(), wanted.numpy(), len(bias))
            for own, wanted in zip(logits, labels)
        ]
        return sum(scores) / len(scores) - 0.001 * candidate.abs().sum().item()

    best = score(bias)
    moved = True
    while moved:
        moved = False
        for label in range(len(bias)):
            for step in steps:
                candidate = bias.clone()
                candidate[label] = step
                if (value := score(candidate)) > best + 1e-9:
                    best, bias, moved = value, candidate, True
    return bias


def best_temperature(logits, labels):
    """What divides the logits (lists of tensors, one a set) for the least mean log loss over the sets."""

    def log_loss(temperature):
        losses = [functional.cross_entropy(own / temperature, wanted).item() for own, wanted in zip(logits, labels)]
        return sum(losses) / len(losses)

    return min(numpy.arange(*TEMPERATURES).round(2).tolist(), key=log_loss)


def tuning_logits(recipe, work, student, held_out):
    """Logits at full depth of the first window of each text, and true labels: a list each, one tensor a tuning set."""
    tokenizer = vocabulary.plain(str(work.tokenizer))
    special = encoded.Special.of(tokenizer)
    logits, labels = [], []
    for name in recipe.texts.TUNING_SETS:
        examples = data_sets.sample(held_out[name], TUNING_ROWS)
        ids = vocabulary.encode(tokenizer, [example.text for example in examples], recipe.max_length - 2)
        rows = [special.framed(row) for row in ids]
        logits.append(encoded.predict(lambda *batch: student(*batch)[1][-1], rows))
        labels.append(torch.tensor([example.label for example in examples]))
    return logits, labels


def tuned(recipe, work, student, held_out):
    """Bias of the classes and temperature that the tuning sets want."""
    logits, labels = tuning_logits(recipe, work, student, held_out)
    # A set without a class would push all into the others.
    whole = [place for place, own in enumerate(labels) if len(own.unique()) == len(recipe.texts.LABELS)]
    bias = torch.zeros(len(recipe.texts.LABELS))
    if whole:
        bias = best_bias([logits[place] for place in whole], [labels[place] for place in whole])
    return bias, best_temperature([own + bias for own in logits], labels)


def write_checkpoint(recipe, work, student, tokenizer):
    """The student and its tokenizer as transformers saves them."""
    networks.checkpoint_model(student, recipe.texts.LABELS).save_pretrained(work.hugging_face)
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(work.hugging_face)


def write_texts(path, recipe, examples):
    """Texts with the names of their labels, one JSON object a line."""
    labels = recipe.texts.LABELS
    rows = ({"text": example.text, "label": labels[example.label]} for example in examples)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def conversion_options(recipe, work, options, held_out, temperature):
    """What the converter is told, and the files of texts that it reads."""
    golden = work.folder / "golden.jsonl"
    golden.write_text("".join(json.dumps({"text": text}) + "\n" for text in golden_texts.TEXTS), encoding="utf-8")
    judged = [
        example
        for name in recipe.measured
        if name in held_out
        for example in data_sets.sample(held_out[name], JUDGED_ROWS)
    ]
    return Options(
        checkpoint=str(work.hugging_face),
        output=options.output,
        name=recipe.name,
        version=options.version,
        task=recipe.task,
        languages=["en"],
        license="MIT",
        description=recipe.description,
        max_length=recipe.max_length,
        window_overlap=recipe.window_overlap,
        temperature=temperature,
        roundings=grid.read(work.roundings),
        evaluation=[golden],
        private_evaluation=[write_texts(work.folder / "judged.jsonl", recipe, judged)],
        dynamic=options.dynamic,
        keep_float=options.keep_float,
        unrolled=False,
        threads=options.processes,
        force=True,
        recipe="models/recipes/recipe.py",
        source="models/recipes",
        teacher=" and ".join(f"{name} (MIT)" for name in networks.ENCODERS),
        data=sorted(json.loads(work.report.read_text())["kept"]),
    )


def write_golden(recipe, work, student, options):
    """One row a golden text: ids, and where they fit a window, logits of the text alone: torch's in float32, ONNX Runtime's in int8."""
    graphs = {path.name: path.read_bytes() for path in options.output.glob("*.onnx")}
    served = runtime.served(graphs, networks.PASSES)
    tokenizer = vocabulary.plain(str(work.tokenizer))
    rows = []
    for text in golden_texts.TEXTS:
        ids = tokenizer.encode(text).ids
        row = {"text": text, "input_ids": ids}
        rows.append(row)
        if len(ids) > recipe.max_length:
            continue
        input_ids = numpy.array([ids], numpy.int64)
        rounded = served(input_ids, numpy.zeros_like(input_ids), numpy.array([len(ids)], numpy.int32))[0]
        with torch.inference_mode():
            exact = student(torch.from_numpy(input_ids), torch.ones_like(torch.from_numpy(input_ids)))[1][-1][0]
        row["logits_fp32"] = [round(value, 5) for value in exact.tolist()]
        row["logits_int8"] = [round(value, 5) for value in rounded.tolist()]
        row["label"] = recipe.texts.LABELS[int(rounded.argmax())]
    path = options.golden or GOLDEN_FOLDER / f"golden-{recipe.name}.jsonl"
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_folder(recipe, work, options):
    """Fits, saves a checkpoint, converts it, and lets the program fit when a text may leave early."""
    torch.set_num_threads(1)
    held_out = recipe.texts.held_out_sets(options.data)
    student = networks.frozen(networks.Albert(len(recipe.texts.LABELS)), work.checkpoint("finish"))
    grid.keep_rounded(student, grid.read(work.roundings))
    bias, temperature = tuned(recipe, work, student, held_out)
    LOG.info("bias %s, temperature %.2f", [round(value, 1) for value in bias.tolist()], temperature)
    student.classifier.bias += bias
    write_checkpoint(recipe, work, student, vocabulary.plain(str(work.tokenizer)))
    convert(conversion_options(recipe, work, options, held_out, temperature), Terminal())
    write_golden(recipe, work, student, options)
    tuning = [example for name in recipe.texts.TUNING_SETS for example in data_sets.sample(held_out[name], TUNING_ROWS)]
    numpy.random.default_rng(options.seed).shuffle(tuning)
    texts = write_texts(work.folder / "tuning.jsonl", recipe, tuning)
    command = [options.albertine, "model", "calibrate", str(options.output), str(texts), "--write"]
    rules = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.replace(
        str(texts), texts.name
    )
    work.exit_rules.write_text(rules, encoding="utf-8")
    LOG.info("%s", rules)
