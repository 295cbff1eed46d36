"""Whether graphs are equal enough to transformers' float32 model, and what would help where int8 is not.

float32 graphs must give the same logits up to rounding. int8 graphs must give the same labels on nearly all rows,
and where true labels are known they must be hit as well as before.
"""

from dataclasses import dataclass

import numpy

from albertine_models.errors import ConversionError
from albertine_models.rows import EncodedRow

# float32 against transformers: |logit - reference| <= this * max(1, |reference|). Twelve layers of float32 in another
# order of sums stay a hundred times below it.
FLOAT_TOLERANCE = 1e-4

# Stepped against unrolled, absolute: the same operations, so that only the order of sums may differ.
UNROLLED_TOLERANCE = 1e-3

# int8 against float32: share of equal labels, and how much macro-F1 may fall. Of fewer than a hundred rows one may
# differ: a share of 99 % could not be told from 100 %.
AGREEMENT_MIN = 0.99
MACRO_F1_LOSS_MAX = 0.005


@dataclass(frozen=True)
class Figures:
    """int8 beside float32 on one set: texts, equal labels, distance of logits, and macro-F1 where labels are known."""

    rows: int
    agreement: float
    distance_max: float
    labelled: int
    reference_f1: float
    f1: float

    @property
    def accepted(self) -> bool:
        """Whether nothing was lost that counts."""
        differing = round((1 - self.agreement) * self.rows)
        return (
            differing <= max(1, (1 - AGREEMENT_MIN) * self.rows + 1e-9)
            and self.reference_f1 - self.f1 <= MACRO_F1_LOSS_MAX
        )

    def describe(self) -> str:
        """One line for people."""
        text = f"{self.agreement:.2%} of {self.rows:,} labels equal float32's"
        if self.labelled:
            text += f", macro-F1 {self.f1:.4f} instead of {self.reference_f1:.4f} on {self.labelled:,} labelled texts"
        return f"{text}, logits differ by at most {self.distance_max:.3f}"


def float_distance(reference: numpy.ndarray, measured: numpy.ndarray) -> float:
    """Largest distance of a logit, relative to the reference where that is above one."""
    return float((numpy.abs(measured - reference) / numpy.maximum(1.0, numpy.abs(reference))).max())


def check_unrolled(stepped: numpy.ndarray, unrolled: numpy.ndarray):
    """Refuses a graph that is not the network of the three it stands beside."""
    distance = float(numpy.abs(stepped - unrolled).max())
    if not distance <= UNROLLED_TOLERANCE:
        raise ConversionError(
            f"the unrolled graph differs from the stepped ones by {distance:.1e} (at most {UNROLLED_TOLERANCE:.0e}); "
            "leave it out with `--no-unrolled`, and please report it"
        )


def check_float(reference: numpy.ndarray, measured: numpy.ndarray) -> float:
    """Refuses graphs that do not compute what transformers computes."""
    distance = float_distance(reference, measured)
    if not distance <= FLOAT_TOLERANCE:
        raise ConversionError(
            f"the float32 graphs differ from transformers by {distance:.1e} (at most {FLOAT_TOLERANCE:.0e}); "
            "this checkpoint cannot be converted, please report it"
        )
    return distance


def macro_f1(predicted: numpy.ndarray, wanted: numpy.ndarray, labels: int) -> float:
    """Mean F1 over the labels that occur in either."""
    scores = []
    for label in range(labels):
        hits = int(((predicted == label) & (wanted == label)).sum())
        asked = int((predicted == label).sum() + (wanted == label).sum())
        if asked:
            scores.append(2 * hits / asked)
    return sum(scores) / len(scores) if scores else 0.0


def compare(rows: list[EncodedRow], labels: list[str], reference: numpy.ndarray, measured: numpy.ndarray) -> Figures:
    """Figures of one set; logits are [rows, labels]."""
    before, after = reference.argmax(-1), measured.argmax(-1)
    known = numpy.array([labels.index(one.row.label) if one.row.label in labels else -1 for one in rows])
    labelled = known >= 0
    return Figures(
        rows=len(rows),
        agreement=float((before == after).mean()),
        distance_max=float(numpy.abs(reference - measured).max()),
        labelled=int(labelled.sum()),
        reference_f1=macro_f1(before[labelled], known[labelled], len(labels)),
        f1=macro_f1(after[labelled], known[labelled], len(labels)),
    )
