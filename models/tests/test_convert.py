"""Conversions that succeed: every kind of checkpoint becomes a folder whose graphs compute what transformers does."""

import json
import tomllib

import numpy
import onnx
import pytest
import torch
import transformers
from tokenizers import Tokenizer

from albertine_models import corpus, folder, runtime
from albertine_models.acceptance import FLOAT_TOLERANCE, float_distance
from albertine_models.convert import convert
from albertine_models.settings import Options

TEXTS = [
    "The kettle is sturdy.",
    "Ticket #12: search is down for 40 users in Oslo.",
    "",
    "Crème brûlée 👍",
    "why? " * 9,
]
PAIRS = [(text, other) for text, other in zip(TEXTS, reversed(TEXTS))]


def read_manifest(output):
    """`model.toml`, whose hashes are checked on the way."""
    manifest = tomllib.loads((output / "model.toml").read_text())
    for name, wanted in manifest["sha256"].items():
        assert folder.sha256(output / name) == wanted
    assert {file.name for file in output.iterdir()} == {*manifest["sha256"], "model.toml", "README.md"}
    return manifest


def read_corpus(output):
    """Rows of `verification.jsonl`."""
    return [json.loads(line) for line in (output / "verification.jsonl").read_text().splitlines()]


def logits_of(output, inputs):
    """Logits of a folder read from disk, the texts in one padded group."""
    tokenizer = Tokenizer.from_file(str(output / "tokenizer.json"))
    encoded = [tokenizer.encode(*one) if isinstance(one, tuple) else tokenizer.encode(one) for one in inputs]
    lengths = numpy.array([len(one.ids) for one in encoded], numpy.int32)
    input_ids = numpy.zeros((len(encoded), lengths.max()), numpy.int64)
    token_type_ids = numpy.zeros_like(input_ids)
    for place, one in enumerate(encoded):
        input_ids[place, : len(one.ids)] = one.ids
        token_type_ids[place, : len(one.ids)] = one.type_ids
    graphs = {path.name: path.read_bytes() for path in output.glob("*.onnx")}
    passes = read_manifest(output)["architecture"]["passes"]
    return runtime.served(graphs, passes)(input_ids, token_type_ids, lengths)


def transformers_logits(checkpoint, inputs):
    """Logits of transformers, with its own tokenizer and attention mask, the texts in one padded group."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    columns = list(zip(*inputs)) if isinstance(inputs[0], tuple) else [inputs]
    batch = tokenizer(*map(list, columns), padding=True, return_tensors="pt", return_token_type_ids=True)
    with torch.inference_mode():
        return model(**batch).logits.numpy()


def check_equal(checkpoint, output, inputs=TEXTS):
    """A float32 folder gives transformers' logits, padding or not."""
    assert float_distance(transformers_logits(checkpoint, inputs), logits_of(output, inputs)) <= FLOAT_TOLERANCE


def test_a_trained_checkpoint_becomes_an_int8_folder_with_its_corpus(trained, tmp_path, terminal):
    source = trained
    convert(Options(str(source), tmp_path / "model", task="kind", languages=["en"]), terminal)
    manifest = read_manifest(tmp_path / "model")
    assert manifest["format"] == 3 and manifest["labels"] == ["review", "ticket", "news", "question"]
    assert manifest["graphs"]["kind"] == "stepped" and manifest["graphs"]["precision"] == "int8"
    assert manifest["input"] == {"pair": False, "max_length": 64, "window_overlap": 16}
    assert manifest["verification"]["unrolled"] == "unrolled.onnx"
    assert manifest["accuracy"]["grouping_distance_max"] == 0.0
    rows = read_corpus(tmp_path / "model")
    assert len(rows) == corpus.ORDINARY_TEXTS + corpus.HOSTILE_TEXTS
    assert all(("logits" in row) == (len(row["input_ids"]) <= 64) for row in rows)
    distance = numpy.abs(transformers_logits(source, TEXTS) - logits_of(tmp_path / "model", TEXTS)).max()
    assert 0.0 < distance < 0.5
    assert "unrolled.onnx" in (tmp_path / "model" / "README.md").read_text()


def test_the_unrolled_graph_is_stored_at_the_size_of_one_layer(checkpoint, tmp_path, terminal):
    convert(Options(str(checkpoint()), tmp_path / "model", precision="float32"), terminal)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "model").glob("*.onnx")}
    parts = sum(sizes[f"{name}.onnx"] for name in ("embed", "layer", "head"))
    assert sizes["unrolled.onnx"] < parts + 16_000


def test_the_shape_of_albert_base(checkpoint, tmp_path, terminal, monkeypatch):
    monkeypatch.setattr(corpus, "ORDINARY_TEXTS", 12)
    monkeypatch.setattr(corpus, "HOSTILE_TEXTS", 20)
    monkeypatch.setattr(corpus, "CALIBRATION_TEXTS", 24)
    shape = {"vocab_size": 30000, "embedding_size": 128, "hidden_size": 768, "num_attention_heads": 12}
    shape |= {"intermediate_size": 3072, "num_hidden_layers": 12, "max_position_embeddings": 512}
    source = checkpoint(**shape)
    convert(Options(str(source), tmp_path / "int8"), terminal)
    manifest = read_manifest(tmp_path / "int8")
    assert manifest["architecture"] == {"kind": "albert", "hidden_size": 768, "passes": 12, "vocabulary_size": 30000}
    assert manifest["accuracy"]["float32_distance_max"] <= FLOAT_TOLERANCE
    assert (tmp_path / "int8" / "layer.onnx").stat().st_size < 7_300_000


@pytest.mark.parametrize("shape", [{"inner_group_num": 3}, {"num_hidden_groups": 3}])
def test_layers_that_are_called_in_turn_are_stepped(checkpoint, tmp_path, terminal, shape):
    source = checkpoint(**shape)
    convert(Options(str(source), tmp_path / "model", precision="float32"), terminal)
    manifest = read_manifest(tmp_path / "model")
    assert manifest["graphs"]["layers"] == ["layer1.onnx", "layer2.onnx", "layer3.onnx"]
    assert manifest["architecture"]["passes"] == 3 * shape.get("inner_group_num", 1)
    check_equal(source, tmp_path / "model")


def test_other_groups_become_one_unrolled_graph(checkpoint, tmp_path, terminal):
    source = checkpoint(num_hidden_groups=2, num_hidden_layers=5)
    convert(Options(str(source), tmp_path / "model", precision="float32"), terminal)
    manifest = read_manifest(tmp_path / "model")
    assert manifest["graphs"] == {"kind": "unrolled", "model": "model.onnx", "precision": "float32"}
    check_equal(source, tmp_path / "model")


def test_a_pair_model_reads_token_types(checkpoint, tmp_path, terminal):
    source = checkpoint(tokenizer="json")
    options = Options(str(source), tmp_path / "model", precision="float32", pair=True, windowed="text_pair")
    convert(options, terminal)
    assert read_manifest(tmp_path / "model")["input"]["windowed"] == "text_pair"
    check_equal(source, tmp_path / "model", PAIRS)
    row = read_corpus(tmp_path / "model")[0]
    assert set(row["token_type_ids"]) == {0, 1} and row["text_pair"]


@pytest.mark.parametrize("activation", ["gelu", "relu", "gelu_pytorch_tanh"])
def test_activations(checkpoint, tmp_path, terminal, activation):
    source = checkpoint(hidden_act=activation, type_vocab_size=1, layer_norm_eps=1e-5, max_position_embeddings=40)
    convert(Options(str(source), tmp_path / "model", precision="float32"), terminal)
    check_equal(source, tmp_path / "model", TEXTS[:4])


def test_pickled_weights_are_read(checkpoint, tmp_path, terminal):
    source = checkpoint()
    model = transformers.AlbertForSequenceClassification.from_pretrained(source)
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    (source / "model.safetensors").rename(tmp_path / "aside.safetensors")
    convert(Options(str(source), tmp_path / "model", precision="float32", unrolled=False), terminal)
    (tmp_path / "aside.safetensors").rename(source / "model.safetensors")
    check_equal(source, tmp_path / "model")
    assert not (tmp_path / "model" / "unrolled.onnx").exists()


def test_sites_in_float32_and_with_dynamic_scales(trained, tmp_path, terminal):
    options = Options(str(trained), tmp_path / "model", keep_float=["ffn", "word_table"])
    options.dynamic, options.activation_range = ["attention"], "percentile"
    convert(options, terminal)
    kinds = [node.op_type for node in onnx.load(tmp_path / "model" / "layer.onnx").graph.node]
    assert kinds.count("MatMul") == 1 and kinds.count("DynamicQuantizeLinear") == 1
    assert kinds.count("MatMulIntegerToFloat") == 2 and "QAttention" in kinds
    assert "word_scales" not in {one.name for one in onnx.load(tmp_path / "model" / "embed.onnx").graph.initializer}


def test_evaluation_texts_judge_int8_and_private_ones_stay_out(checkpoint, tmp_path, terminal):
    shown, hidden = tmp_path / "shown.jsonl", tmp_path / "hidden.jsonl"
    shown.write_text(json.dumps({"text": "A text that may be shown", "label": "review"}) + "\n")
    hidden.write_text(json.dumps({"text": "A text of a customer", "label": "ticket"}) + "\n")
    options = Options(str(checkpoint()), tmp_path / "model", precision="float32", private_evaluation=[hidden])
    options.evaluation = [shown]
    convert(options, terminal)
    corpus_text = (tmp_path / "model" / "verification.jsonl").read_text()
    assert "may be shown" in corpus_text and "customer" not in corpus_text
    assert read_corpus(tmp_path / "model")[-1]["label"] == "review"


def test_the_tokenizer_honours_case_and_accents(checkpoint, tmp_path, terminal):
    source = checkpoint()
    (source / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "AlbertTokenizer", "do_lower_case": False, "keep_accents": True})
    )
    convert(Options(str(source), tmp_path / "model", precision="float32"), terminal)
    own = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    kept, plain = own.encode("crème"), own.encode("creme")
    assert kept.ids != plain.ids and kept.ids[0] == plain.ids[0]
    assert kept.ids == transformers.AutoTokenizer.from_pretrained(source)("crème")["input_ids"]
