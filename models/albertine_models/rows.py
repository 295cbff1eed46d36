"""Texts, their encodings and their files: one JSON object a line, gzip'd where the name ends in `.gz`.

Files come from users: every bad line is named by its number, and lines and files have limits.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from albertine_models.errors import ConversionError

# A longer line is no text for a classifier, and would be read into memory whole.
LINE_CHARACTERS_MAX = 4_000_000


@dataclass(frozen=True)
class Row:
    """A text or a pair, and its true label where that is known."""

    text: str
    text_pair: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class EncodedRow:
    """A row with its ids, special tokens included, neither cut nor padded."""

    row: Row
    input_ids: list[int]
    token_type_ids: list[int]


def read_objects(path: Path) -> Iterator[tuple[int, dict]]:
    """Line number and JSON object of every line that is not empty."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            number = 0
            while line := lines.readline(LINE_CHARACTERS_MAX + 1):
                number += 1
                if len(line) > LINE_CHARACTERS_MAX:
                    raise ConversionError(f"line {number} of `{path}` has more than {LINE_CHARACTERS_MAX:,} characters")
                if line.strip():
                    yield number, parse_object(path, number, line)
    except (OSError, UnicodeDecodeError, EOFError) as cause:
        raise ConversionError(f"cannot read texts from `{path}`: {cause}") from cause


def parse_object(path: Path, number: int, line: str) -> dict:
    """One line as a JSON object."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as cause:
        raise ConversionError(f"line {number} of `{path}` is not JSON: {cause}") from cause
    if not isinstance(found, dict):
        raise ConversionError(f"line {number} of `{path}` is not a JSON object")
    return found


def read_rows(path: Path, pair: bool, labels: list[str] | None = None) -> list[Row]:
    """The rows of a file of `text`, `text_pair` (pair models) and, where known, `label`."""
    rows = []
    for number, fields in read_objects(path):
        where = f"line {number} of `{path}`"
        for name in ("text", "text_pair") if pair else ("text",):
            if not isinstance(fields.get(name), str):
                raise ConversionError(f"{where} has no string `{name}`")
        label = fields.get("label")
        if label is not None and labels is not None and label not in labels:
            raise ConversionError(f"{where} has the label `{label}`, the model knows {', '.join(labels)}")
        rows.append(Row(fields["text"], fields["text_pair"] if pair else None, label))
    if not rows:
        raise ConversionError(f"`{path}` holds no texts")
    return rows


def row_fields(encoded: EncodedRow, pair: bool) -> dict:
    """A row in the form of `verification.jsonl`, without logits."""
    fields = {"text": encoded.row.text}
    if pair:
        fields["text_pair"] = encoded.row.text_pair
    fields["input_ids"] = encoded.input_ids
    if pair:
        fields["token_type_ids"] = encoded.token_type_ids
    if encoded.row.label is not None:
        fields["label"] = encoded.row.label
    return fields


def json_line(fields: dict) -> str:
    """One line of a JSONL file, ASCII, so that no line separator of Unicode can break it."""
    return json.dumps(fields, separators=(",", ":")) + "\n"
