"""Conversions that are refused: each with its own message, exit code 1, and nothing left behind."""

import json

import pytest
import safetensors.torch
import torch

from albertine_models.command import main

LABEL_N = {index: f"LABEL_{index}" for index in range(4)}


def refused(capsys, tmp_path, source, *options):
    """The one line that the command ends with."""
    assert main(["convert", str(source), "--output", str(tmp_path / "model"), *options]) == 1
    assert not list(tmp_path.glob("*model*"))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err and captured.out == ""
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


def edit_config(source, **fields):
    """Changes `config.json` in place."""
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def edit_weights(source, change):
    """Changes the weights in place."""
    path = source / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    change(weights)
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architectures": ["AlbertForMaskedLM"]}, "`AlbertForMaskedLM`"),
        ({"architectures": ["BertForSequenceClassification"], "model_type": "bert"}, "`BertForSequenceClassification`"),
        ({"problem_type": "multi_label_classification"}, "`multi_label_classification`"),
        ({"problem_type": "regression"}, "`regression`"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "`auto_map`"),
        ({"hidden_act": "silu"}, "activation `silu`"),
    ],
)
def test_what_config_json_rules_out(checkpoint, tmp_path, capsys, fields, message):
    source = checkpoint()
    edit_config(source, **fields)
    assert message in refused(capsys, tmp_path, source)


def test_one_output_is_a_regression(checkpoint, tmp_path, capsys):
    source = checkpoint(id2label={0: "score"}, label2id={"score": 0})
    assert "regression" in refused(capsys, tmp_path, source)


def test_label_n_needs_names(checkpoint, tmp_path, capsys):
    source = checkpoint(id2label=LABEL_N, label2id={name: index for index, name in LABEL_N.items()})
    assert "`--labels`" in refused(capsys, tmp_path, source)
    assert "names 2 labels" in refused(capsys, tmp_path, source, "--labels", "good,bad")
    assert "distinct" in refused(capsys, tmp_path, source, "--labels", "a,b,b,c")


def test_windows_must_fit_the_positions(checkpoint, tmp_path, capsys):
    source = checkpoint()
    assert "16 to 64" in refused(capsys, tmp_path, source, "--max-length", "65")
    assert "half a window" in refused(capsys, tmp_path, source, "--window-overlap", "40")


def test_a_pair_needs_two_token_types(checkpoint, tmp_path, capsys):
    assert "one token type" in refused(capsys, tmp_path, checkpoint(type_vocab_size=1), "--pair")


def test_weights_that_are_missing_or_not_numbers(checkpoint, tmp_path, capsys):
    source = checkpoint("missing")
    edit_weights(source, lambda weights: weights.pop("classifier.weight"))
    assert "`classifier.weight`" in refused(capsys, tmp_path, source)
    source = checkpoint("broken")
    edit_weights(source, lambda weights: weights["albert.pooler.bias"].fill_(float("nan")))
    assert "`albert.pooler.bias`" in refused(capsys, tmp_path, source)
    (source / "model.safetensors").write_bytes(b"\x10" * 100)
    assert "cannot load the weights" in refused(capsys, tmp_path, source)


class Payload:
    """Pickles as a call, which a reader must not make."""

    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_that_runs_code_is_not_read(checkpoint, tmp_path, capsys):
    source = checkpoint()
    (source / "model.safetensors").unlink()
    torch.save({"classifier.weight": Payload()}, source / "pytorch_model.bin")
    assert "cannot load the weights" in refused(capsys, tmp_path, source)


def test_a_tokenizer_of_another_checkpoint(checkpoint, tmp_path, capsys):
    source = checkpoint(vocab_size=200)
    assert "200 rows" in refused(capsys, tmp_path, source)


def test_a_tokenizer_that_transformers_reads_otherwise(checkpoint, tmp_path, capsys):
    source = checkpoint(tokenizer="json")
    path = source / "tokenizer.json"
    fields = json.loads(path.read_text())
    fields["normalizer"] = None
    path.write_text(json.dumps(fields))
    assert "disagree on verification text" in refused(capsys, tmp_path, source)


def test_no_tokenizer(checkpoint, tmp_path, capsys):
    source = checkpoint()
    for path in source.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    assert "tokenizer" in refused(capsys, tmp_path, source)


def test_places_that_are_taken(checkpoint, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    arguments = ["convert", str(checkpoint()), "--output", str(tmp_path / "taken")]
    assert main(arguments) == 1 and "`--force`" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 1 and "no model folder" in capsys.readouterr().err
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "mine"


def test_files_of_texts_are_read_with_line_numbers(checkpoint, tmp_path, capsys):
    source, path = checkpoint(), tmp_path / "texts.jsonl"
    for lines, message in (
        ('{"text": "a"}\n{"text": 1}', "line 2"),
        ("{", "line 1"),
        ("", "holds no texts"),
        ('{"text": "a", "label": "?"}', "the label `?`"),
    ):
        path.write_text(lines)
        assert message in refused(capsys, tmp_path, source, "--evaluation", str(path))
    assert "cannot read texts" in refused(capsys, tmp_path, source, "--evaluation", str(tmp_path / "none.jsonl"))


def widen_one_input(weights):
    """One value of attention far beyond the others, which the output ignores: it takes the whole range of its site."""
    layer = "albert.encoder.albert_layer_groups.0.albert_layers.0"
    weights[f"{layer}.attention.value.bias"][0] = 3000.0
    weights[f"{layer}.attention.dense.weight"][:, 0] = 0.0


def test_int8_that_loses_labels_is_refused_with_what_each_remedy_gives(trained, tmp_path, capsys):
    edit_weights(trained, widen_one_input)
    arguments = ["convert", str(trained), "--output", str(tmp_path / "model"), "--activation-range", "minmax"]
    assert main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "int8 is refused" in lines[-1] and "`--precision float32`" in lines[-1]
    accepted = [line for line in lines if line.startswith("ok    --")]
    assert any("--keep-float attention_output" in line for line in accepted)
    assert not any("--keep-float attention " in line for line in accepted)
    assert any("--dynamic attention" in line for line in lines)
    assert any("--activation-range percentile" in line for line in lines)
    assert not (tmp_path / "model").exists()
    assert main([*arguments, "--keep-float", "attention_output"]) == 0
    assert main([*arguments, "--precision", "float32", "--force"]) == 0


def test_a_hub_that_does_not_answer(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "fetching it from the hub failed" in refused(capsys, tmp_path, "nobody/nothing")
