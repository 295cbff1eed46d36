"""What the recipe knows of its model beyond what every conversion measures: the notes at the end of the card."""

import networks

DATA = [
    "sst2",
    "sst5",
    "airline_tweets",
    "tweet_sentiment_val",
    "amazon_domains",
    "amazon_5core",
    "imdb",
    "subjectivity",
    "pros_cons",
]
DESCRIPTION = "Sentiment of English reviews and sentences, distilled from bge-small-en-v1.5 into one shared layer"

SET_NAMES = {
    "sst2_dev": "SST-2 dev (872 film-review sentences)",
    "sst5_test": "SST-5 test in three classes (2,210)",
    "airline_held_out": "airline tweets, held out (1,431)",
    "amazon_5core_held_out": "Amazon 5-core reviews of unseen items (798)",
    "imdb_test_2000": "IMDb test, first window of 2,000 reviews",
    "demo_product": "demo, product sentences (3,708)",
    "demo_newspaper": "demo, newspaper sentences (5,190)",
}


def accuracy_table(accuracy):
    """One line a measured set."""
    lines = ["| set | accuracy | macro-F1 |", "|---|---|---|"]
    for name, title in SET_NAMES.items():
        if f"{name}_two_class" in accuracy:
            share = accuracy[f"{name}_neutral_share"]
            accurate = accuracy[f"{name}_two_class"]
            lines.append(f"| {title}, neutral ignored; {share:.1%} called neutral | {accurate:.4f} | |")
        else:
            lines.append(f"| {title} | {accuracy[f'{name}_accuracy']:.4f} | {accuracy[f'{name}_macro_f1']:.4f} |")
    return "\n".join(lines)


def depth_table(by_depth):
    """Accuracy after each pass with the shared head."""
    header = "| set | " + " | ".join(str(depth) for depth in range(1, networks.PASSES + 1)) + " |"
    rule = "|---" * (networks.PASSES + 1) + "|"
    names = {"sst2_dev": "SST-2 dev, two classes", "sst5_test": "SST-5 test, three classes"}
    lines = [header, rule]
    for name, values in by_depth.items():
        lines.append(f"| {names[name]} | " + " | ".join(f"{value:.4f}" for value in values) + " |")
    return "\n".join(lines)


def notes(facts):
    """How the model was made, how good and how fast it is, and what it cannot do."""
    bias = ", ".join(f"{value:+.1f}" for value in facts["bias"])
    shapes = " | ".join(facts["speed"])
    speeds = " | ".join(f"{value:,}" for value in facts["speed"].values())
    return f"""## How it was made

`bge-small-en-v1.5` (MIT) was fine-tuned on the three classes and distilled into the shared layer: logits and hidden states, every depth trained with the same head, so that an early exit finds a usable prediction. Data: {", ".join(DATA)}; classes carry equal weight. `subjectivity` gives its objective sentences as a weak neutral. The head's bias ({bias}) and the temperature ({facts["temperature"]:.2f}) were fitted on SST-5 dev and a part of the airline tweets that is not reported below. Nearly every SST-2 dev sentence (830 of 872) also stands in SST-5 dev, so SST-2 dev is untrained but not untuned. No text of a reported set was trained on, nor any product or newspaper text of the demo (compared by letters and digits, lower-cased).

The weights are released under MIT like the teacher's. The data sets have terms of their own, some of them meant for research only; read them before retraining or relying on the weights commercially.

## Accuracy

Measured with the int8 graphs. Demo ratings are cut at ±0.5 of their mean rating.

{accuracy_table(facts["accuracy"])}

Accuracy after each pass:

{depth_table(facts["by_depth"])}

## Other kinds of core

Golden texts with every hidden state disturbed by 2e-6, which stands for another core's float32 arithmetic: logits
move by at most {facts["rounding_distance_max"]:.3f}.

## Speed

Tokens a second on one core through embedding, all passes and head ({facts["core"]}):

| {shapes} |
|{"---|" * len(facts["speed"])}
| {speeds} |

## Limits

- English only. Other languages get a label, but it means little.
- Neutral is the weakest class: true neutral texts were few, and a fact with a sad or cheerful content is often called negative or positive.
- Trained on reviews, tweets and film sentences. Irony, comparisons and quoted opinions are read at face value.
- Negation and comparison are weak ("Not bad at all, in fact rather good." is called negative), mixed long reviews are called by a narrow margin, and an empty text is called positive.
- Later passes add little: one pass is within two points of six. Longer distillation should change that.
- A first model: about one epoch and a half of distillation, no search over its parameters. Its teacher reached 0.926 on held-out SST-2 phrases where it reaches 0.895.
- Measured on one kind of core only; that golden logits hold on cores without VNNI follows from the 7-bit weights and the disturbance test, and was not run there.
"""
