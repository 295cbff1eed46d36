"""Measures a finished model folder on ONNX Runtime: accuracy, agreement with float32, grouping, and speed.

Needs nothing of torch's networks except where float32 is the reference. One thread, as the program uses it.
"""

import json
import statistics
import time
from pathlib import Path

import numpy
import onnxruntime
import torch

import calibration
import corpora
import networks
import training

PROVIDERS = ["CPUExecutionProvider"]

# Shapes that speed is measured at: texts x tokens.
SPEED_SHAPES = [(1, 16), (8, 16), (1, 128), (4, 128)]

# Relative disturbance of hidden states that stands for another core's float32 arithmetic.
ROUNDING_NOISE = 2e-6


class Folder:
    """The three graphs of a model folder, applied pass after pass."""

    def __init__(self, folder):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.embed, self.layer, self.head = (
            onnxruntime.InferenceSession(str(Path(folder) / f"{name}.onnx"), options, providers=PROVIDERS)
            for name in ("embed", "layer", "head")
        )

    def hidden(self, input_ids):
        """Hidden states before the first pass."""
        feeds = {"input_ids": input_ids, "token_type_ids": numpy.zeros_like(input_ids)}
        return self.embed.run(None, feeds)[0]

    def logits_by_depth(self, input_ids, mask):
        """Logits after every pass, shape [batch, passes, 3]; torch tensors in and out."""
        lengths = mask.sum(1).numpy().astype(numpy.int32)
        hidden = self.hidden(input_ids.numpy())
        found = []
        for _ in range(networks.PASSES):
            hidden = self.layer.run(None, {"hidden": hidden, "lengths": lengths})[0]
            found.append(self.head.run(None, {"hidden": hidden})[0])
        return torch.from_numpy(numpy.stack(found, 1))


def encode_sets(options):
    """Every measured set: name -> (token ids, labels). The demo's texts are read from their archive."""
    tokenizer = training.load_tokenizer(options.tokenizer)
    sets = {
        name: ([row.text for row in rows], [row.label for row in rows])
        for name, rows in corpora.held_out_sets(options.data).items()
        if name not in ("sst2_train_heldout", "sst5_dev", "airline_tuning")
    }
    demo = corpora.read_demo(options.demo)
    for kind in ("product", "newspaper"):
        texts = [text for text, _ in demo[kind]]
        sets[f"demo_{kind}"] = (texts, [corpora.class_of_rating(rating) for _, rating in demo[kind]])
    return {name: (training.encode(tokenizer, texts), torch.tensor(labels)) for name, (texts, labels) in sets.items()}


def scores(name, logits, labels):
    """Figures of one set. A set without neutral texts is scored on two classes, the neutral logit ignored."""
    if (labels == corpora.NEUTRAL).any():
        predicted = logits.argmax(-1)
        return {
            f"{name}_accuracy": (predicted == labels).float().mean().item(),
            f"{name}_macro_f1": calibration.macro_f1(predicted, labels),
        }
    two = logits.clone()
    two[:, corpora.NEUTRAL] = -1e9
    return {
        f"{name}_two_class": (two.argmax(-1) == labels).float().mean().item(),
        f"{name}_neutral_share": (logits.argmax(-1) == corpora.NEUTRAL).float().mean().item(),
    }


def accuracy_figures(folder, sets, max_length):
    """Figures of all sets, and accuracy by depth on sst2 dev and sst5 test."""
    figures = {}
    by_depth = {}
    for name, (encoded, labels) in sets.items():
        logits = training.predict(folder.logits_by_depth, encoded, max_length)
        figures.update(scores(name, logits[:, -1], labels))
        if name in ("sst2_dev", "sst5_test"):
            every = [scores(name, logits[:, depth], labels) for depth in range(networks.PASSES)]
            by_depth[name] = [next(iter(figures_of_depth.values())) for figures_of_depth in every]
    return figures, by_depth


def agreement_figures(folder, student, sets, max_length):
    """How far int8 is from float32: share of equal labels, largest distance, macro-F1 of both."""
    reference = []
    measured = []
    wanted = []
    for name in ("sst5_test", "airline_held_out", "amazon_5core_held_out"):
        encoded, labels = sets[name]
        reference.append(training.predict(lambda *batch: student(*batch)[1][-1], encoded, max_length))
        measured.append(training.predict(lambda *batch: folder.logits_by_depth(*batch)[:, -1], encoded, max_length))
        wanted.append(labels)
    pairs = list(zip(reference, measured, wanted))
    distance = (torch.cat(reference) - torch.cat(measured)).abs()
    equal = torch.cat(reference).argmax(-1) == torch.cat(measured).argmax(-1)
    return {
        "int8_label_agreement": equal.float().mean().item(),
        "int8_logit_distance_mean": distance.mean().item(),
        "int8_logit_distance_p99": distance.flatten().quantile(0.99).item(),
        "int8_logit_distance_max": distance.max().item(),
        "float32_macro_f1": sum(calibration.macro_f1(own.argmax(-1), labels) for own, _, labels in pairs) / len(pairs),
        "int8_macro_f1": sum(calibration.macro_f1(own.argmax(-1), labels) for _, own, labels in pairs) / len(pairs),
    }


def grouping_distance(folder, rows):
    """Largest distance between a text's logits alone and in a padded batch of eight."""
    largest = 0.0
    for begin in range(0, len(rows), 8):
        group = rows[begin : begin + 8]
        together = folder.logits_by_depth(*training.padded(group))[:, -1]
        for index, row in enumerate(group):
            alone = folder.logits_by_depth(*training.padded([row]))[0, -1]
            largest = max(largest, (alone - together[index]).abs().max().item())
    return largest


def rounding_distance(folder, rows):
    """Largest change of logits when every hidden state is off by about one part in a million.

    That is what another kind of core does to the float32 steps between the integer products: most values stay in
    their int8 step, a few fall into the next one. Bounds what golden logits may differ by between cores.
    """
    generator = numpy.random.default_rng(2)
    largest = 0.0
    for row in rows:
        input_ids, mask = training.padded([row])
        exact = folder.logits_by_depth(input_ids, mask)[0, -1]
        lengths = mask.sum(1).numpy().astype(numpy.int32)
        hidden = folder.hidden(input_ids.numpy())
        for _ in range(networks.PASSES):
            noise = generator.uniform(-ROUNDING_NOISE, ROUNDING_NOISE, hidden.shape).astype(numpy.float32)
            hidden = folder.layer.run(None, {"hidden": hidden * (1 + noise), "lengths": lengths})[0]
        shifted = torch.from_numpy(folder.head.run(None, {"hidden": hidden})[0][0])
        largest = max(largest, (shifted - exact).abs().max().item())
    return largest


def speed_figures(folder):
    """Tokens a second through embedding, all passes and head, on one thread."""
    figures = {}
    generator = numpy.random.default_rng(1)
    for batch, sequence in SPEED_SHAPES:
        input_ids = torch.from_numpy(generator.integers(1000, 20000, (batch, sequence)))
        mask = torch.ones_like(input_ids)
        folder.logits_by_depth(input_ids, mask)
        times = []
        for _ in range(max(10, 8000 // (batch * sequence))):
            begin = time.perf_counter()
            folder.logits_by_depth(input_ids, mask)
            times.append(time.perf_counter() - begin)
        figures[f"{batch}x{sequence}"] = round(batch * sequence / statistics.median(times))
    return figures


def report(options):
    """Measures a folder and prints its figures as JSON."""
    torch.set_num_threads(1)
    folder = Folder(options.output)
    figures, by_depth = accuracy_figures(folder, encode_sets(options), options.max_length)
    print(json.dumps({"accuracy": figures, "by_depth": by_depth, "tokens_per_second": speed_figures(folder)}, indent=2))
