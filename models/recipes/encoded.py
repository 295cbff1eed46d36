"""Texts as token ids in one file, and the windows and batches that training draws from them.

What is drawn depends on the seed and the number of the draw alone, so a run that was stopped goes on with the batch that
it would have seen next.
"""

import random
from dataclasses import dataclass, fields

import numpy
import torch

# Rows sorted by length together: enough for batches almost without padding, few enough to keep them mixed.
SORTED_ROWS = 6144

# A text without label is read in windows that begin and end with a sentence: a third of a phrase's length, most of a
# sentence's, some of a paragraph's. In tokens, drawn evenly.
WINDOW_LENGTHS = (8, 16, 16, 24, 24, 32, 32, 48, 64, 96, 128, 254)

# Lengths that windows are padded to where a step is recorded for each: few enough to record, near enough to pad little.
RECORDED_LENGTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)

# Tokens of a text that are kept.
LONGEST_TEXT = 1500


@dataclass(frozen=True)
class Texts:
    """Token ids without special tokens, one text after the other; `labels` is -1 where there is none, and `among` has a bit for each label
    that is decided among, or is 0 for all.
    """

    ids: numpy.ndarray
    offsets: numpy.ndarray
    labels: numpy.ndarray
    weights: numpy.ndarray
    among: numpy.ndarray

    @classmethod
    def of(cls, rows, labels, weights, among):
        """From a list of ids for each text, and its labels to decide among, none for all."""
        offsets = numpy.cumsum([0] + [len(row) for row in rows])
        ids = numpy.concatenate([numpy.array(row, dtype=numpy.uint16) for row in rows])
        bits = [sum(1 << label for label in own) for own in among]
        return cls(
            ids,
            offsets,
            numpy.array(labels, dtype=numpy.int8),
            numpy.array(weights, dtype=numpy.float32),
            numpy.array(bits, dtype=numpy.uint8),
        )

    @classmethod
    def read(cls, path):
        """From a file."""
        with numpy.load(path) as arrays:
            return cls(*(arrays[field.name] for field in fields(cls)))

    def write(self, path):
        """To a file, compressed."""
        with open(path, "wb") as file:
            numpy.savez_compressed(file, **vars(self))

    def __len__(self):
        return len(self.labels)

    def row(self, index):
        """Ids of one text."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Special:
    """Ids of the tokens that stand around a window, and of those that end a sentence."""

    classifier: int
    separator: int
    sentence_ends: tuple

    @classmethod
    def of(cls, tokenizer):
        """Of a tokenizer."""
        ids = tokenizer.get_vocab()
        return cls(ids["[CLS]"], ids["[SEP]"], tuple(ids[token] for token in ".!?"))

    def framed(self, ids):
        """A window between its two special tokens."""
        return [self.classifier, *map(int, ids), self.separator]


class Stream:
    """Rows of one set of texts without end, in a new order each time through."""

    def __init__(self, texts, special, longest, seed):
        self.texts, self.special, self.longest, self.seed = texts, special, longest, seed
        # The time through whose order is kept, and that order.
        self.epoch, self.kept_order = None, None

    def rows(self, first, count):
        """Rows `first` to `first + count` of the endless stream: (ids with special tokens, label, weight, among)."""
        size = len(self.texts)
        for number in range(first, first + count):
            order = self.order(number // size)
            index = int(order[number % size])
            texts = self.texts
            window = self.window(texts.row(index), int(texts.labels[index]), random.Random(f"{self.seed} {number}"))
            of_row = int(texts.labels[index]), float(texts.weights[index]), int(texts.among[index])
            yield self.special.framed(window), *of_row

    def order(self, epoch):
        """The order of one time through."""
        if self.epoch != epoch:
            self.epoch = epoch
            self.kept_order = numpy.random.default_rng([self.seed, epoch]).permutation(len(self.texts))
        return self.kept_order

    def window(self, ids, label, generator):
        """A part of a text: of one without label some sentences, of a long one as much as fits."""
        if label < 0:
            return self.sentences(ids, generator)
        size = self.longest - 2
        if len(ids) <= size:
            return ids
        # Half the windows are shorter, so that lengths in between are seen too.
        size = generator.choice([size, size, size // 2, size // 4])
        begin = generator.randint(0, len(ids) - size)
        return ids[begin : begin + size]

    def sentences(self, ids, generator):
        """Whole sentences of about a drawn length from a drawn place."""
        ends = numpy.flatnonzero(numpy.isin(ids, self.special.sentence_ends)) + 1
        begin = int(generator.choice([0, *ends[ends < len(ids)].tolist()]))
        wanted = min(generator.choice(WINDOW_LENGTHS), self.longest - 2)
        fitting = ends[(ends > begin + 2) & (ends <= begin + wanted)]
        end = int(fitting[-1]) if len(fitting) else begin + wanted
        return ids[begin:end]


@dataclass(frozen=True)
class Batch:
    """Rows of similar length with their special tokens, padded with id 0."""

    ids: numpy.ndarray
    lengths: numpy.ndarray
    labels: numpy.ndarray
    weights: numpy.ndarray
    among: numpy.ndarray

    @classmethod
    def of(cls, rows):
        """From rows of (ids, label, weight, among)."""
        every_ids, labels, weights, among = zip(*rows)
        lengths = numpy.array([len(ids) for ids in every_ids])
        table = numpy.zeros((len(rows), lengths.max()), dtype=numpy.uint16)
        for place, ids in enumerate(every_ids):
            table[place, : len(ids)] = ids
        return cls(
            table,
            lengths,
            numpy.array(labels, dtype=numpy.int64),
            numpy.array(weights, dtype=numpy.float32),
            numpy.array(among, dtype=numpy.int64),
        )

    @property
    def tokens(self):
        """Without padding."""
        return int(self.lengths.sum())

    def inputs(self, device):
        """Input ids and attention mask as tensors [rows, sequence]."""
        ids = torch.from_numpy(self.ids.astype(numpy.int64)).to(device)
        places = torch.arange(ids.shape[1], device=device)
        return ids, (places < torch.from_numpy(self.lengths).to(device)[:, None]).long()

    def tensors(self, device):
        """What a loss is of: input ids and attention mask [rows, sequence]; labels, weights and labels to decide among [rows]."""
        of_rows = (torch.from_numpy(values).to(device) for values in (self.labels, self.weights, self.among))
        return *self.inputs(device), *of_rows

    def padded(self, rows, length):
        """The same with so many rows of that length. What is added counts nothing, and means over rows stay what they were."""
        more = rows - len(self.labels)
        return Batch(
            numpy.pad(self.ids, ((0, more), (0, length - self.ids.shape[1]))),
            numpy.pad(self.lengths, (0, more)),
            numpy.pad(self.labels, (0, more), constant_values=-1),
            numpy.pad(self.weights, (0, more)) * numpy.float32(rows / len(self.labels)),
            numpy.pad(self.among, (0, more)),
        )


class Mixture:
    """Batches from several streams, each with its share of the rows, for so many processes at once."""

    def __init__(self, streams, shares, batch_tokens, seed, processes=1, is_recorded=False):
        self.streams, self.batch_tokens, self.seed, self.processes = streams, batch_tokens, seed, processes
        self.counts = [round(SORTED_ROWS * share / sum(shares)) for share in shares]
        self.padded_length = recorded_length if is_recorded else as_it_is

    def batches(self, chunk):
        """All batches of one chunk of rows; those of one step have rows of similar length, so that no process waits long."""
        rows = []
        for stream, count in zip(self.streams, self.counts):
            rows += stream.rows(chunk * count, count)
        rows.sort(key=lambda row: len(row[0]))
        batches = [Batch.of(batch) for batch in group(rows, self.batch_tokens, self.padded_length)]
        steps = [batches[first : first + self.processes] for first in range(0, len(batches), self.processes)]
        left_over = steps.pop() if len(steps[-1]) < self.processes else []
        random.Random(f"{self.seed} {chunk}").shuffle(steps)
        return [batch for step in steps for batch in step] + left_over


def recorded_length(length):
    """The length that a window of this one is padded to where steps are recorded."""
    return next(recorded for recorded in RECORDED_LENGTHS if recorded >= length)


def as_it_is(length):
    """The length that a window of this one is padded to where they are not."""
    return length


def group(rows, batch_tokens, padded_length=as_it_is):
    """Rows sorted by length in batches of at most `batch_tokens` tokens, padding included."""
    batches = [[]]
    for row in rows:
        if batches[-1] and (len(batches[-1]) + 1) * padded_length(len(row[0])) > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def predict(run, rows, batch_tokens=4096, device="cpu"):
    """Runs `run(input_ids, mask)` over rows that carry their special tokens; outputs in order, as one tensor."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    batches = group([(rows[index], -1, 0.0, 0) for index in order], batch_tokens)
    with torch.inference_mode():
        by_length = torch.cat([run(*Batch.of(batch).inputs(device)).float().cpu() for batch in batches])
    outputs = torch.empty_like(by_length)
    outputs[order] = by_length
    return outputs
