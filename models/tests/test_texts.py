"""The package's own texts: the same everywhere, enough of them, and files of texts."""

import json

from tokenizers import Tokenizer
from transformers import AlbertConfig, AutoTokenizer

from albertine_models.command import main
from albertine_models.corpus import HOSTILE_TEXTS, ORDINARY_TEXTS, Corpus
from albertine_models.network import layer_order
from albertine_models.rows import EncodedRow, Row
from albertine_models.texts.hostile import RANGES, hostile_rows
from albertine_models.texts.ordinary import KINDS, ordinary_rows


def test_texts_are_seeded_and_distinct():
    rows = ordinary_rows(ORDINARY_TEXTS, pair=True)
    assert rows == ordinary_rows(ORDINARY_TEXTS, pair=True) != ordinary_rows(ORDINARY_TEXTS, pair=True, seed=7)
    assert len({row.text for row in rows}) == ORDINARY_TEXTS >= 1000
    assert {row.label for row in rows} == set(KINDS) and all(row.text_pair for row in rows)


def test_hostile_texts_hold_every_class_of_characters():
    rows = hostile_rows(HOSTILE_TEXTS, pair=False)
    assert rows == hostile_rows(HOSTILE_TEXTS, pair=False) and len(rows) == HOSTILE_TEXTS >= 500
    seen = {ord(character) for row in rows for character in row.text}
    for name, ranges in RANGES.items():
        assert any(low <= character <= high for low, high in ranges for character in seen), name
    texts = {row.text for row in rows}
    assert {"", " ", "\x00", "\ufeff", "\u2581"} <= texts and any("[CLS]" in text for text in texts)
    for text in texts:
        text.encode("utf-8")


def test_layers_are_walked_as_transformers_does():
    config = AlbertConfig(num_hidden_layers=5, num_hidden_groups=2, inner_group_num=2)
    assert layer_order(config) == (0, 1, 0, 1, 0, 1, 2, 3, 2, 3)
    assert layer_order(AlbertConfig(num_hidden_layers=3)) == (0, 0, 0)


def test_tokens_writes_the_ids_of_transformers(checkpoint, tmp_path):
    source = checkpoint()
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": row.text}) + "\n" for row in hostile_rows(80, pair=False)))
    assert main(["tokens", str(source), str(texts), "--output", str(tmp_path / "ids.jsonl"), "--limit", "70"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "ids.jsonl").read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(source)
    assert len(rows) == 70
    assert [row["input_ids"] for row in rows] == tokenizer([row["text"] for row in rows])["input_ids"]


def test_tokens_of_a_folder_are_those_of_its_tokenizer(checkpoint, tmp_path):
    source = checkpoint(tokenizer="json")
    output = str(tmp_path / "model")
    assert main(["convert", str(source), "--output", output, "--precision", "float32", "--pair"]) == 0
    texts = tmp_path / "texts.jsonl"
    texts.write_text(json.dumps({"text": "a kettle", "text_pair": "in Oslo"}) + "\n")
    assert main(["tokens", output, str(texts), "--pair", "--output", str(tmp_path / "ids.jsonl")]) == 0
    row = json.loads((tmp_path / "ids.jsonl").read_text())
    wanted = Tokenizer.from_file(f"{output}/tokenizer.json").encode("a kettle", "in Oslo")
    assert (row["input_ids"], row["token_type_ids"]) == (wanted.ids, wanted.type_ids)


def test_texts_that_read_alike_count_once():
    ids = [[1, 0, 2], [1, 0, 2], [1, 5, 2], [1, 5, 5, 5, 2], [1, 0, 2], [1, 7, 2]]
    corpus = Corpus([EncodedRow(Row(str(row)), row, [0] * len(row)) for row in ids], own=4, private=1)
    assert corpus.sets(max_length=4) == {"all verification texts": [0, 2], "the evaluation texts": [4, 5]}
