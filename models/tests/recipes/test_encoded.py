"""What training draws is decided by the seed and the number of the draw, and fits its limits."""

import itertools

import numpy
import pytest

from encoded import Batch, Mixture, Special, Stream, Texts, group, predict, recorded_length

SPECIAL = Special(classifier=1, separator=2, sentence_ends=(9,))


def texts(labels, length=300):
    generator = numpy.random.default_rng(5)
    rows = [generator.integers(3, 12, size=1 + length * place // len(labels)) for place in range(len(labels))]
    among = [(0, 2) if place == 0 else () for place in range(len(labels))]
    return Texts.of(rows, labels, [1.0 + place for place in range(len(labels))], among)


def test_texts_are_read_as_they_were_written(tmp_path):
    written = texts([0, 2, -1])
    written.write(tmp_path / "texts.npz")
    read = Texts.read(tmp_path / "texts.npz")
    assert [read.row(index).tolist() for index in range(3)] == [written.row(index).tolist() for index in range(3)]
    assert read.labels.tolist() == [0, 2, -1]
    assert read.weights.tolist() == [1.0, 2.0, 3.0]
    assert read.among.tolist() == [0b101, 0, 0]


def test_a_stream_goes_on_where_it_was_stopped():
    def stream():
        return Stream(texts([0, 1, -1, 2, -1]), SPECIAL, 64, seed=7)

    whole = list(stream().rows(0, 23))
    assert list(stream().rows(0, 9)) + list(stream().rows(9, 14)) == whole
    assert whole[:5] != whole[5:10], "each time through has its own order and windows"


def test_windows_fit_and_those_without_label_are_whole_sentences():
    stream = Stream(texts([0, -1] * 20), SPECIAL, 64, seed=7)
    starts_inside = 0
    for ids, label, *_ in stream.rows(0, 400):
        assert 3 <= len(ids) <= 64
        assert (ids[0], ids[-1]) == (1, 2)
        inside = ids[1:-1]
        if label < 0 and len(inside) < 40 and inside[-1] == 9:
            starts_inside += 1
    assert starts_inside > 50


def test_every_row_of_a_chunk_is_in_one_batch_within_the_budget():
    labelled, unlabelled = (Stream(texts(labels), SPECIAL, 64, 7) for labels in ([0, 1, 2], [-1, -1]))
    batches = Mixture([labelled, unlabelled], [3, 1], 512, seed=7).batches(4)
    labels = list(itertools.chain.from_iterable(batch.labels.tolist() for batch in batches))
    assert len(labels) == 6144
    assert labels.count(-1) == 6144 // 4
    assert all(batch.ids.size <= 512 for batch in batches)
    batch = batches[0]
    input_ids, mask = batch.inputs("cpu")
    assert mask.sum(1).tolist() == batch.lengths.tolist()
    assert (input_ids[mask == 0] == 0).all()


@pytest.mark.parametrize("lengths", [[3], [3, 5, 5, 8], [60] * 9])
def test_groups_keep_order_and_budget(lengths):
    rows = [(list(range(length)), place) for place, length in enumerate(lengths)]
    groups = group(rows, 100)
    assert list(itertools.chain.from_iterable(groups)) == rows
    assert all(len(own) * len(own[-1][0]) <= 100 for own in groups)


def test_predictions_come_back_in_order():
    rows = [[1, length, 2] + [3] * length for length in (9, 1, 5, 1, 30)]
    found = predict(lambda input_ids, mask: input_ids[:, 1:2] + mask.sum(1, keepdim=True), rows, 32)
    assert found[:, 0].tolist() == [row[1] + len(row) for row in rows]


def test_rows_that_are_added_to_a_batch_change_no_mean():
    batch = Batch.of([([1, 4, 2], 0, 0.5, 5), ([1, 5, 6, 7, 2], -1, 1.5, 0)])
    padded = batch.padded(5, 8)
    input_ids, mask, labels, weights, among = padded.tensors("cpu")
    assert input_ids.shape == mask.shape == (5, 8)
    assert padded.tokens == batch.tokens == int(mask.sum())
    assert labels.tolist() == [0, -1, -1, -1, -1]
    assert among.tolist() == [5, 0, 0, 0, 0]
    assert weights.mean().item() == pytest.approx(batch.weights.mean())


def test_batches_fit_when_they_are_padded_to_a_recorded_length():
    mixture = Mixture([Stream(texts([0, 1, 2]), SPECIAL, 64, 7)], [1], 512, seed=7, is_recorded=True)
    for batch in mixture.batches(2):
        assert len(batch.labels) * recorded_length(batch.ids.shape[1]) <= 512
