"""Reads the data sets and the demo's texts, and says when two texts are the same. Nothing here knows a model."""

import functools
import gzip
import hashlib
import json
import random
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from albertine_models.texts import hostile

# The demo's files inside the vaderSentiment source distribution, by the name used in reports.
DEMO_FILES = {
    "product": "amazonReviewSnippets_GroundTruth.txt",
    "newspaper": "nytEditorialSnippets_GroundTruth.txt",
    "film": "movieReviewSnippets_GroundTruth.txt",
}

# Texts of characters that no vocabulary knows, by another seed than those that a folder is verified with.
UNREADABLE_TEXTS = 1000
UNREADABLE_SEED = 11


@dataclass(frozen=True)
class Example:
    """One text with the index of its label, the weight of its loss, the set it came from, and the labels that this set decides among:
    one that has no others says nothing of them. None named: all.
    """

    text: str
    label: int
    weight: float
    source: str
    among: tuple[int, ...] = ()

    def __post_init__(self):
        if self.among and self.label not in self.among:
            raise ValueError(f"label {self.label} of {self.source} is not among {self.among}: {self.text[:80]!r}")


def normalise(text):
    """Lower-case letters and digits only: what two spellings of the same text share. Signs count where there is no letter."""
    return re.sub(r"[^a-z0-9]", "", text.lower()) or text.strip()


def stable_share(key):
    """A number in [0, 1) that depends on the key alone."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32


@functools.cache
def read_rows(folder, name):
    """All rows of one gzip'd JSONL set."""
    with gzip.open(Path(folder) / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def rows_of_split(folder, name, split):
    """The rows of one split of a set."""
    return [row for row in read_rows(folder, name) if row["split"] == split]


def sample(examples, count):
    """At most `count` of the examples, drawn over all of them, in their order: sets may be sorted by label."""
    chosen = random.Random(1).sample(range(len(examples)), min(count, len(examples)))
    return [examples[place] for place in sorted(chosen)]


def distinct_texts(rows):
    """The rows without repeated texts, first one kept."""
    seen = set()
    kept = []
    for row in rows:
        key = normalise(row["text"])
        if key and key not in seen:
            seen.add(key)
            kept.append(row)
    return kept


def unlabelled(rows, name):
    """Distinct texts of a set that only the teacher says something of."""
    return [Example(row["text"], -1, 1.0, f"{name}_unlabelled") for row in distinct_texts(rows)]


def unreadable_rows():
    """Rows with texts that nobody can read."""
    rows = hostile.hostile_rows(UNREADABLE_TEXTS, pair=False, seed=UNREADABLE_SEED)
    return [{"text": row.text} for row in rows]


def everyday_texts(folder):
    """Questions, captions, sentences of news, passages of an encyclopedia, and texts that nobody can read: nothing that comes
    may surprise a model, or its activations leave the range that int8 was fitted on.
    """
    found = unlabelled(rows_of_split(folder, "question_type", "train"), "question_type")
    for name in ("rte", "snli_counterfactual"):
        pairs = read_rows(folder, name)
        found += unlabelled([{"text": row[part]} for row in pairs for part in ("text", "hypothesis")], name)
    return found + unlabelled(read_rows(folder, "boolq"), "boolq") + unlabelled(unreadable_rows(), "unreadable")


@functools.cache
def read_demo(archive):
    """Texts and mean ratings of the demo by kind, read from the vaderSentiment source distribution (a .tar.gz)."""
    demo = {}
    with tarfile.open(archive) as outer:
        inner_name = next(name for name in outer.getnames() if name.endswith("hutto_ICWSM_2014.tar.gz"))
        with tarfile.open(fileobj=outer.extractfile(inner_name)) as inner:
            for kind, file_name in DEMO_FILES.items():
                member = next(name for name in inner.getnames() if name.endswith("/" + file_name) and "/._" not in name)
                lines = inner.extractfile(member).read().decode("utf-8", "replace").splitlines()
                fields = [line.split("\t") for line in lines if line.count("\t") >= 2]
                demo[kind] = [(row[2], float(row[1])) for row in fields]
    return demo
