"""Stage `export`: from a trained student to a verified model folder and its golden file.

The student becomes a Hugging Face checkpoint, which `albertine_models` converts like any other: it verifies the
graphs, judges int8 on held-out texts that stay out of the folder, and replaces the folder only when all is well.
"""

import json
import logging
from pathlib import Path

import torch
import transformers

import calibration
import card
import corpora
import golden_texts
import measuring
import networks
import training
from albertine_models.calibration import CALIBRATION_TEXTS
from albertine_models.convert import convert
from albertine_models.settings import Options
from albertine_models.terminal import Terminal

LOG = logging.getLogger("albert_sentiment")

WINDOW_OVERLAP = 32

# Held-out sets that int8 is judged on.
EVALUATION_SETS = ("sst5_test", "airline_held_out", "amazon_5core_held_out")


def load_student(path):
    """The trained student in float32."""
    student = networks.Albert()
    student.load_state_dict(torch.load(path, weights_only=True)["network"])
    return student.eval().requires_grad_(False)


def fit_bias_and_temperature(student, options, tokenizer):
    """Folds the tuned bias into the classifier and returns the bias and the temperature."""
    logits = []
    labels = []
    for rows in calibration.tuning_sets(options.data):
        encoded = training.encode(tokenizer, [row.text for row in rows])
        logits.append(training.predict(lambda *batch: student(*batch)[1][-1], encoded, options.max_length))
        labels.append(torch.tensor([row.label for row in rows]))
    bias = calibration.best_bias(logits, labels)
    student.classifier.bias += bias
    temperature = calibration.best_temperature(torch.cat(logits) + bias, torch.cat(labels))
    return bias.tolist(), temperature


def write_checkpoint(student, tokenizer, folder):
    """The student and its tokenizer as transformers saves them."""
    networks.checkpoint_model(student, corpora.LABELS).save_pretrained(folder)
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def write_texts(path, rows):
    """Texts, and labels where there are some, as the converter reads them."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def labelled(examples):
    """Rows of examples with the names of their labels."""
    return [{"text": example.text, "label": corpora.LABELS[example.label]} for example in examples]


def golden_rows(student, folder, tokenizer):
    """One row a golden text: ids, float32 logits from torch, int8 logits from ONNX Runtime, each text alone."""
    rows = []
    for text in golden_texts.TEXTS:
        ids = tokenizer.encode(text).ids
        batch = training.padded([ids])
        with torch.inference_mode():
            exact = student(*batch)[1][-1][0]
        rounded = folder.logits_by_depth(*batch)[0, -1]
        rows.append(
            {
                "text": text,
                "input_ids": ids,
                "logits_fp32": [round(value, 5) for value in exact.tolist()],
                "logits_int8": [round(value, 5) for value in rounded.tolist()],
                "label": corpora.LABELS[int(rounded.argmax())],
            }
        )
    return rows


class Report:
    """Measures the accepted graphs: figures for the manifest, notes for the card, and the golden rows."""

    def __init__(self, student, tokenizer, options, facts):
        self.student = student
        self.tokenizer = tokenizer
        self.options = options
        self.facts = facts
        self.golden = []

    def __call__(self, graphs):
        folder = measuring.Folder(graphs)
        self.golden = golden_rows(self.student, folder, self.tokenizer)
        sets = measuring.encode_sets(self.options)
        accuracy, by_depth = measuring.accuracy_figures(folder, sets, self.options.max_length)
        self.facts |= {
            "accuracy": accuracy,
            "by_depth": by_depth,
            "rounding_distance_max": measuring.rounding_distance(folder, [row["input_ids"] for row in self.golden]),
            "speed": measuring.speed_figures(folder),
            "core": self.options.core,
        }
        return accuracy, card.notes(self.facts)


def conversion_options(options, work, temperature):
    """What the converter is told, and the files of texts that it reads."""
    held_out = corpora.held_out_sets(options.data)
    golden = write_texts(work / "golden.jsonl", [{"text": text} for text in golden_texts.TEXTS])
    judged = [example for name in EVALUATION_SETS for example in held_out[name]]
    converted = Options(
        checkpoint=str(work / "checkpoint"),
        output=Path(options.output),
        name="albert-sentiment",
        version=options.version,
        task="sentiment",
        languages=["en"],
        license="MIT",
        description=card.DESCRIPTION,
        max_length=options.max_length,
        window_overlap=WINDOW_OVERLAP,
        evaluation=[golden],
        private_evaluation=[write_texts(work / "judged.jsonl", labelled(judged))],
        dynamic=options.dynamic,
        temperature=temperature,
        force=True,
        recipe="models/recipes/albert_sentiment.py",
        source="models/recipes",
        teacher="bge-small-en-v1.5 (MIT)",
        data=card.DATA,
    )
    if options.ranges:
        converted.ranges = {(0, site): pair for site, pair in calibration.read_ranges(options.ranges).items()}
    else:
        examples, _ = corpora.training_set(options.data, options.demo)
        some = examples[:: max(1, len(examples) // CALIBRATION_TEXTS)]
        converted.calibration = write_texts(work / "calibration.jsonl", labelled(some))
    return converted


def export(options):
    """Fits, saves a checkpoint, converts it, and writes the golden file and the ranges."""
    torch.set_num_threads(1)
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = training.load_tokenizer(options.tokenizer)
    student = load_student(options.student)
    bias, temperature = fit_bias_and_temperature(student, options, tokenizer)
    LOG.info("bias %s, temperature %.2f", bias, temperature)
    write_checkpoint(student, tokenizer, work / "checkpoint")
    converted = conversion_options(options, work, temperature)
    report = Report(student, tokenizer, options, {"bias": bias, "temperature": temperature})
    converted.report = report
    plan = convert(converted, Terminal())
    calibration.write_ranges(work / "ranges.json", plan.ranges)
    golden = Path(options.golden)
    golden.parent.mkdir(parents=True, exist_ok=True)
    partial = golden.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in report.golden), encoding="utf-8")
    partial.replace(golden)
    LOG.info("wrote %s and %s", options.output, golden)
