"""How activations are rounded: ranges, and channels that reach further than others."""

import numpy
import torch

from albertine_models.calibration import Observations, evening_channels
from albertine_models.quantisation import quantised_columns


def inputs(outlier):
    """Rows of 32 channels, one of which reaches further."""
    rows = torch.randn(4000, 32, generator=torch.Generator().manual_seed(1))
    rows[:, 7] *= outlier
    return rows


def weight():
    return numpy.random.default_rng(2).normal(0, 0.1, (32, 16)).astype(numpy.float32)


def rounding_of(rows, site):
    observations = Observations(100_000)
    for part in rows.split(500):
        observations.add(0, site, part[None])
    return observations.roundings("mse", lambda *_: weight())[0, site]


def distance(rows, rounding):
    """How far the int8 product is from the exact one, in the exact one's deviations."""
    channels = numpy.ones(rows.shape[1]) if rounding.channels is None else rounding.channels
    steps = numpy.clip(numpy.round(rows.numpy() / channels / rounding.scale) + rounding.zero, 0, 255)
    weight_steps, scales = quantised_columns(weight() * channels[:, None])
    found = ((steps - rounding.zero) * rounding.scale) @ (weight_steps * scales)
    exact = rows.numpy() @ weight()
    return numpy.sqrt(((found - exact) ** 2).mean()) / exact.std()


def test_a_channel_that_reaches_far_does_not_make_the_steps_of_the_others_coarse():
    rows = inputs(outlier=40)
    evened, plain = rounding_of(rows, "ffn"), rounding_of(rows, "attention")
    assert plain.channels is None
    assert evened.channels.argmax() == 7 and abs(evened.channels.mean() - 1) < 1e-5
    assert evened.scale < plain.scale / 2
    # The far channel is most of the product; what the others give is told by leaving it out.
    rows[:, 7] = 0
    assert distance(rows, evened) < 0.7 * distance(rows, plain)


def test_where_no_channel_stands_out_nothing_is_lost():
    rows = inputs(outlier=1)
    assert distance(rows, rounding_of(rows, "ffn")) < 1.2 * distance(rows, rounding_of(rows, "attention"))


def test_a_channel_that_was_never_seen_at_work_keeps_the_others_apart_from_zero():
    rows = inputs(outlier=1).numpy()
    rows[:, 3] = 0
    channels = evening_channels(rows, weight())
    assert numpy.isfinite(channels).all() and channels.min() > 0
