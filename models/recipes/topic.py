"""Texts of `albert-topic`: what a news item or a long discussion is about.

AG News gives four topics of short news items; the twenty groups of 20 Newsgroups are folded into the same four and
three of their own, so that one set of labels serves both. Reviews, remarks and what nobody can read are about none of them.
"""

import random

import sentiment
from data_sets import (
    Example,
    distinct_texts,
    everyday_texts,
    normalise,
    read_rows,
    rows_of_split,
    sample,
    stable_share,
    unlabelled,
    unreadable_rows,
)

LABELS = ["business", "marketplace", "other", "religion", "science_technology", "sports", "vehicles", "world"]
OTHER = LABELS.index("other")

NEWS = {"World": "world", "Sports": "sports", "Business": "business", "Sci/Tech": "science_technology"}

# By the beginning of a group's name, the first that fits.
GROUPS = {
    "comp.": "science_technology",
    "sci.": "science_technology",
    "rec.sport": "sports",
    "rec.": "vehicles",
    "misc.forsale": "marketplace",
    "talk.religion": "religion",
    "alt.atheism": "religion",
    "soc.religion": "religion",
    "talk.politics": "world",
}

# Newsgroups have no test split here: a share of their threads is kept apart.
HELD_OUT_SHARE = 0.2

# What `albert-sentiment` learns from is about none of the topics. So many of its texts, about as many as news items, stand for all
# others; and so many of each of these sets are tuned and measured on.
OTHER_TEXTS = 8000
OTHER_OF_A_SET = 300
OTHER_TUNING_SETS = ("sst5_dev", "airline_tuning", "amazon_domains_tuning")
OTHER_HELD_OUT_SETS = ("sst5_test", "airline_held_out", "amazon_5core_held_out")

# Looked at after each stage of training; what is fitted after training is fitted on them.
TUNING_SETS = ("newsgroups_tuning", "ag_news_tuning", "other_tuning")

# News are few and short. A teacher can say what any text is about, so many more are spliced from them for the student, cut within
# these shares of their words.
SPLICED_NEWS = 40_000
SPLICED_SHARES = (0.25, 0.75)

# Share of AG News' training rows that is kept apart for tuning.
NEWS_TUNING_SHARE = 0.05


def news(rows, source):
    """AG News rows as examples."""
    return [Example(row["text"], LABELS.index(NEWS[row["label"]]), 1.0, source) for row in rows]


def news_rows(folder, tuning):
    """Distinct rows of the training part on one side of the split."""
    rows = distinct_texts(rows_of_split(folder, "ag_news", "train_part"))
    return [row for row in rows if (stable_share(normalise(row["text"])) < NEWS_TUNING_SHARE) == tuning]


def topic_of_group(group):
    """The topic of a newsgroup."""
    return next(topic for beginning, topic in GROUPS.items() if group.startswith(beginning))


def discussions(folder, held_out):
    """Distinct postings on one side of a split by thread."""
    source = "newsgroups_held_out" if held_out else "newsgroups"
    return [
        Example(row["text"], LABELS.index(topic_of_group(row["label"])), 1.0, source)
        for row in discussion_rows(folder, held_out)
    ]


def discussion_rows(folder, held_out):
    """Their rows."""
    rows = distinct_texts(read_rows(folder, "newsgroups_train"))
    return [row for row in rows if (stable_share(thread_of(row)) < HELD_OUT_SHARE) == held_out]


def thread_of(row):
    """What a posting and its answers share: the subject, which is a posting's first line."""
    subject = row["text"].split("\n", 1)[0].lower().strip()
    while subject.startswith("re:"):
        subject = subject.removeprefix("re:").strip()
    return normalise(subject)


def others(examples, source):
    """Examples of another model as texts about none of the topics."""
    return [Example(example.text, OTHER, 1.0, source) for example in examples]


def others_of_sets(sets, names, source):
    """Some texts of each of the named sets, as texts about none of the topics."""
    return [example for name in names for example in others(sample(sets[name], OTHER_OF_A_SET), source)]


def held_out_sets(folder):
    """Every set that is tuned or measured on, by name. None of their texts is trained on."""
    own = discussions(folder, held_out=True)
    opinions = sentiment.held_out_sets(folder)
    return {
        "ag_news_tuning": news(news_rows(folder, tuning=True), "ag_news_tuning"),
        "ag_news_test": news(rows_of_split(folder, "ag_news", "test"), "ag_news_test"),
        # Even and odd halves: the first tunes, the second is only measured on.
        "newsgroups_tuning": own[0::2],
        "newsgroups_held_out": own[1::2],
        "other_tuning": others_of_sets(opinions, OTHER_TUNING_SETS, "other_tuning"),
        "other_held_out": others_of_sets(opinions, OTHER_HELD_OUT_SETS, "other_held_out"),
    }


def demo_sets(demo_archive):
    """The demo has no topics."""
    del demo_archive
    return {}


def training_candidates(folder):
    """Every training example before overlaps are removed."""
    found = news(news_rows(folder, tuning=False), "ag_news")
    found += discussions(folder, held_out=False)
    found += others(sample(sentiment.training_candidates(folder), OTHER_TEXTS), "other")
    found += [Example(row["text"], OTHER, 1.0, "unreadable") for row in unreadable_rows()]
    random.Random(8).shuffle(found)
    return found


def unlabelled_texts(folder):
    """Texts that the teachers explain to the student: the labelled ones, sentence by sentence, mail, and everyday texts, most of
    which are about none of the topics.
    """
    labelled = {"ag_news": news_rows(folder, tuning=False), "newsgroups": discussion_rows(folder, held_out=False)}
    texts = [example for name, rows in labelled.items() for example in unlabelled(rows, name)]
    return texts + unlabelled(read_rows(folder, "mail"), "mail") + everyday_texts(folder)


def made_from(examples):
    """Texts for the student alone, each the beginning of one news item and the end of another, as long as news are."""
    news_items = [example.text.split() for example in examples if example.source == "ag_news"]
    draw = random.Random(9)
    rows = []
    for _ in range(SPLICED_NEWS):
        share = draw.uniform(*SPLICED_SHARES)
        first, second = draw.sample(news_items, 2)
        words = first[: round(share * len(first))] + second[round(share * len(second)) :]
        rows.append({"text": " ".join(words)})
    return unlabelled(rows, "ag_news_spliced")
