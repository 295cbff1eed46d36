"""What is fitted and written after training."""

import tomllib

import numpy
import torch

import card
from albertine_models.acceptance import macro_f1
from export import best_bias
from measure import Measured, pooled, windows, write_manifest
from recipes import TOPIC


def test_windows_are_those_of_the_program():
    # The cases of pipeline/text/window.rs.
    assert windows(5, 8, 2) == [(0, 5, 5)]
    assert windows(0, 8, 2) == [(0, 0, 0)]
    assert windows(15, 8, 2) == [(0, 7, 7), (4, 11, 4), (8, 15, 4)]
    assert windows(9, 8, 2) == [(0, 6, 6), (3, 9, 3)]


def test_a_window_counts_by_the_tokens_it_adds():
    scores = numpy.array([[-1.0, -0.5], [-2.0, 0.0], [-0.1, -3.0]])
    found = pooled(scores, [0, 0, 1], [30, 10, 7], 2)
    assert numpy.allclose(found, [[-1.25, -0.375], [-0.1, -3.0]])


def test_macro_f1_counts_each_class_alike():
    assert macro_f1(numpy.array([0, 0, 1]), numpy.array([0, 0, 1]), 3) == 1.0
    assert abs(macro_f1(numpy.array([0, 0, 0]), numpy.array([0, 0, 1]), 3) - 0.4) < 1e-9


def test_a_class_that_is_called_too_seldom_is_raised():
    labels = torch.arange(300) % 3
    logits = torch.nn.functional.one_hot(labels, 3).float()
    assert best_bias([logits], [labels]).tolist() == [0.0, 0.0, 0.0], "what is right already is left alone"
    logits[:, 1] -= 1.2
    bias = best_bias([logits], [labels])
    assert macro_f1((logits + bias).argmax(-1).numpy(), labels.numpy(), 3) == 1.0


def test_figures_are_added_to_the_manifest_and_the_rest_stays(tmp_path):
    path = tmp_path / "model.toml"
    path.write_text('name = "x"\n\n[accuracy]\nkept = 0.5\nold = 1.0\n\n[early_exit]\ntemperatures = [1.5]\n')
    write_manifest(path, {"old": 0.25, "new": 0.125})
    assert tomllib.loads(path.read_text()) == {
        "name": "x",
        "accuracy": {"kept": 0.5, "old": 0.25, "new": 0.125},
        "early_exit": {"temperatures": [1.5]},
    }


def test_a_set_with_one_label_has_no_macro_f1():
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    said = {"documents": 10, "accuracy": figure, "macro_f1": figure, "mean_depth": 2.0}
    sets = [
        Measured("newsgroups_held_out", said, said, 0.5, 0.5, 0.0, labels=7),
        Measured("other_held_out", said, said, 0.5, 0.5, 0.0, labels=1),
    ]
    *_, several, one = card.accuracy(card.Facts(TOPIC, sets, {}, 0, None, "", "", "a core")).splitlines()
    assert several.count("0.5000 (0.4000 to 0.6000)") == 2
    assert one.count("0.5000 (0.4000 to 0.6000)") == 1 and "| – |" in one
