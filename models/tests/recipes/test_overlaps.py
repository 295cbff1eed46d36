"""No text stands on both sides, however it is spelt."""

import overlaps
from albertine_models.texts import behaviour
from data_sets import Example
from overlaps import Measured, without_overlap


def measured(monkeypatch):
    demo = {"product": [("It broke.", -2.0)], "newspaper": [("Taxes rise.", 0.0)], "film": [("A fine film.", 2.0)]}
    monkeypatch.setattr(overlaps.data_sets, "read_demo", lambda archive: demo)
    return Measured({"dev": [Example("So -- good!", 2, 1.0, "dev")]}, "demo.tar.gz")


def test_measured_texts_are_removed_and_counted_by_set(monkeypatch):
    texts = ["so good", "IT BROKE", "taxes rise!", "A fine film.", "A lamp.", " ", behaviour.cases()[0].text]
    candidates = [Example(text, 0, 1.0, "train") for text in texts]
    kept, removed = without_overlap(candidates, measured(monkeypatch))
    assert [example.text for example in kept] == ["A fine film.", "A lamp."]
    assert removed == {"train": {"dev": 1, "demo_product": 1, "demo_newspaper": 1, "empty": 1, "behaviour": 1}}


def test_the_report_names_every_training_set():
    table = overlaps.table({"kept": {"a": 10, "b": 2000}, "removed": {"b": {"dev": 3}}})
    assert "| a | 10 | none | 0 |" in table
    assert "| b | 2,000 | dev | 3 |" in table
