"""The student is ALBERT as transformers has it, and begins as a summary of the teacher."""

import numpy
import pytest
import torch

import grid
import networks
from albertine_models import runtime
from albertine_models.graphs import folder_graphs
from albertine_models.network import SITES, network_from
from albertine_models.quantisation import Plan
from encoded import Batch
from measure import logits_of_every_pass
from networks import Albert, Teachers, albert_from_teacher, attention_bias, checkpoint_model, teacher_network

LABELS = ["a", "b", "c"]


def teacher():
    torch.manual_seed(1)
    return teacher_network(len(LABELS)).eval()


def test_transformers_computes_the_same_logits():
    torch.manual_seed(2)
    student = Albert(len(LABELS)).eval()
    input_ids = torch.randint(5, 1000, (3, 11))
    mask = torch.ones_like(input_ids)
    mask[1, 7:] = 0
    with torch.inference_mode():
        own = torch.stack(student(input_ids, mask)[1], 1)
        theirs = logits_of_every_pass(checkpoint_model(student, LABELS), input_ids, mask)
    assert theirs.shape == (3, networks.PASSES, len(LABELS))
    torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-5)


def test_the_student_starts_from_layers_of_the_teacher():
    source = teacher()
    student = albert_from_teacher(source, torch.arange(networks.VOCABULARY_SIZE))
    for index, layer in zip(networks.SOURCE_LAYERS, student.layers):
        block = source.bert.encoder.layer[index]
        torch.testing.assert_close(layer.ffn.weight, block.intermediate.dense.weight)
        packed = layer.attention.weight[networks.HIDDEN_SIZE : 2 * networks.HIDDEN_SIZE]
        torch.testing.assert_close(packed, block.attention.self.key.weight)


def test_teachers_agree_on_the_mean_of_their_logits():
    first = teacher()
    second = teacher_network(len(LABELS)).eval()
    input_ids = torch.randint(5, 1000, (2, 7))
    mask = torch.ones_like(input_ids)
    mask[1, 4:] = 0
    with torch.inference_mode():
        states, logits = Teachers([first, second])(input_ids, mask)
        own = first(input_ids, attention_mask=mask, output_hidden_states=True)
        other = second(input_ids, attention_bias(mask))
    assert len(states) == networks.TEACHER_LAYERS + 1
    torch.testing.assert_close(states[-1][mask == 1], own.hidden_states[-1][mask == 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, (own.logits + other.logits) / 2, rtol=1e-4, atol=1e-5)


def test_ranges_are_chosen_from_rows_of_all_lengths():
    batches = [Batch.of([([2] * length, 0, 1.0, 0)]) for length in (9, 30, 3, 17, 5)]
    assert [batch.tokens for batch in grid.of_all_lengths(batches, 3)] == [3, 9, 30]
    assert len(grid.of_all_lengths(batches, 24)) == 5


def test_weights_that_were_kept_are_rounded_to_themselves():
    torch.manual_seed(4)
    student = Albert(len(LABELS)).eval()
    roundings = grid.roundings_of(student, [Batch.of([([2, 40, 50, 60, 3], 0, 1.0, 0)])], "cpu")
    grid.keep_rounded(student, roundings)
    kept = {name: values.clone() for name, values in student.state_dict().items()}
    grid.keep_rounded(student, roundings)
    for name, values in student.state_dict().items():
        torch.testing.assert_close(values, kept[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("site", SITES)
def test_on_the_grid_a_student_computes_what_its_int8_graphs_compute(tmp_path, site):
    torch.manual_seed(3)
    student = Albert(len(LABELS)).eval()
    texts = [[2, *range(10 + place, 20 + 2 * place), 3] for place in range(8)]
    batches = [Batch.of([(ids, 0, 1.0, 0)]) for ids in texts]
    grid.write(tmp_path / "roundings.json", grid.roundings_of(student, batches, "cpu"))
    roundings = grid.read(tmp_path / "roundings.json")
    assert len(roundings) == len(SITES) * len(networks.SOURCE_LAYERS)
    # One site and one pass: after more of them most values fall on either side of a step.
    others = frozenset(SITES) - {site}
    model = checkpoint_model(student, LABELS)
    state = {name: values.numpy() for name, values in model.state_dict().items()}
    network = network_from(state, model.config, "gelu_tanh")
    served = runtime.served(folder_graphs(network, Plan(roundings, others | {"word_table"}), with_unrolled=False), 1)
    rounding = grid.on_grid(roundings)

    def product(layer, own, *inputs):
        return (rounding if own == site else networks.plain)(layer, own, *inputs)

    from_float, from_graphs = [], []
    for ids, batch in zip(texts, batches):
        input_ids = numpy.array([ids])
        graphs = served(input_ids, numpy.zeros_like(input_ids), numpy.array([len(ids)], numpy.int32))
        with torch.inference_mode():
            exact = student(*batch.inputs("cpu"))[1][0].numpy()
            with student.computing(product):
                rounded = student(*batch.inputs("cpu"))[1][0].numpy()
        from_float.append(numpy.abs(rounded - exact).mean())
        from_graphs.append(numpy.abs(rounded - graphs).mean())
    assert numpy.mean(from_graphs) < 0.5 * numpy.mean(from_float)


def test_frequent_words_are_kept_best():
    source = teacher()
    with torch.no_grad():
        # Frequent words lie in a small space, as they would after training.
        source.bert.embeddings.word_embeddings.weight[:200, 64:] = 0
        source.bert.embeddings.position_embeddings.weight[:, 64:] = 0
    frequencies = torch.ones(networks.VOCABULARY_SIZE)
    state = {name.removeprefix("bert."): value for name, value in source.state_dict().items()}
    even = networks.Embedding.of(state, frequencies).explained
    frequencies[:200] = 1e6
    assert networks.Embedding.of(state, frequencies).explained > even + 0.1
