"""8-bit forms of weights and activations.

Weights use 7 of their 8 bits, so that the sum of two products of an unsigned and a signed byte fits in 16 bits:
cores without VNNI add such pairs in 16 bits and would saturate. Integer products are then exact on every core.
"""

from dataclasses import dataclass, field

import numpy
from numpy import ndarray

from albertine_models.network import SITES

# 63 * 255 * 2 = 32,130 < 32,767. One bit more would overflow the pair sum.
WEIGHT_LIMIT = 63

# Smallest divisor: a row or column of zeros must not divide by zero.
SCALE_FLOOR = 1e-8

# Sites that `keep_float` may name: the layer's products, and the word table.
WORD_TABLE = "word_table"
FLOAT_SITES = (*SITES, WORD_TABLE)

# How the range of an activation is chosen. `mse`: the least squared error among clipped ranges; `minmax`: nothing is
# clipped; `percentile`: one value in ten thousand is clipped at each end.
RANGE_METHODS = ("mse", "minmax", "percentile")


@dataclass(frozen=True)
class Rounding:
    """How the input of a product becomes unsigned 8 bits: constant scale and zero point."""

    scale: float
    zero: int
    # Shape [inputs]: each channel is divided by its own before it is rounded, and the weight's row multiplied.
    channels: ndarray | None = None


# (layer, site) -> how its input is rounded.
Roundings = dict[tuple[int, str], Rounding]


@dataclass(frozen=True)
class Plan:
    """What is quantised, and how; and the sites that differ."""

    roundings: Roundings
    keep_float: frozenset[str] = field(default_factory=frozenset)
    dynamic: frozenset[str] = field(default_factory=frozenset)

    def is_float(self, site: str) -> bool:
        """Whether a site, or the word table, stays in float32."""
        return site in self.keep_float

    @property
    def quantises_layer(self) -> bool:
        """Whether any product of a layer is int8."""
        return not self.keep_float.issuperset(SITES)

    @property
    def follows_batch(self) -> bool:
        """Whether a text's logits depend on what it is grouped with."""
        return bool(self.dynamic - self.keep_float)


def float_plan() -> Plan:
    """Nothing quantised."""
    return Plan({}, frozenset(FLOAT_SITES))


def quantised_table(table: ndarray) -> tuple[ndarray, ndarray]:
    """An int8 table with one scale a row, shape [rows, 1]. All 8 bits: rows are only gathered, never multiplied."""
    scale = numpy.maximum(numpy.abs(table).max(axis=1, keepdims=True), SCALE_FLOOR) / 127
    return numpy.round(table / scale).astype(numpy.int8), scale.astype(numpy.float32)


def quantised_columns(weight: ndarray) -> tuple[ndarray, ndarray]:
    """A [inputs, outputs] matrix in 7 bits with one scale a column."""
    scale = numpy.maximum(numpy.abs(weight).max(axis=0), SCALE_FLOOR) / WEIGHT_LIMIT
    steps = numpy.clip(numpy.round(weight / scale), -WEIGHT_LIMIT, WEIGHT_LIMIT)
    return steps.astype(numpy.int8), scale.astype(numpy.float32)
