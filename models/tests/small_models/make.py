"""Writes the small models of the tests: `python make.py`. It needs the packages `onnx` and `numpy`.

Good folders, each a whole model, and variants: single files with one thing wrong, by which a test replaces the file of a
good folder. All weights are random and seeded; what a model should answer is computed by `network.py`, not by the graphs.
"""

import hashlib
import json
import shutil
from pathlib import Path

import graphs
import numpy as np
from network import HIDDEN_SIZE, Network
from onnx import TensorProto, helper

FOLDER = Path(__file__).resolve().parents[3] / "tests" / "fixtures" / "models"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [
    "the",
    "a",
    "lid",
    "kettle",
    "parcel",
    "box",
    "colour",
    "handle",
    "price",
    "door",
    "is",
    "was",
    "looks",
    "feels",
    "arrived",
    "works",
    "broke",
    "fits",
    "not",
    "very",
    "quite",
    "again",
    "never",
    "always",
    "good",
    "bad",
    "fine",
    "cheap",
    "heavy",
    "loose",
]
TOKENS = SPECIAL + WORDS
UNKNOWN, FIRST, LAST = 1, 2, 3
MAX_LENGTH, OVERLAP = 32, 4
ROWS = 70
# Between the best label and the next: int8 may move a logit by less, so the label is the same.
MARGIN_MIN = 1.2
# Rows of one label: none stands for nearly all.
LABEL_ROWS_MAX = 35


def encode(text, text_pair=None):
    """Ids and token types: whole words in lower case; a special token's name in a text is that token."""
    ids = [TOKENS.index(word) if word in TOKENS else UNKNOWN for word in text.replace("[SEP]", " [SEP] ").split()]
    first = [FIRST, *ids, LAST]
    if text_pair is None:
        return first, [0] * len(first)
    second = [*encode(text_pair)[0][1:-1], LAST]
    return first + second, [0] * len(first) + [1] * len(second)


def sentence(generator, longest):
    return " ".join(generator.choice(WORDS) for _ in range(generator.integers(2, longest)))


def balanced(network, samples):
    """Moves the classifier's bias so that no label wins everywhere."""
    logits = np.array([network.logits(*encode(*texts)) for texts in samples])
    network.weights["classifier_bias"] -= logits.mean(axis=0).astype(np.float32)


def clear_rows(network, generator, pair):
    """Rows whose label is clear, with the reference's logits."""
    rows, counts = [], [0, 0, 0]
    while len(rows) < ROWS:
        texts = [sentence(generator, 24)] if not pair else [sentence(generator, 12), sentence(generator, 12)]
        logits = network.logits(*encode(*texts))
        best, second = np.sort(logits)[[-1, -2]]
        label = logits.argmax()
        if best - second >= MARGIN_MIN and counts[label] < LABEL_ROWS_MAX:
            counts[label] += 1
            rows.append(row(texts, logits))
    return rows


def row(texts, logits=None):
    ids, token_types = encode(*texts)
    pair = {"text_pair": texts[1]} if len(texts) == 2 else {}
    types = {"token_type_ids": token_types} if len(texts) == 2 else {}
    answer = {} if logits is None else {"logits": [round(float(logit), 6) for logit in logits]}
    return {"text": texts[0], **pair, "input_ids": ids, **types, **answer}


def hostile_rows(pair):
    """Texts that are hard to cut into tokens, and one that is too long for a window; without logits."""
    texts = ["", "   ", "good\tbad\nfine", "unheard-of", "the [SEP] lid", "good " * 60]
    return [row([text, "the lid"] if pair else [text]) for text in texts]


def tokenizer(tokens):
    """Whole words in lower case between the special tokens, in Hugging Face's format."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}

    def token(name, kind):
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def text(name, kind):
        return {"Sequence": {"id": name, "type_id": kind}}

    single = [token("[CLS]", 0), text("A", 0), token("[SEP]", 0)]
    around = {name: {"id": name, "ids": [tokens.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": tokens.index(name), "content": name, **flags} for name in SPECIAL],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, text("B", 1), token("[SEP]", 1)],
            "special_tokens": around,
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {name: id for id, name in enumerate(tokens)}, "unk_token": "[UNK]"},
    }


def manifest(name, network, files, graph_lines, pair):
    labels = ["entailment", "neutral", "contradiction"] if pair else ["negative", "neutral", "positive"]
    hashes = "\n".join(f'"{file}" = "{hashlib.sha256(content).hexdigest()}"' for file, content in files.items())
    unrolled = 'unrolled = "unrolled.onnx"\n' if "unrolled.onnx" in files else ""
    return f"""# Written by `models/tests/small_models/make.py`.
format = 3
name = "{name}"
version = "1"
task = "{"entailment" if pair else "sentiment"}"
labels = {json.dumps(labels)}
languages = ["en"]
description = "A very small network with random weights: for tests"
license = "MIT"

[architecture]
kind = "albert"
hidden_size = {HIDDEN_SIZE}
passes = {network.passes}
vocabulary_size = {len(TOKENS)}

[input]
pair = {str(pair).lower()}
{'windowed = "text"' if pair else ""}
max_length = {MAX_LENGTH}
window_overlap = {OVERLAP}

[graphs]
{graph_lines}

[calibration]
temperature = 1.0

[verification]
corpus = "verification.jsonl"
{unrolled}
[sha256]
{hashes}

[provenance]
recipe = "models/tests/small_models/make.py"
teacher = ""
data = []
source = ""

[accuracy]
"""


def write_folder(name, network, models, texts, pair):
    files = {f"{part}.onnx": model.SerializeToString() for part, model in models.items()}
    files["tokenizer.json"] = (json.dumps(tokenizer(TOKENS)) + "\n").encode()
    files["verification.jsonl"] = "".join(json.dumps(row) + "\n" for row in texts).encode()
    parts = [part for part in models if part != "unrolled"]
    kind = "unrolled" if "model" in models else "stepped"
    layers = [part for part in parts if part.startswith("layer")]
    others = [f'{part} = "{part}.onnx"' for part in parts if part not in layers]
    lines = [f'kind = "{kind}"', *others]
    if layers:
        lines.append(f"layers = {json.dumps([f'{part}.onnx' for part in layers])}")
    lines.append(f'precision = "{name.rsplit("-", 1)[1]}"')
    text = manifest(name, network, files, "\n".join(lines), pair)
    (FOLDER / name).mkdir(parents=True)
    for file, content in (files | {"model.toml": text.encode()}).items():
        (FOLDER / name / file).write_bytes(content)


def write_good(name, seed, groups, passes, pair=False, in_turn=False):
    """A float32 and an int8 folder of one network."""
    generator = np.random.default_rng(seed)
    network = Network.random(generator, len(TOKENS), 3, groups, passes, in_turn)
    length = 12 if pair else 24
    samples = [[sentence(generator, length) for _ in range(2 if pair else 1)] for _ in range(300)]
    balanced(network, samples)
    rows = clear_rows(network, generator, pair)
    network.seen.clear()
    for texts in samples:
        network.logits(*encode(*texts))
    scales = graphs.static_scales(network.seen)
    for precision, used in (("float32", None), ("int8", scales)):
        if groups > 1 and not in_turn:
            models = {"model": graphs.unrolled(network, used)}
        else:
            models = graphs.stepped(network, used) | {"unrolled": graphs.unrolled(network, used)}
        write_folder(f"{name}-{precision}", network, models, rows + hostile_rows(pair), pair)
    return network


def write_variants(network):
    """Files of the stepped model in float32, or of its layer in int8, each with one thing wrong."""
    folder = FOLDER / "variants"
    folder.mkdir()

    def write(name, model):
        (folder / name).write_bytes(model.SerializeToString())

    def good(part):
        return graphs.stepped(network, None)[part]

    write("embed-swapped.onnx", renamed(good("embed"), {"input_ids": "token_type_ids", "token_type_ids": "input_ids"}))
    write("embed-static.onnx", with_axes(good("embed"), [1, MAX_LENGTH]))
    write("layer-rank.onnx", with_axes(good("layer"), ["batch", "one"], {"lengths"}))
    write("layer-not-a-number.onnx", with_nan(good("layer"), "ffn"))
    write("head-external.onnx", with_external(good("head"), "pooler"))
    write("head-domain.onnx", with_domain(good("head"), "Tanh", "example.com"))
    write("layer-spoilt.onnx", graphs.stepped(network, graphs.static_scales(network.seen, shrink=0.08))["layer"])
    write("layer-dynamic.onnx", graphs.stepped(network, "dynamic")["layer"])
    small = Network({**network.weights, "words": network.weights["words"][:-5]}, network.groups, network.passes)
    write("embed-small-table.onnx", graphs.stepped(small, None)["embed"])
    foreign = SPECIAL + WORDS[1:] + WORDS[:1]
    (folder / "tokenizer-foreign.json").write_text(json.dumps(tokenizer(foreign)) + "\n", encoding="utf-8")


def renamed(model, names):
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    return model


def with_axes(model, axes, inputs=None):
    for value in model.graph.input:
        if inputs is None or value.name in inputs:
            value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, axes))
    return model


def weight_of(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def with_nan(model, name):
    tensor = weight_of(model, name)
    values = np.frombuffer(tensor.raw_data, np.float32).copy()
    values[values.size // 2] = np.nan
    tensor.raw_data = values.tobytes()
    return model


def with_external(model, name):
    tensor = weight_of(model, name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../elsewhere.bin"
    return model


def with_domain(model, operator, domain):
    for node in model.graph.node:
        if node.op_type == operator:
            node.domain = domain
    return model


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    single = write_good("stepped", seed=3, groups=1, passes=2)
    write_good("in-turn", seed=3, groups=2, passes=4, in_turn=True)
    write_good("two-groups", seed=3, groups=2, passes=2)
    write_good("pair", seed=4, groups=1, passes=2, pair=True)
    write_variants(single)
