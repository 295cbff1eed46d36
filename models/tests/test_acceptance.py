"""The figures that decide, on logits written by hand."""

import numpy
import pytest

from albertine_models import acceptance
from albertine_models.errors import ConversionError
from albertine_models.rows import EncodedRow, Row

LABELS = ["no", "yes"]


def compared(count, changed, labels=None):
    """Figures of `count` rows, of which the first `changed` change their label from yes to no."""
    reference = numpy.tile(numpy.array([[0.0, 1.0]], numpy.float32), (count, 1))
    measured = reference.copy()
    measured[:changed] = [1.0, 0.0]
    rows = [EncodedRow(Row("", None, labels[index] if labels else None), [], []) for index in range(count)]
    return acceptance.compare(rows, LABELS, reference, measured)


def test_one_label_in_a_hundred_may_change():
    assert compared(300, 3).accepted and not compared(300, 4).accepted
    assert compared(40, 1).accepted and not compared(40, 2).accepted
    assert compared(300, 3).agreement == pytest.approx(0.99)


def test_macro_f1_may_fall_by_half_a_point_where_labels_are_known():
    labels = ["yes"] * 900 + ["no"] * 100
    figures = compared(1000, 9, labels)
    assert figures.labelled == 1000 and figures.reference_f1 > figures.f1
    assert figures.accepted
    assert compared(1000, 9).labelled == 0
    # Right answers that became wrong, all of them in a small class.
    reference, measured = numpy.eye(2)[[0] * 20 + [1] * 980], numpy.eye(2)[[1] * 5 + [0] * 15 + [1] * 980]
    rows = [EncodedRow(Row("", None, "no" if index < 20 else "yes"), [], []) for index in range(1000)]
    lost = acceptance.compare(rows, LABELS, reference, measured)
    assert lost.agreement == pytest.approx(0.995) and not lost.accepted


def test_macro_f1_is_the_mean_over_labels():
    predicted, wanted = numpy.array([0, 0, 1, 1]), numpy.array([0, 1, 1, 1])
    assert acceptance.macro_f1(predicted, wanted, 3) == pytest.approx((2 / 3 + 0.8) / 2)


def test_float32_graphs_that_differ_or_are_not_numbers_are_refused():
    reference = numpy.array([[1.0, -20.0]])
    assert acceptance.check_float(reference, reference + [[0.0, 1e-3]]) == pytest.approx(5e-5)
    for wrong in (reference + [[2e-4, 0.0]], reference * numpy.nan):
        with pytest.raises(ConversionError, match="differ from transformers"):
            acceptance.check_float(reference, wrong)
    with pytest.raises(ConversionError, match="unrolled"):
        acceptance.check_unrolled(reference, reference + 0.01)
