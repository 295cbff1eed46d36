"""Measures a finished model folder on ONNX Runtime: accuracy, what another kind of core may change, and speed.

How far int8 is from float32 is measured where the folder is made. One thread, as the program uses it.
"""

import json
import statistics
import time
from pathlib import Path

import numpy
import torch

import calibration
import corpora
import networks
import training
from albertine_models import runtime

# Shapes that speed is measured at: texts x tokens.
SPEED_SHAPES = [(1, 16), (8, 16), (1, 128), (4, 128)]

# Relative disturbance of hidden states that stands for another core's float32 arithmetic.
ROUNDING_NOISE = 2e-6


class Folder:
    """The three graphs of a model folder, asked after every pass."""

    def __init__(self, graphs):
        self.graphs = runtime.Stepped(graphs, networks.PASSES)

    @classmethod
    def read(cls, folder):
        """The graphs of a finished folder."""
        return cls({path.name: path.read_bytes() for path in Path(folder).glob("*.onnx")})

    def hidden(self, input_ids):
        """Hidden states before the first pass."""
        feeds = {"input_ids": input_ids, "token_type_ids": numpy.zeros_like(input_ids)}
        return self.graphs.embed.run(None, feeds)[0]

    def logits_by_depth(self, input_ids, mask):
        """Logits after every pass, shape [batch, passes, 3]; torch tensors in and out."""
        lengths = mask.sum(1).numpy().astype(numpy.int32)
        hidden = self.hidden(input_ids.numpy())
        found = []
        for _ in range(networks.PASSES):
            hidden = self.graphs.layer.run(None, {"hidden": hidden, "lengths": lengths})[0]
            found.append(self.graphs.head.run(None, {"hidden": hidden})[0])
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
            hidden = folder.graphs.layer.run(None, {"hidden": hidden * (1 + noise), "lengths": lengths})[0]
        shifted = torch.from_numpy(folder.graphs.head.run(None, {"hidden": hidden})[0][0])
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
    folder = Folder.read(options.output)
    figures, by_depth = accuracy_figures(folder, encode_sets(options), options.max_length)
    print(json.dumps({"accuracy": figures, "by_depth": by_depth, "tokens_per_second": speed_figures(folder)}, indent=2))
