"""A run that is killed ends where one that was not would have ended."""

import pytest
import torch
from torch import nn

import training
from encoded import Mixture, Special, Stream, Texts
from training import Machine, Schedule, is_complete, train


class Killed(Exception):
    """Stands for a signal."""


def run(checkpoint, killed_at=None):
    torch.manual_seed(3)
    network = nn.EmbeddingBag(40, 3, mode="mean")
    rows = [[(place * 7 + step) % 37 + 3 for step in range(4 + place % 9)] for place in range(60)]
    texts = Texts.of(rows, [place % 3 for place in range(60)], [1.0] * 60, [()] * 60)
    mixture = Mixture([Stream(texts, Special(1, 2, (9,)), 16, 1)], [1], 256, 1)
    steps = 0

    def loss_of(input_ids, _mask, labels, _weights, _among):
        nonlocal steps
        steps += 1
        if steps == killed_at:
            raise Killed
        return nn.functional.cross_entropy(network(input_ids), labels)

    schedule = Schedule(tokens=20_000, rate=1e-2, checkpoint=checkpoint)
    train(network, mixture, schedule, Machine("cpu"), loss_of)
    return network.weight.detach(), steps, schedule


def test_a_killed_run_goes_on_where_its_checkpoint_stood(tmp_path, monkeypatch):
    straight, steps, schedule = run(tmp_path / "straight.pt")
    assert is_complete(schedule)
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    with pytest.raises(Killed):
        run(tmp_path / "killed.pt", killed_at=steps // 2)
    assert not is_complete(Schedule(20_000, 1e-2, tmp_path / "killed.pt"))
    resumed, more, _ = run(tmp_path / "killed.pt")
    assert torch.equal(straight, resumed)
    assert more < steps


def test_the_rate_rises_stays_and_falls():
    def rates(**shape):
        schedule = Schedule(1_000_000, 2.0, None, **shape)
        return [schedule.rate_at(share * schedule.tokens / 1000) for share in range(1001)]

    both = rates(rise_tokens=100_000)
    top = both.index(max(both))
    assert 0 < both[0] < both[10] < both[top] and 95 <= top <= 105
    assert both[top:] == sorted(both[top:], reverse=True)
    assert both[-1] == pytest.approx(0.04)
    assert set(rates(rise_tokens=100_000, falls=False)[100:]) == {2.0}
    assert rates()[0] == 2.0
