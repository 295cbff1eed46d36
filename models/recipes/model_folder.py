"""Stage `export`: from a trained student to a verified model folder, its card and its golden file.

The folder is written beside its place and moved there when it is complete, so a reader never sees graphs whose
hashes do not fit. An int8 model that strays too far from float32 is refused.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path

import torch

import calibration
import card
import corpora
import golden_texts
import graphs
import measuring
import networks
import training

LOG = logging.getLogger("albert_sentiment")

FILES = ["embed.onnx", "layer.onnx", "head.onnx", "tokenizer.json"]
FILE_BYTES_MAX = 10_000_000

# Acceptance of int8: share of labels equal to float32, and how much macro-F1 may fall.
AGREEMENT_MIN = 0.99
MACRO_F1_LOSS_MAX = 0.005


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


def load_ranges(student, options, tokenizer):
    """Static activation ranges: those the student was trained with, or freshly observed ones."""
    if options.ranges:
        ranges = calibration.read_ranges(options.ranges)
    else:
        examples, _ = corpora.training_set(options.data, options.demo)
        step = len(examples) // calibration.RANGE_TEXTS
        encoded = training.encode(tokenizer, [example.text for example in examples[::step]])
        ranges = calibration.activation_ranges(student, encoded, options.max_length)
        (Path(options.work) / "ranges.json").write_text(json.dumps(ranges, indent=2))
    return {site: pair for site, pair in ranges.items() if site not in options.dynamic}


def write_graphs(student, ranges, tokenizer, folder):
    """Graphs and tokenizer; every file stays below the size a repository takes."""
    models = {
        "embed.onnx": graphs.embed_graph(student),
        "layer.onnx": graphs.layer_graph(student, ranges),
        "head.onnx": graphs.head_graph(student),
    }
    for name, model in models.items():
        (folder / name).write_bytes(model.SerializeToString())
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    for name in FILES:
        size = (folder / name).stat().st_size
        if size >= FILE_BYTES_MAX:
            raise ValueError(f"`{name}` has {size} bytes, at most {FILE_BYTES_MAX} are allowed")


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
                "label": card.LABELS[int(rounded.argmax())],
            }
        )
    return rows


def check_acceptance(agreement):
    """Refuses an int8 model whose labels or macro-F1 are too far from float32."""
    loss = agreement["float32_macro_f1"] - agreement["int8_macro_f1"]
    if agreement["int8_label_agreement"] < AGREEMENT_MIN or loss > MACRO_F1_LOSS_MAX:
        raise SystemExit(
            f"int8 refused: agreement {agreement['int8_label_agreement']:.4f} (at least {AGREEMENT_MIN}), "
            f"macro-F1 loss {loss:.4f} (at most {MACRO_F1_LOSS_MAX}); try `--dynamic` sites or train with `--ranges`"
        )


def replace_folder(building, output):
    """Moves a complete folder to its place."""
    old = output.with_name(output.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    building.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def export(options):
    """Calibrates, writes, measures, and only then replaces the folder and the golden file."""
    torch.set_num_threads(1)
    tokenizer = training.load_tokenizer(options.tokenizer)
    student = load_student(options.student)
    bias, temperature = fit_bias_and_temperature(student, options, tokenizer)
    ranges = load_ranges(student, options, tokenizer)
    LOG.info("bias %s, temperature %.2f, ranges %s", bias, temperature, ranges)

    output = Path(options.output)
    building = output.with_name("." + output.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    write_graphs(student, ranges, tokenizer, building)

    folder = measuring.Folder(building)
    rows = golden_rows(student, folder, tokenizer)
    sets = measuring.encode_sets(options)
    agreement = measuring.agreement_figures(folder, student, sets, options.max_length)
    golden_ids = [row["input_ids"] for row in rows]
    agreement["grouping_distance_max"] = measuring.grouping_distance(folder, golden_ids)
    agreement["rounding_distance_max"] = measuring.rounding_distance(folder, golden_ids)
    agreement["golden_int8_distance_max"] = max(
        abs(exact - rounded) for row in rows for exact, rounded in zip(row["logits_fp32"], row["logits_int8"])
    )
    LOG.info("agreement %s", json.dumps(agreement))
    if not options.force:
        check_acceptance(agreement)
    accuracy, by_depth = measuring.accuracy_figures(folder, sets, options.max_length)
    facts = {
        "version": options.version,
        "bias": bias,
        "temperature": temperature,
        "dynamic": options.dynamic,
        "accuracy": accuracy,
        "by_depth": by_depth,
        "agreement": agreement,
        "speed": measuring.speed_figures(folder),
        "core": options.core,
        "sha256": {name: hashlib.sha256((building / name).read_bytes()).hexdigest() for name in FILES},
        "sizes": {name: (building / name).stat().st_size for name in FILES},
    }
    (building / "model.toml").write_text(card.model_toml(facts), encoding="utf-8")
    (building / "README.md").write_text(card.readme(facts), encoding="utf-8")
    golden = Path(options.golden)
    golden.parent.mkdir(parents=True, exist_ok=True)
    partial = golden.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    replace_folder(building, output)
    partial.replace(golden)
    LOG.info("wrote %s and %s: %s", output, golden, json.dumps(facts, indent=2))
