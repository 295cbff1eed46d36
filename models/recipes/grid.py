"""Training on the grid of int8: the student's linears compute what the int8 graphs will compute.

Weights are rounded to 7 bits by output channel and activations to 8 bits as `albertine_models.calibration` chose it for each
layer and site; gradients pass the rounding unchanged (Jacob et al. 2018, "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference"). The weights that are kept at the end are the rounded ones, which
are those that were trained.
"""

import json

import numpy
import torch
from torch.nn import functional

from albertine_models.calibration import Observations
from albertine_models.network import SITES
from albertine_models.quantisation import SCALE_FLOOR, WEIGHT_LIMIT, Rounding, quantised_table

# Batches whose activations are looked at, and values kept of each call.
BATCHES = 24
VALUES_OF_CALL = 20_000

# How a range is chosen from them; see `albertine_models.quantisation.RANGE_METHODS`.
METHOD = "mse"


def rounded_weight(weight):
    """A weight [outputs, inputs] on the grid."""
    scales = weight.detach().abs().amax(1).clamp_min(SCALE_FLOOR) / WEIGHT_LIMIT
    # Not integers, whose range is looked at on the CPU: a step on a GPU must not wait for that.
    zeros = torch.zeros_like(scales)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -WEIGHT_LIMIT, WEIGHT_LIMIT)


def on_grid(roundings, device="cpu"):
    """Computes linears as these roundings say: (layer, site) -> `Rounding`."""
    factors = {key: channels_of(rounding, device) for key, rounding in roundings.items()}

    def product(layer, site, linear, values):
        rounding, channels = roundings[layer, site], factors[layer, site]
        evened = (values / channels).float()
        rounded = torch.fake_quantize_per_tensor_affine(evened, rounding.scale, rounding.zero, 0, 255)
        return functional.linear(rounded, rounded_weight(linear.weight * channels), linear.bias)

    return product


def channels_of(rounding, device="cpu"):
    """What divides the channels; one where they stay as they are."""
    return (
        torch.ones((), device=device) if rounding.channels is None else torch.from_numpy(rounding.channels).to(device)
    )


def keep_rounded(student, roundings):
    """Puts the weights as the int8 graphs will hold them in the place of those that they were rounded from."""
    with torch.no_grad():
        for (layer, site), rounding in roundings.items():
            weight, channels = getattr(student.layers[layer], site).weight, channels_of(rounding)
            weight.copy_(rounded_weight(weight * channels) / channels)
        steps, scales = quantised_table(student.word.weight.numpy())
        student.word.weight.copy_(torch.from_numpy(steps * scales))
        for part in (student.position, student.projection, student.pooler):
            part.weight.copy_(part.weight.half())


def roundings_of(student, batches, device):
    """How a student's activations are to be rounded, by some of these batches."""
    observations = Observations(VALUES_OF_CALL)

    def product(layer, site, linear, values):
        observations.add(layer, site, values.float().cpu())
        return linear(values)

    with torch.inference_mode(), student.computing(product):
        for batch in of_all_lengths(batches, BATCHES):
            student(*batch.inputs(device))
    weights = {
        (index, site): getattr(layer, site).weight.detach().T.cpu().numpy()
        for index, layer in enumerate(student.layers)
        for site in SITES
    }
    return observations.roundings(METHOD, lambda layer, site: weights[layer, site])


def of_all_lengths(batches, count):
    """Some batches, from the one with the shortest rows to that with the longest."""
    ordered = sorted(batches, key=lambda batch: batch.ids.shape[1])
    return [ordered[place * (len(ordered) - 1) // max(count - 1, 1)] for place in range(min(count, len(ordered)))]


def write(path, roundings):
    """Roundings as JSON: rows of layer, site, scale, zero point, and what divides the channels."""
    # Under another name first: another process of the run may look for it.
    partial = path.with_suffix(".partial")
    rows = [
        [*key, rounding.scale, rounding.zero, None if rounding.channels is None else rounding.channels.tolist()]
        for key, rounding in roundings.items()
    ]
    partial.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    partial.replace(path)


def read(path):
    """What `write` wrote."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {
        (layer, site): Rounding(scale, zero, None if channels is None else numpy.array(channels, numpy.float32))
        for layer, site, scale, zero, channels in rows
    }
