"""What a loss teaches, and what it does not."""

import pytest
import torch

from data_sets import Example
from distillation import cross_entropy


def test_a_set_without_a_label_says_nothing_of_it():
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0], [1.0, 3.0, 2.0]], requires_grad=True)
    labels, weights, among = torch.tensor([0, 0, -1]), torch.ones(3), torch.tensor([0b101, 0, 0])
    loss = cross_entropy(logits, labels, weights, among)
    loss.backward()
    between_two, between_three, without_label = logits.grad
    assert between_two[1] == 0 and between_two[0] < 0 < between_two[2]
    assert (between_three[1:] > 0).all()
    assert (without_label == 0).all()
    expected = -(logits[0, [0, 2]].log_softmax(-1)[0] + logits[1].log_softmax(-1)[0]) / 3
    assert torch.allclose(loss, expected)


def test_a_label_that_its_set_does_not_decide_among_is_refused():
    with pytest.raises(ValueError, match=r"label 1 of films is not among \(0, 2\): 'A film.'"):
        Example("A film.", 1, 1.0, "films", (0, 2))
