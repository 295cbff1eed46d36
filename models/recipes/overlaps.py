"""Keeps apart what is measured on from what is trained on: no text stands on both sides, however it is spelt.

Texts are compared by their letters and digits, lower-cased. Measured are the held-out sets of every model, the demo's
product and newspaper texts, and the behavioural tests; the demo's film texts are SST's own sentences, are never scored,
and may be trained on.
"""

import collections
from pathlib import Path

import data_sets
from albertine_models.texts import behaviour

DEMO_KINDS = ("product", "newspaper")


class Measured:
    """Every text that is measured on, by normalised form, with the name of its set."""

    def __init__(self, held_out, demo_archive):
        self.names = {}
        for name, examples in held_out.items():
            self.add(name, (example.text for example in examples))
        demo = data_sets.read_demo(str(Path(demo_archive)))
        for kind in DEMO_KINDS:
            self.add(f"demo_{kind}", (text for text, _ in demo[kind]))
        self.add("behaviour", (case.text for case in behaviour.cases()))

    def add(self, name, texts):
        """More texts of one set; a text that is in two keeps its first name."""
        for text in texts:
            self.names.setdefault(data_sets.normalise(text), name)

    def set_of(self, text):
        """The set that a text is measured in, or None."""
        return self.names.get(data_sets.normalise(text))


def without_overlap(examples, measured):
    """Examples that may be trained on, and how many were removed: {training set: {measured set: rows}}."""
    kept = []
    removed = collections.defaultdict(collections.Counter)
    for example in examples:
        if not data_sets.normalise(example.text):
            removed[example.source]["empty"] += 1
        elif name := measured.set_of(example.text):
            removed[example.source][name] += 1
        else:
            kept.append(example)
    return kept, {source: dict(counts) for source, counts in removed.items()}


def table(report):
    """The report as a Markdown table."""
    lines = ["| training set | rows kept | equal to a text of | rows removed |", "|---|---|---|---|"]
    for source, kept in sorted(report["kept"].items()):
        removed = sorted(report["removed"].get(source, {}).items()) or [("none", 0)]
        for place, (name, rows) in enumerate(removed):
            shown = f"{source} | {kept:,}" if place == 0 else " |"
            lines.append(f"| {shown} | {name} | {rows:,} |")
    return "\n".join(lines)
