"""Constant scales of activations: what the products' inputs look like on calibration texts, over all passes.

Each distinct layer has a range for each of its four sites, shared by all passes that use the layer. In the feed-forward part a
few channels reach many times as far as the others; these are brought nearer to each other before they are rounded, after Xiao et
al. 2023, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models".
"""

from collections.abc import Callable

import numpy
import torch

from albertine_models.checkpoint import Checkpoint
from albertine_models.quantisation import SCALE_FLOOR, Rounding, Roundings
from albertine_models.rows import EncodedRow
from albertine_models.runtime import Measurement

# Texts whose activations are looked at, and values kept of each site: enough that the ranges stop moving.
CALIBRATION_TEXTS = 400
VALUES_MAX = 2_000_000

# Share of values clipped at each end by `percentile`, and those that `mse` tries.
PERCENTILE_SHARE = 1e-4
CLIPPED_SHARES = (0.0, 1e-7, 1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)

# Sites whose channels are evened out, how much of what a channel reaches is taken from it (the rest stays, so that the weights do
# not become what the activations were), and the least share of the largest channel that a channel is taken to reach.
EVENED_SITES = ("ffn", "ffn_output")
EVENING = 0.85
REACH_FLOOR = 1e-3


class Observations:
    """A sample of the rows seen at each (layer, site); the extremes of every channel and call are always in it."""

    def __init__(self, values_of_call: int):
        self.values_of_call = values_of_call
        self.generator = torch.Generator().manual_seed(1)
        self.seen: dict[tuple[int, str], list[torch.Tensor]] = {}

    def add(self, layer: int, site: str, values: torch.Tensor):
        """Called with the input of every product."""
        rows = values.reshape(-1, values.shape[-1])
        count = min(max(1, self.values_of_call // rows.shape[1]), len(rows))
        picked = torch.randint(len(rows), (count,), generator=self.generator)
        sample = torch.cat([rows[picked], rows.amin(0)[None], rows.amax(0)[None]])
        self.seen.setdefault((layer, site), []).append(sample)

    def roundings(self, method: str, weight_of: Callable[[int, str], numpy.ndarray]) -> Roundings:
        """How the input of every site is rounded; `weight_of(layer, site)` is its product's weight, [inputs, outputs]."""
        found = {}
        for (layer, site), samples in self.seen.items():
            rows, channels = torch.cat(samples).numpy(), None
            if site in EVENED_SITES:
                channels = evening_channels(rows, weight_of(layer, site))
                rows = rows / channels
            found[layer, site] = Rounding(*chosen_range(rows.ravel(), method), channels)
        return found


def evening_channels(rows: numpy.ndarray, weight: numpy.ndarray) -> numpy.ndarray:
    """What divides each channel of a site's input, with mean one: what it reaches, against what its weights reach."""
    reach = numpy.abs(rows).max(0)
    reach = numpy.maximum(reach, max(reach.max() * REACH_FLOOR, SCALE_FLOOR))
    weight_reach = numpy.maximum(numpy.abs(weight).max(1), SCALE_FLOOR)
    channels = reach**EVENING / weight_reach ** (1 - EVENING)
    return (channels / channels.mean()).astype(numpy.float32)


def observe(checkpoint: Checkpoint, rows: list[EncodedRow], measurement: Measurement) -> Observations:
    """Runs transformers' model over calibration texts and collects what its products read."""
    rows = rows[:: max(1, len(rows) // CALIBRATION_TEXTS)][:CALIBRATION_TEXTS]
    observations = Observations(max(1, VALUES_MAX // (len(rows) * checkpoint.config.num_hidden_layers)))
    hooks = checkpoint.observe(observations.add)
    alone = Measurement(measurement.terminal, measurement.max_length, alone=True)
    try:
        alone.logits(lambda ids, types, _: checkpoint.logits(ids, types), rows, "calibrating activation scales")
    finally:
        for hook in hooks:
            hook.remove()
    return observations


def chosen_range(values: numpy.ndarray, method: str) -> tuple[float, int]:
    """Scale and zero point of unsigned 8 bits for one site's values."""
    ordered = numpy.sort(values)
    if method == "minmax":
        return clipped_range(ordered, 0.0)
    if method == "percentile":
        return clipped_range(ordered, PERCENTILE_SHARE)
    candidates = [clipped_range(ordered, share) for share in CLIPPED_SHARES]
    return min(candidates, key=lambda candidate: squared_error(ordered, *candidate))


def clipped_range(ordered: numpy.ndarray, share: float) -> tuple[float, int]:
    """The range that clips this share of the values at each end; zero is always in it, exactly."""
    skip = int(share * len(ordered))
    low = min(0.0, float(ordered[skip]))
    high = max(0.0, float(ordered[-1 - skip]))
    scale = max(high - low, 1e-6) / 255
    return scale, min(255, max(0, round(-low / scale)))


def squared_error(values: numpy.ndarray, scale: float, zero_point: int) -> float:
    """Mean squared distance between values and their 8-bit forms."""
    steps = numpy.clip(numpy.round(values / scale) + zero_point, 0, 255)
    return float(numpy.mean(((steps - zero_point) * scale - values) ** 2))
