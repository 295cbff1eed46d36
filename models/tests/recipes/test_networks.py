"""The student is ALBERT as transformers has it, and begins as a summary of the teacher."""

import torch

import networks
from networks import Albert, albert_from_teacher, checkpoint_model, teacher_network

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
        own = student(input_ids, mask)[1][-1]
        theirs = checkpoint_model(student, LABELS)(input_ids=input_ids, attention_mask=mask).logits
    torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-5)


def test_the_student_starts_from_blocks_of_the_teacher():
    source = teacher()
    student = albert_from_teacher(source, torch.arange(networks.VOCABULARY_SIZE))
    block = source.bert.encoder.layer[networks.SOURCE_LAYERS[1]]
    size = networks.TEACHER_INTERMEDIATE_SIZE
    torch.testing.assert_close(student.ffn.weight[size : 2 * size], block.intermediate.dense.weight)
    shares = student.ffn_output.weight[:, size : 2 * size] * len(networks.SOURCE_LAYERS)
    torch.testing.assert_close(shares, block.output.dense.weight)


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
