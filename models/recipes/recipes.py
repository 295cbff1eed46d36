"""The models that ship: what each learns from, how long, and what its card says beyond its figures."""

from dataclasses import dataclass, field
from types import ModuleType

import sentiment
import topic


@dataclass(frozen=True)
class MeasuredSet:
    """A held-out set as it is measured."""

    title: str
    # Decide among these labels only: a set that has no others says nothing of them.
    among: tuple[str, ...] = ()
    # The held-out set, where it is measured in more than one way.
    source: str | None = None
    # How many of its texts are measured: more would narrow the interval, at hours a run where texts are long.
    documents_max: int = 2000


TWO_CLASSES = tuple(sentiment.LABELS[label] for label in sentiment.TWO_CLASSES)
NEWS_TOPICS = tuple(sorted(topic.NEWS.values()))

# All of AG News' test, whose texts are short.
NEWS_TEST = 7600


@dataclass(frozen=True)
class Recipe:
    """One model: its texts, and how long each part of its training lasts, in tokens."""

    name: str
    task: str
    description: str
    texts: ModuleType
    teacher_tokens: int
    # At a constant rate, then on the grid of int8 at a falling one.
    distil_tokens: int
    finish_tokens: int
    # Rows without a label to one that has one, while distilling.
    unlabelled_share: float
    # Of one window, and shared by neighbours.
    max_length: int
    window_overlap: int
    measured: dict[str, "MeasuredSet"]
    # How often one time through the labelled texts meets those of a set, where it is more than once.
    times: dict[str, int] = field(default_factory=dict)
    # Known failures and intended use, for the card.
    limits: list[str] = field(default_factory=list)


SENTIMENT = Recipe(
    name="albert-sentiment",
    task="sentiment",
    description="Sentiment of English reviews and short texts, distilled from two sentence encoders into four layers that are called twice",
    texts=sentiment,
    teacher_tokens=10_000_000,
    distil_tokens=56_000_000,
    finish_tokens=3_600_000,
    unlabelled_share=1.5,
    max_length=256,
    window_overlap=32,
    measured={
        "sst2_dev": MeasuredSet("SST-2 dev, between negative and positive", TWO_CLASSES),
        "sst5_test": MeasuredSet("SST-5 test, in three classes"),
        "airline_held_out": MeasuredSet("airline tweets, held out"),
        "amazon_5core_held_out": MeasuredSet("Amazon 5-core reviews of unseen items"),
        "imdb_test": MeasuredSet("IMDb test, whole reviews, between negative and positive", TWO_CLASSES),
        "demo_product": MeasuredSet("demo, product sentences (ratings cut at ±0.5)"),
        "demo_newspaper": MeasuredSet("demo, newspaper sentences (ratings cut at ±0.5)"),
    },
    limits=[
        "English only. Other languages get a label, but it means little.",
        "Neutral is the weakest class: true neutral texts were few. Of reviews of goods a fifth of the neutral ones is found; "
        "most sentences of newspapers are called neutral, with confidence, also where they bring bad news or good.",
        "Trained on reviews, tweets and film sentences. What it makes of other texts was not measured.",
        "Sarcasm and understatement are read at face value; see the behavioural tests.",
        "830 of the 872 sentences of SST-2 dev also stand in SST-5 dev, which the classes' bias was fitted on.",
    ],
)

TOPIC = Recipe(
    name="albert-topic",
    task="topic",
    description="Topic of English news and discussions, or none of them, distilled from two sentence encoders into four layers that are called twice",
    texts=topic,
    teacher_tokens=3_600_000,
    distil_tokens=11_700_000,
    finish_tokens=4_800_000,
    unlabelled_share=1.0,
    max_length=256,
    window_overlap=32,
    measured={
        "ag_news_test": MeasuredSet("AG News test, between its four topics", NEWS_TOPICS, documents_max=NEWS_TEST),
        "ag_news_test_of_all": MeasuredSet(
            "AG News test, among all eight labels", source="ag_news_test", documents_max=NEWS_TEST
        ),
        "newsgroups_held_out": MeasuredSet("20 Newsgroups, threads that were not trained on"),
        "other_held_out": MeasuredSet("film sentences, tweets to airlines and shop reviews, which all are `other`"),
    },
    # News are short and few, and teach a teacher until the third time; long discussions teach enough the first time.
    times={"ag_news": 3},
    limits=[
        "English only. Other languages get a label, but it means little.",
        "What is `other` was learnt from reviews, film sentences, tweets and unreadable texts: a text of another kind that is about "
        "none of the topics may get one of them.",
        "News of 2004 and discussions of 1993: names and things that came later say nothing to it.",
    ],
)

RECIPES = {recipe.name: recipe for recipe in (SENTIMENT, TOPIC)}
