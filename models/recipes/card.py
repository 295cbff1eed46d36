"""The card's measured part: Markdown from figures, nothing typed by hand."""

from dataclasses import dataclass

import networks
import overlaps

# Everything below it is written by the stage `measure`.
MARK = "<!-- measured by models/recipes/recipe.py -->"


@dataclass(frozen=True)
class Facts:
    """What was measured."""

    recipe: object
    measured: list
    # Set -> accuracy after each pass, of at most so many documents.
    depths: dict
    depth_documents: int
    # Behavioural tests by kind, where the model has any.
    kinds: list | None
    exit_rules: str
    bench: str
    core: str


def page(old, facts, report):
    """The folder's card with its measured part renewed."""
    sections = [
        old.split(MARK)[0].rstrip(),
        MARK,
        origin(facts.recipe, report),
        accuracy(facts),
        depth(facts),
        early_exit(facts),
        calibration(facts),
        long_documents(facts),
    ]
    if facts.kinds:
        sections.append(behaviour(facts.kinds))
    sections += [speed(facts), "## Limits\n\n" + "\n".join(f"- {limit}" for limit in facts.recipe.limits)]
    return "\n\n".join(sections) + "\n"


def table(heads, rows):
    """A Markdown table."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def estimate(value):
    """A figure with its interval."""
    return f"{value['value']:.4f} ({value['low']:.4f} to {value['high']:.4f})"


def origin(recipe, report):
    """Where it comes from, and what was kept apart."""
    layers = len(networks.SOURCE_LAYERS)
    return (
        "## How it was made\n\n"
        f"{' and '.join(f'`{name}`' for name in networks.ENCODERS)} (MIT) were fine-tuned and distilled into {layers} layers that are "
        "called in turn, in all "
        f"{networks.PASSES} passes: hidden states and logits, every pass trained with the same head. `models/recipes/README.md` has the commands, `EXPERIMENTS.md` beside it what else was "
        "tried. The weights are released under MIT like the teachers'; the data sets have terms of their own, some of them for "
        "research only: read them before retraining, or before relying on the weights commercially.\n\n"
        "Fitted after training (bias of the classes, temperatures, when a text leaves early, how far windows count as independent) on: "
        f"{', '.join(recipe.texts.TUNING_SETS)}.\n\n"
        "No text of a measured set was trained on, however it is spelt (letters and digits compared, lower-cased):\n\n"
        + overlaps.table(report)
    )


def accuracy(facts):
    """The table of all sets."""
    passes = networks.PASSES
    rows = [
        [
            facts.recipe.measured[one.name].title,
            f"{one.early['documents']:,}",
            estimate(one.early["accuracy"]),
            # Of a set with one label, the mean over all labels that were given says nothing.
            estimate(one.early["macro_f1"]) if one.labels > 1 else "–",
            f"{one.early['mean_depth']:.2f}",
            f"{one.full['accuracy']['value']:.4f}",
            f"{one.reference:.4f}",
        ]
        for one in facts.measured
    ]
    heads = ["set", "documents", "accuracy", "macro-F1", "passes", "accuracy, all passes", "accuracy, transformers"]
    return (
        "## Accuracy\n\nThrough `albertine model evaluate`: whole texts, int8, early exit, with the mean number of "
        f"the {passes} passes; then without early exit; then the float32 checkpoint in transformers. 95% intervals. {facts.core}.\n\n"
        + table(heads, rows)
    )


def depth(facts):
    """Accuracy after each pass."""
    heads = ["set, first windows", *(str(place) for place in range(1, networks.PASSES + 1))]
    rows = [
        [facts.recipe.measured[name].title, *(f"{value:.4f}" for value in values)]
        for name, values in facts.depths.items()
    ]
    return (
        f"## Accuracy after each pass\n\nfloat32, no early exit, at most {facts.depth_documents:,} texts of each set.\n\n"
        + table(heads, rows)
    )


def early_exit(facts):
    """What `model calibrate` said."""
    return f"## Early exit\n\n`albertine model calibrate` on the tuning sets:\n\n```\n{facts.exit_rules.strip()}\n```"


def calibration(facts):
    """Expected calibration error of each set, and confidence against accuracy drawn."""
    rows = [
        [
            facts.recipe.measured[one.name].title,
            f"{one.early['expected_calibration_error']:.4f}",
            f"{one.early['log_loss']:.4f}",
        ]
        for one in facts.measured
    ]
    drawn = facts.measured[0]
    bins = drawn.early["calibration"]
    names = ", ".join(f'"{bin["low"]:.2f}"' for bin in bins)
    bars = ", ".join(f"{bin['accuracy']:.3f}" for bin in bins)
    line = ", ".join(f"{bin['mean_confidence']:.3f}" for bin in bins)
    return (
        "## Confidence\n\nExpected calibration error over 15 bins, with early exit.\n\n"
        + table(["set", "expected calibration error", "log loss"], rows)
        + f"\n\nAccuracy (bars) and mean confidence (line) of {facts.recipe.measured[drawn.name].title}:\n\n"
        f"```mermaid\nxychart-beta\n  x-axis [{names}]\n  y-axis 0 --> 1\n  bar [{bars}]\n  line [{line}]\n```"
    )


def long_documents(facts):
    """Windows against truncation, on the sets that have long texts."""
    rows = [
        [
            facts.recipe.measured[one.name].title,
            f"{one.long_texts:.1%}",
            f"{one.reference:.4f}",
            f"{one.reference_first_window:.4f}",
        ]
        for one in facts.measured
        if one.long_texts >= 0.01
    ]
    heads = ["set", "texts longer than a window", "whole, in windows", "first window only"]
    return "## Long texts\n\nThe float32 checkpoint; the program reads texts whole.\n\n" + table(heads, rows)


def behaviour(kinds):
    """Share of right labels of each kind, worst first."""
    ordered = sorted(kinds, key=lambda kind: kind["accuracy"]["value"])
    rows = [[kind["value"], kind["documents"], estimate(kind["accuracy"])] for kind in ordered]
    return (
        "## Behaviour\n\nTexts made by rules (`albertine_models/texts/behaviour.py`), each kind about one thing that must not "
        "mislead; worst first.\n\n" + table(["kind", "texts", "accuracy"], rows)
    )


def speed(facts):
    """What `model bench` said."""
    return f"## Speed\n\n`albertine model bench`, {facts.core}, all passes:\n\n```\n{facts.bench.strip()}\n```"
