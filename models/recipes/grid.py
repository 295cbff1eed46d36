"""Training on the grid of int8: the student's linears compute what the int8 graphs will compute.

Weights are rounded to 7 bits by output channel and activations to 8 bits with a constant range by layer and site, as
`albertine_models.quantisation` has it; gradients pass the rounding unchanged (Jacob et al. 2018, "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference"). So nothing is left to be lost when the model is converted.
"""

import json

import torch
from torch.nn import functional

from albertine_models.calibration import Observations
from albertine_models.quantisation import SCALE_FLOOR, WEIGHT_LIMIT

# Batches whose activations are looked at, and values kept of each call.
BATCHES = 24
VALUES_OF_CALL = 20_000

# How a range is chosen from them; see `albertine_models.quantisation.RANGE_METHODS`.
METHOD = "mse"


def rounded_weight(weight):
    """A weight [outputs, inputs] on the grid."""
    scales = weight.detach().abs().amax(1).clamp_min(SCALE_FLOOR) / WEIGHT_LIMIT
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -WEIGHT_LIMIT, WEIGHT_LIMIT)


def on_grid(ranges):
    """Computes linears on the grid of these ranges: (layer, site) -> (scale, zero point)."""

    def product(layer, site, linear, values):
        scale, zero = ranges[layer, site]
        rounded = torch.fake_quantize_per_tensor_affine(values.float(), scale, zero, 0, 255)
        return functional.linear(rounded, rounded_weight(linear.weight), linear.bias)

    return product


def ranges_of(student, batches, device):
    """The ranges of a student's activations on the first of these batches."""
    observations = Observations(VALUES_OF_CALL)

    def product(layer, site, linear, values):
        observations.add(layer, site, values.float().cpu())
        return linear(values)

    with torch.inference_mode(), student.computing(product):
        for batch in batches[:BATCHES]:
            student(*batch.inputs(device))
    return observations.ranges(METHOD)


def write_ranges(path, ranges):
    """Ranges as JSON: rows of layer, site, scale and zero point."""
    rows = [[layer, site, scale, zero] for (layer, site), (scale, zero) in ranges.items()]
    path.write_text(json.dumps(rows) + "\n", encoding="utf-8")


def read_ranges(path):
    """What `write_ranges` wrote."""
    return {(layer, site): (scale, zero) for layer, site, scale, zero in json.loads(path.read_text(encoding="utf-8"))}
