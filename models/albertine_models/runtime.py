"""Runs networks over encoded rows: graphs on ONNX Runtime as the program runs them, or anything else row by row.

Rows of equal length form a batch, so nothing is padded and every result is that of the text alone; where scales
follow the batch, a batch is one text.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy
import onnxruntime
import torch

from albertine_models.folder import layers_among
from albertine_models.rows import EncodedRow
from albertine_models.terminal import Terminal

PROVIDERS = ["CPUExecutionProvider"]

# Tokens of one batch: more only costs memory, fewer cost overhead.
BATCH_TOKENS = 2048

Logits = Callable[[numpy.ndarray, numpy.ndarray, numpy.ndarray], numpy.ndarray]


# Threads of torch and of a session. Where other work shares the cores, threads that wait for each other at every
# product lose more than they gain, so more than one is asked for with `--threads`.
threads = 1


def use_threads(count: int):
    """Sets the threads that torch and new sessions use."""
    global threads
    threads = count
    torch.set_num_threads(count)


def session(graph: bytes) -> onnxruntime.InferenceSession:
    """A session of one graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Shapes vary from batch to batch, and a pattern is kept for each of them.
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(graph, options, providers=PROVIDERS)


class Stepped:
    """`embed` once, the layers in turn until all passes are done, `head` once."""

    def __init__(self, graphs: dict[str, bytes], passes: int):
        self.embed, self.head = (session(graphs[name]) for name in ("embed.onnx", "head.onnx"))
        self.layers = [session(graphs[name]) for name in layers_among(graphs)]
        self.passes = passes

    def __call__(self, input_ids, token_type_ids, lengths):
        hidden = self.embed.run(None, {"input_ids": input_ids, "token_type_ids": token_type_ids})[0]
        for layer in itertools.islice(itertools.cycle(self.layers), self.passes):
            hidden = layer.run(None, {"hidden": hidden, "lengths": lengths})[0]
        return self.head.run(None, {"hidden": hidden})[0]


class Unrolled:
    """The whole network in one graph."""

    def __init__(self, graph: bytes):
        self.model = session(graph)

    def __call__(self, input_ids, token_type_ids, lengths):
        feeds = {"input_ids": input_ids, "token_type_ids": token_type_ids, "lengths": lengths}
        return self.model.run(None, feeds)[0]


def served(graphs: dict[str, bytes], passes: int) -> Logits:
    """The graphs as the program serves them: stepped where they can be split."""
    if "model.onnx" not in graphs:
        return Stepped(graphs, passes)
    return Unrolled(graphs["model.onnx"])


def equal_length_batches(lengths: list[int], alone: bool) -> Iterator[list[int]]:
    """Indices in batches of one length each; one by one where `alone`."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    batch = []
    for index in order:
        full = batch and (len(batch) + 1) * lengths[index] > BATCH_TOKENS
        if batch and (alone or full or lengths[batch[0]] != lengths[index]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class Measurement:
    """How rows are run: the window they are cut to, whether each stands alone, and where progress is shown."""

    def __init__(self, terminal: Terminal, max_length: int, alone: bool = False):
        self.terminal = terminal
        self.max_length = max_length
        self.alone = alone

    def logits(self, run: Logits, rows: list[EncodedRow], title: str) -> numpy.ndarray:
        """Logits of every row's first window, in the rows' order, shape [rows, labels]."""
        windows = [first_window(row, self.max_length) for row in rows]
        batches = list(equal_length_batches([len(ids) for ids, _ in windows], self.alone))
        found = [None] * len(rows)
        for batch in self.terminal.count(batches, len(batches), title):
            input_ids = numpy.array([windows[index][0] for index in batch], numpy.int64)
            token_type_ids = numpy.array([windows[index][1] for index in batch], numpy.int64)
            lengths = numpy.full(len(batch), input_ids.shape[1], numpy.int32)
            for index, values in zip(batch, run(input_ids, token_type_ids, lengths)):
                found[index] = values
        return numpy.stack(found)


def first_window(row: EncodedRow, max_length: int) -> tuple[list[int], list[int]]:
    """Ids and types of a row cut to the window; its last special token stays at the end."""
    if len(row.input_ids) <= max_length:
        return row.input_ids, row.token_type_ids
    return (
        [*row.input_ids[: max_length - 1], row.input_ids[-1]],
        [*row.token_type_ids[: max_length - 1], row.token_type_ids[-1]],
    )


def grouping_distance(run: Logits, rows: list[EncodedRow], max_length: int) -> float:
    """Largest distance between a text's logits alone and in a padded group of eight."""
    largest = 0.0
    for begin in range(0, len(rows), 8):
        windows = [first_window(row, max_length) for row in rows[begin : begin + 8]]
        lengths = numpy.array([len(ids) for ids, _ in windows], numpy.int32)
        input_ids = numpy.zeros((len(windows), lengths.max()), numpy.int64)
        token_type_ids = numpy.zeros_like(input_ids)
        for place, (ids, types) in enumerate(windows):
            input_ids[place, : len(ids)] = ids
            token_type_ids[place, : len(ids)] = types
        together = run(input_ids, token_type_ids, lengths)
        for place, length in enumerate(lengths):
            one = slice(place, place + 1)
            alone = run(input_ids[one, :length], token_type_ids[one, :length], lengths[one])
            largest = max(largest, float(numpy.abs(alone[0] - together[place]).max()))
    return largest
