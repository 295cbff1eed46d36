"""The verification corpus of a folder: the package's texts, those of a set that was given, and transformers' logits.

`verification.jsonl` has one row a text: ids whole, logits only where the text fits in one window.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy

from albertine_models.calibration import CALIBRATION_TEXTS
from albertine_models.manifest import Input
from albertine_models.rows import EncodedRow, Row, json_line, read_rows, row_fields
from albertine_models.settings import Options
from albertine_models.texts.hostile import hostile_rows
from albertine_models.texts.ordinary import ordinary_rows
from albertine_models.tokenizer import encode

ORDINARY_TEXTS = 1000
HOSTILE_TEXTS = 500

# The program reads no larger file; rows of a set that was given are left out beyond it.
CORPUS_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True)
class Corpus:
    """Rows of the package, those of the sets given, and last those that are not written into the folder."""

    rows: list[EncodedRow]
    own: int
    private: int

    @property
    def given(self) -> int:
        """Rows of the sets that were given."""
        return len(self.rows) - self.own

    @property
    def written(self) -> int:
        """Rows that the folder's corpus may hold."""
        return len(self.rows) - self.private

    def sets(self, max_length: int) -> dict[str, list[int]]:
        """What int8 is judged on: all rows that the folder's verification compares, and the texts given.

        Of rows that become the same ids the first alone: texts of unknown characters all read alike.
        """
        fitting = [index for index, row in enumerate(self.rows[: self.written]) if len(row.input_ids) <= max_length]
        found = {"all verification texts": self.distinct(fitting)}
        if self.given:
            found["the evaluation texts"] = self.distinct(range(self.own, len(self.rows)))
        return found

    def distinct(self, places: Iterable[int]) -> list[int]:
        """The first place of each sequence of ids."""
        first = {}
        for place in places:
            row = self.rows[place]
            first.setdefault((tuple(row.input_ids), tuple(row.token_type_ids)), place)
        return list(first.values())


def package_rows(pair: bool) -> list[Row]:
    """The package's own texts, without labels: no model was made for their kinds."""
    ordinary = ordinary_rows(ORDINARY_TEXTS, pair)
    return [Row(row.text, row.text_pair) for row in ordinary + hostile_rows(HOSTILE_TEXTS, pair)]


def calibration_rows(pair: bool, tokenizer) -> list[EncodedRow]:
    """Ordinary texts of another seed than those that are verified."""
    return encode(tokenizer, ordinary_rows(CALIBRATION_TEXTS, pair, seed=3))


def build(options: Options, labels: list[str], tokenizer) -> Corpus:
    """Encodes the package's texts and those of the files given."""
    own = package_rows(options.pair)
    given, private = (
        [row for path in paths for row in read_rows(path, options.pair, labels)]
        for paths in (options.evaluation, options.private_evaluation)
    )
    return Corpus(encode(tokenizer, own + given + private), len(own), len(private))


def write(path: Path, corpus: Corpus, logits: numpy.ndarray, shape: Input) -> int:
    """Writes the corpus and returns how many rows did not fit."""
    size = 0
    with path.open("w", encoding="ascii") as file:
        for index, row in enumerate(corpus.rows[: corpus.written]):
            fields = row_fields(row, shape.pair)
            if len(row.input_ids) <= shape.max_length:
                fields["logits"] = [round(float(value), 7) for value in logits[index]]
            line = json_line(fields)
            if size + len(line) > CORPUS_BYTES_MAX:
                return corpus.written - index
            size += len(line)
            file.write(line)
    return 0
