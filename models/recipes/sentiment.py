"""Texts of `albert-sentiment`: negative, neutral and positive, from reviews, film sentences and tweets."""

import random

import constructions
from data_sets import (
    Example,
    distinct_texts,
    everyday_texts,
    normalise,
    read_demo,
    read_rows,
    rows_of_split,
    stable_share,
    unlabelled,
)

LABELS = ["negative", "neutral", "positive"]
NEGATIVE, NEUTRAL, POSITIVE = range(3)

# What sets without a neutral label decide among. Learnt as if they decided among three, they taught that reviews of goods are never neutral.
TWO_CLASSES = (NEGATIVE, POSITIVE)

# Share of airline texts and of amazon_5core items that is kept apart for measuring.
HELD_OUT_SHARE = 0.2

# Share of amazon_domains items, and of the texts of imdb's train split, that is kept apart for tuning.
AMAZON_TUNING_SHARE = 0.15
IMDB_TUNING_SHARE = 0.03

# Looked at after each stage of training; what is fitted after training is fitted on them.
TUNING_SETS = ("sst2_train_heldout", "sst5_dev", "airline_tuning", "amazon_domains_tuning", "imdb_tuning")

# Short pros and cons are noisy (a con may praise), so they count half.
PROS_CONS_WEIGHT = 0.5

# A plot summary states facts, but facts of a film can sound good or bad: a weak neutral.
OBJECTIVE_WEIGHT = 0.3

# Real neutral sentences are few, so the sets that carry them count more.
NEUTRAL_SETS_WEIGHT = 2.0

# Shop reviews are one row in twenty, and one of their sets is the only one whose reviews have three stars.
SHOP_REVIEWS_WEIGHT = 3.0


def class_of(label):
    """Class index of a data set's own label; `very_` is dropped."""
    return LABELS.index(label.removeprefix("very_"))


def class_of_stars(stars):
    """1 and 2 stars are negative, 3 neutral, 4 and 5 positive."""
    if stars < 2.5:
        return NEGATIVE
    return NEUTRAL if stars < 3.5 else POSITIVE


def class_of_rating(rating):
    """Class of a demo text: its mean rating cut at plus and minus one half."""
    if rating > 0.5:
        return POSITIVE
    return NEGATIVE if rating < -0.5 else NEUTRAL


def examples(rows, source, weight=1.0, label=None, among=()):
    """Rows as examples; the label comes from the row unless one is given."""
    return [
        Example(row["text"], class_of(row["label"]) if label is None else label, weight, source, among) for row in rows
    ]


def by_stars(rows, source, weight=1.0, among=()):
    """Rows with stars as examples."""
    return [Example(row["text"], class_of_stars(row["stars"]), weight, source, among) for row in rows]


def airline_texts(folder, held_out):
    """Distinct airline tweets on one side of the split."""
    rows = distinct_texts(read_rows(folder, "airline_tweets"))
    return [row for row in rows if (stable_share(normalise(row["text"])) < HELD_OUT_SHARE) == held_out]


def amazon_texts(folder, held_out):
    """Distinct reviews of items on one side of the split."""
    rows = distinct_texts(read_rows(folder, "amazon_5core"))
    return [row for row in rows if (stable_share(row["item"]) < HELD_OUT_SHARE) == held_out]


def domain_texts(folder, tuning):
    """Distinct reviews of many kinds of things on one side of the split by item."""
    rows = distinct_texts(read_rows(folder, "amazon_domains"))
    return [row for row in rows if (stable_share(row["item"]) < AMAZON_TUNING_SHARE) == tuning]


def film_reviews(folder, tuning):
    """Full-length film reviews of the train split on one side of the split."""
    rows = rows_of_split(folder, "imdb", "train")
    return [row for row in rows if (stable_share(row["item"]) < IMDB_TUNING_SHARE) == tuning]


def held_out_sets(folder):
    """Every set that is tuned or measured on, by name. None of their texts is trained on."""
    airline = airline_texts(folder, held_out=True)
    return {
        "sst2_dev": examples(rows_of_split(folder, "sst2", "glue_dev"), "sst2_dev"),
        "sst2_train_heldout": examples(rows_of_split(folder, "sst2", "train_heldout"), "sst2_train_heldout"),
        "sst5_dev": examples(rows_of_split(folder, "sst5", "dev"), "sst5_dev"),
        "sst5_test": examples(rows_of_split(folder, "sst5", "test"), "sst5_test"),
        # Even and odd halves: the first tunes, the second is only measured on.
        "airline_tuning": examples(airline[0::2], "airline_tuning"),
        "airline_held_out": examples(airline[1::2], "airline_held_out"),
        "amazon_5core_held_out": by_stars(amazon_texts(folder, held_out=True), "amazon_5core_held_out"),
        "amazon_domains_tuning": by_stars(domain_texts(folder, tuning=True), "amazon_domains_tuning"),
        "imdb_tuning": examples(film_reviews(folder, tuning=True), "imdb_tuning"),
        "imdb_test": examples(rows_of_split(folder, "imdb", "test"), "imdb_test"),
    }


def demo_sets(demo_archive):
    """The demo's texts that are scored."""
    demo = read_demo(demo_archive)
    return {
        f"demo_{kind}": [Example(text, class_of_rating(rating), 1.0, f"demo_{kind}") for text, rating in demo[kind]]
        for kind in ("product", "newspaper")
    }


def training_candidates(folder):
    """Every training example before overlaps are removed."""
    found = []
    found += examples(rows_of_split(folder, "sst2", "train"), "sst2", among=TWO_CLASSES)
    found += examples(rows_of_split(folder, "sst5", "train"), "sst5", NEUTRAL_SETS_WEIGHT)
    found += examples(airline_texts(folder, held_out=False), "airline_tweets")
    found += examples(read_rows(folder, "tweet_sentiment_val"), "tweet_sentiment_val", NEUTRAL_SETS_WEIGHT)
    found += by_stars(domain_texts(folder, tuning=False), "amazon_domains", SHOP_REVIEWS_WEIGHT, TWO_CLASSES)
    found += by_stars(amazon_texts(folder, held_out=False), "amazon_5core", SHOP_REVIEWS_WEIGHT)
    found += examples(film_reviews(folder, tuning=False), "imdb", among=TWO_CLASSES)
    objective = [row for row in read_rows(folder, "subjectivity") if row["label"] == "objective"]
    found += examples(objective, "subjectivity", OBJECTIVE_WEIGHT, NEUTRAL)
    pros_and_cons = distinct_texts(read_rows(folder, "pros_cons"))
    found += examples(pros_and_cons, "pros_cons", PROS_CONS_WEIGHT, among=TWO_CLASSES)
    random.Random(8).shuffle(found)
    return found


def unlabelled_texts(folder):
    """Texts that the teacher explains to the student, sentence by sentence: reviews of films and goods, news, and everyday texts.

    What a teacher knows of goods and of facts it learnt before its fine-tuning; these texts are how the student hears of it.
    """
    texts = {
        "imdb": read_rows(folder, "imdb_unlabelled"),
        "amazon_domains": domain_texts(folder, tuning=False),
        "amazon_5core": amazon_texts(folder, held_out=False),
        "ag_news": rows_of_split(folder, "ag_news", "train_part"),
    }
    return everyday_texts(folder) + [example for name, rows in texts.items() for example in unlabelled(rows, name)]


def made_from(examples):
    """Training examples that are made by rules, some of them from others."""
    return constructions.disturbed(examples) + constructions.made()
