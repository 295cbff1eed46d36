"""The recipe's texts: reads the data sets, maps their labels to three classes, and keeps held-out texts apart.

Guarantees: a text whose normalised form equals a held-out text, or a product or newspaper text of the demo, is
never trained on; and the same arguments give the same split every time. Nothing here knows a network.
"""

import functools
import gzip
import hashlib
import json
import random
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

LABELS = ["negative", "neutral", "positive"]
NEGATIVE, NEUTRAL, POSITIVE = range(3)

# The demo's files inside the vaderSentiment source distribution, by the name used in reports.
DEMO_FILES = {
    "product": "amazonReviewSnippets_GroundTruth.txt",
    "newspaper": "nytEditorialSnippets_GroundTruth.txt",
    "film": "movieReviewSnippets_GroundTruth.txt",
}

# Share of airline texts and of amazon_5core items that is kept apart for measuring.
HELD_OUT_SHARE = 0.2

# Full-length film reviews drawn from imdb's train split. More of them would crowd out the short texts,
# which are what most streams carry; a few thousand suffice to learn long ones.
IMDB_TRAIN_ROWS = 4000
IMDB_TEST_ROWS = 2000

# Short pros and cons are noisy (a con may praise), so only a part is used, at half weight.
PROS_CONS_ROWS = 10000


@dataclass(frozen=True)
class Example:
    """One text with its class, the weight of its loss, and the set it came from."""

    text: str
    label: int
    weight: float
    source: str


def normalise(text):
    """Lower-case letters and digits only: what two spellings of the same text share."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def stable_share(key):
    """A number in [0, 1) that depends on the key alone."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32


@functools.cache
def read_rows(folder, name):
    """All rows of one gzip'd JSONL set."""
    with gzip.open(Path(folder) / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def class_of(label):
    """Class index of a data set's own label; `very_` is dropped."""
    return LABELS.index(label.removeprefix("very_"))


def class_of_stars(stars):
    """1 and 2 stars are negative, 3 neutral, 4 and 5 positive."""
    if stars < 2.5:
        return NEGATIVE
    return NEUTRAL if stars < 3.5 else POSITIVE


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


def read_demo(archive):
    """Texts and mean ratings of the demo, read from the vaderSentiment source distribution (a .tar.gz)."""
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


def class_of_rating(rating):
    """Class of a demo text: its mean rating cut at plus and minus one half."""
    if rating > 0.5:
        return POSITIVE
    return NEGATIVE if rating < -0.5 else NEUTRAL


def examples(rows, source, weight=1.0, label=None):
    """Rows as examples; the label comes from the row unless one is given."""
    return [Example(row["text"], class_of(row["label"]) if label is None else label, weight, source) for row in rows]


def held_out_sets(folder):
    """Every set that is measured on, by name. None of their texts is trained on."""
    sst2 = read_rows(folder, "sst2")
    sst5 = read_rows(folder, "sst5")
    imdb_test = [row for row in read_rows(folder, "imdb") if row["split"] == "test"]
    random.Random(7).shuffle(imdb_test)
    airline = distinct_texts(read_rows(folder, "airline_tweets"))
    airline = [row for row in airline if stable_share(normalise(row["text"])) < HELD_OUT_SHARE]
    return {
        "sst2_dev": examples([row for row in sst2 if row["split"] == "glue_dev"], "sst2_dev"),
        "sst2_train_heldout": examples([row for row in sst2 if row["split"] == "train_heldout"], "sst2_train_heldout"),
        "sst5_dev": examples([row for row in sst5 if row["split"] == "dev"], "sst5_dev"),
        "sst5_test": examples([row for row in sst5 if row["split"] == "test"], "sst5_test"),
        # Even and odd halves: the first tunes bias and temperature, the second is only measured on.
        "airline_tuning": examples(airline[0::2], "airline_tuning"),
        "airline_held_out": examples(airline[1::2], "airline_held_out"),
        "amazon_5core_held_out": [
            Example(row["text"], class_of_stars(row["stars"]), 1.0, "amazon_5core_held_out")
            for row in distinct_texts(read_rows(folder, "amazon_5core"))
            if stable_share(row["item"]) < HELD_OUT_SHARE
        ],
        "imdb_test_2000": examples(imdb_test[:IMDB_TEST_ROWS], "imdb_test_2000"),
    }


def training_candidates(folder):
    """Every training example before overlaps are removed."""
    found = []
    found += examples([row for row in read_rows(folder, "sst2") if row["split"] == "train"], "sst2")
    # Real neutral sentences are few, so the sets that carry them count more.
    found += examples([row for row in read_rows(folder, "sst5") if row["split"] == "train"], "sst5", 2.0)
    airline = distinct_texts(read_rows(folder, "airline_tweets"))
    airline = [row for row in airline if stable_share(normalise(row["text"])) >= HELD_OUT_SHARE]
    found += examples(airline, "airline_tweets")
    found += examples(read_rows(folder, "tweet_sentiment_val"), "tweet_sentiment_val", 2.0)
    for row in distinct_texts(read_rows(folder, "amazon_domains")):
        found.append(Example(row["text"], class_of_stars(row["stars"]), 1.0, "amazon_domains"))
    for row in distinct_texts(read_rows(folder, "amazon_5core")):
        if stable_share(row["item"]) >= HELD_OUT_SHARE:
            found.append(Example(row["text"], class_of_stars(row["stars"]), 1.0, "amazon_5core"))
    imdb_train = [row for row in read_rows(folder, "imdb") if row["split"] == "train"]
    random.Random(8).shuffle(imdb_train)
    found += examples(imdb_train[:IMDB_TRAIN_ROWS], "imdb")
    objective = [row for row in read_rows(folder, "subjectivity") if row["label"] == "objective"]
    # A plot summary states facts, but facts of a film can sound good or bad: a weak neutral.
    found += examples(objective, "subjectivity", 0.3, NEUTRAL)
    pros_cons = distinct_texts(read_rows(folder, "pros_cons"))
    random.Random(9).shuffle(pros_cons)
    found += examples(pros_cons[:PROS_CONS_ROWS], "pros_cons", 0.5)
    return found


def training_set(folder, demo_archive):
    """Class-balanced training examples and a report of what was removed because it overlaps."""
    held_out = {normalise(example.text) for rows in held_out_sets(folder).values() for example in rows}
    demo = {kind: {normalise(text) for text, _ in rows} for kind, rows in read_demo(demo_archive).items()}
    candidates = training_candidates(folder)
    kept = []
    removed = {"held_out": 0, "product": 0, "newspaper": 0}
    film = 0
    for example in candidates:
        key = normalise(example.text)
        reason = overlap(key, held_out, demo)
        if reason:
            removed[reason] += 1
        elif key:
            kept.append(example)
            film += key in demo["film"]
    totals = [sum(example.weight for example in kept if example.label == label) for label in range(3)]
    factor = [sum(totals) / 3 / total for total in totals]
    # Mean weight 1, and each class has the same sum of weights.
    scale = len(kept) / sum(totals)
    balanced = [
        Example(example.text, example.label, example.weight * factor[example.label] * scale, example.source)
        for example in kept
    ]
    report = {
        "rows": len(balanced),
        "removed": removed,
        "kept_although_film_text_of_demo": film,
        "class_factor": [round(value, 3) for value in factor],
    }
    return balanced, report


def overlap(key, held_out, demo):
    """Why a normalised text must not be trained on, or None.

    The demo's film texts are sst2's and sst5's own sentences; they are shown for speed and never scored, so they stay.
    """
    if key in held_out:
        return "held_out"
    return next((kind for kind in ("product", "newspaper") if key in demo[kind]), None)
