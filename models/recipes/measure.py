"""Stage `measure`: figures of a finished folder, and its card.

Every set goes through the program as a stream's texts do (windows, int8 graphs, early exit), a second time without early exit,
and through transformers in float32, which is the reference. Nothing in the card is typed by hand.
"""

import json
import subprocess
import tomllib
from dataclasses import dataclass

import numpy
import torch
import transformers

import card
import data_sets
import encoded
import export
import networks
import vocabulary
from albertine_models.terminal import Terminal
from albertine_models.texts import behaviour

# Documents of a set whose accuracy is looked at after every pass.
DEPTH_DOCUMENTS = 1000

# Tokens of a batch of the reference.
REFERENCE_TOKENS = 4096


@dataclass(frozen=True)
class Measured:
    """One set: what the program says with and without early exit, and the reference on whole texts and first windows."""

    name: str
    early: dict
    full: dict
    reference: float
    reference_first_window: float
    # Share of texts that are longer than a window.
    long_texts: float
    # Different labels that are true of some text.
    labels: int


def windows(length, capacity, overlap):
    """Begin and end of each window, and how many tokens it is the first to cover; as the program cuts them."""
    count = max(1, -(-max(0, length - overlap) // (capacity - overlap)))
    size = -(-(length + (count - 1) * overlap) // count)
    span = length - min(size, length)
    covered = 0
    found = []
    for index in range(count):
        begin = span * index // (count - 1) if count > 1 else 0
        end = min(begin + size, length)
        found.append((begin, end, end - covered))
        covered = end
    return found


def pooled(scores, owners, weights, documents):
    """Weighted mean of the windows' scores of each document; `owners` are the documents of the windows."""
    sums, totals = numpy.zeros((documents, scores.shape[1])), numpy.zeros(documents)
    weights = numpy.array(weights, dtype=float)
    numpy.add.at(sums, owners, scores * weights[:, None])
    numpy.add.at(totals, owners, weights)
    return sums / totals[:, None]


class Reference:
    """transformers' ALBERT in float32 on the checkpoint that the folder was made from."""

    def __init__(self, recipe, work):
        self.recipe = recipe
        self.model = transformers.AlbertForSequenceClassification.from_pretrained(work.hugging_face).eval()
        self.tokenizer = vocabulary.plain(str(work.tokenizer))
        self.special = encoded.Special.of(self.tokenizer)
        self.known = {}

    def of_set(self, source, examples):
        """`scores` of a set, computed once however often it is measured."""
        if source not in self.known:
            self.known[source] = self.scores(examples)
        return self.known[source]

    def scores(self, examples):
        """Scores of each whole text's labels, those of its first window alone, and the share of texts that are longer than that.

        Scores are mean log probabilities of the windows, as `pipeline/domain/window_pooling.rs` weighs them: temperature and
        independence do not change which is the largest.
        """
        capacity = self.recipe.max_length - 2
        ids = [self.tokenizer.encode(example.text, add_special_tokens=False).ids for example in examples]
        rows, owners, weights, first = [], [], [], {}
        for place, own in enumerate(ids):
            for begin, end, fresh in windows(len(own), capacity, self.recipe.window_overlap):
                rows.append(self.special.framed(own[begin:end]))
                owners.append(place)
                weights.append(max(1, fresh))
            if len(own) > capacity:
                first[place] = len(first)
        whole = pooled(self.log_probabilities(rows), owners, weights, len(examples))
        cut = whole.copy()
        if first:
            cut[list(first)] = self.log_probabilities([self.special.framed(ids[place][:capacity]) for place in first])
        return whole, cut, len(first) / len(examples)

    def log_probabilities(self, rows):
        """Log probabilities of windows."""
        return encoded.predict(self.run, rows, REFERENCE_TOKENS).double().log_softmax(-1).numpy()

    def run(self, input_ids, mask):
        """Logits of padded rows."""
        return self.model(input_ids=input_ids, attention_mask=mask).logits


def logits_of_every_pass(model, input_ids, mask):
    """Logits of padded rows after every pass, [rows, passes, labels], by transformers and with the one head."""
    first_tokens = []

    def keep(_layer, _inputs, output):
        hidden = output if torch.is_tensor(output) else output[0]
        first_tokens.append(hidden[:, 0])

    layers = [layer for group in model.albert.encoder.albert_layer_groups for layer in group.albert_layers]
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        model(input_ids=input_ids, attention_mask=mask)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([model.classifier(torch.tanh(model.albert.pooler(first))) for first in first_tokens], 1)


def accuracy(scores, examples, classes):
    """Share of texts whose class of the highest score, among `classes`, is the true one."""
    best = numpy.array(classes)[scores[:, classes].argmax(1)]
    return float((best == [example.label for example in examples]).mean())


class Program:
    """`albertine model evaluate` on one folder."""

    def __init__(self, recipe, work, options):
        self.options, self.recipe, self.folder = options, recipe, work.folder / "measured"
        self.folder.mkdir(exist_ok=True)
        path = options.output.resolve()
        self.config = self.folder / "albertine.toml"
        self.config.write_text(
            f'[models.early]\npath = "{path}"\n[models.full]\npath = "{path}"\nearly_exit = false\n', encoding="utf-8"
        )

    def model(self, *arguments):
        """What `albertine model` prints."""
        command = [self.options.albertine, "--config", str(self.config), "model", *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def evaluate(self, model, file, *arguments):
        """The figures of one model on one file."""
        return json.loads(self.model("evaluate", model, str(file), "--json", *arguments))["models"][0]

    def bench(self):
        """What `model bench` prints."""
        return self.model("bench", "full")


def measured_examples(recipe, options):
    """Texts of every measured set, at most `documents_max` of each, drawn over the whole set."""
    sets = recipe.texts.held_out_sets(options.data) | recipe.texts.demo_sets(options.demo)
    return {
        name: data_sets.sample(sets[measured.source or name], measured.documents_max)
        for name, measured in recipe.measured.items()
    }


def classes_of(recipe, name):
    """Indices of the labels that a set decides among."""
    labels = recipe.texts.LABELS
    return [labels.index(label) for label in recipe.measured[name].among or labels]


def measure_set(recipe, name, examples, program, reference):
    """All figures of one set."""
    file = export.write_texts(program.folder / f"{name}.jsonl", recipe, examples)
    labels = recipe.texts.LABELS
    classes = classes_of(recipe, name)
    among = ["--among", ",".join(labels[index] for index in classes)]
    whole, first, long_texts = reference.of_set(recipe.measured[name].source or name, examples)
    return Measured(
        name,
        program.evaluate("early", file, *among),
        program.evaluate("full", file, *among),
        accuracy(whole, examples, classes),
        accuracy(first, examples, classes),
        long_texts,
        len({example.label for example in examples}),
    )


def by_depth(recipe, reference, examples, classes):
    """Accuracy of the reference after every pass, on first windows, with the one head."""
    ids = vocabulary.encode(reference.tokenizer, [example.text for example in examples], recipe.max_length - 2)
    rows = [reference.special.framed(row) for row in ids]
    logits = encoded.predict(
        lambda *batch: logits_of_every_pass(reference.model, *batch), rows, REFERENCE_TOKENS
    ).numpy()
    return [accuracy(logits[:, depth], examples, classes) for depth in range(networks.PASSES)]


def write_card(recipe, work, options):
    """Measures, and writes the card and the figures of the manifest."""
    torch.set_num_threads(options.processes)
    program, reference = Program(recipe, work, options), Reference(recipe, work)
    examples = measured_examples(recipe, options)
    measured = [measure_set(recipe, name, own, program, reference) for name, own in examples.items()]
    depths = {
        name: by_depth(recipe, reference, data_sets.sample(own, DEPTH_DOCUMENTS), classes_of(recipe, name))
        for name, own in examples.items()
        if not recipe.measured[name].source
    }
    kinds = None
    if recipe.task == "sentiment":
        file = program.folder / "behaviour.jsonl"
        behaviour.write_cases(file, Terminal())
        kinds = program.evaluate("early", file, "--by", "kind")["groups"]
    facts = card.Facts(
        recipe,
        measured,
        depths,
        DEPTH_DOCUMENTS,
        kinds,
        work.exit_rules.read_text(),
        program.bench(),
        options.core,
    )
    report = json.loads(work.report.read_text())
    write_manifest(
        options.output / "model.toml", {f"{one.name}_accuracy": one.early["accuracy"]["value"] for one in measured}
    )
    readme = options.output / "README.md"
    readme.write_text(card.page(readme.read_text(encoding="utf-8"), facts, report), encoding="utf-8")
    print(readme.read_text(encoding="utf-8"))


def write_manifest(path, figures):
    """Adds figures to `[accuracy]`, which is a flat section of numbers."""
    text = path.read_text(encoding="utf-8")
    old = tomllib.loads(text)["accuracy"]
    begin = text.index("[accuracy]")
    end = text.find("\n[", begin + 1)
    rest = "" if end < 0 else text[end:]
    lines = [
        f"{name} = {value:.6g}" if value % 1 else f"{name} = {value:.1f}" for name, value in (old | figures).items()
    ]
    path.write_text(text[:begin] + "[accuracy]\n" + "\n".join(lines) + "\n" + rest, encoding="utf-8")
