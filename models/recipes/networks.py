"""The recipes' networks: the BERT teachers read from the ONNX files of sentence encoders, and the ALBERT student.

The student is written out rather than imported, so that every pass gives its hidden states and logits; `checkpoint_model` gives
transformers' own.
"""

import contextlib
import functools
import math
from dataclasses import dataclass

import numpy
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional
from transformers import AlbertConfig, AlbertForSequenceClassification, BertConfig, BertForSequenceClassification

HIDDEN_SIZE = 384
HEADS = 12
INTERMEDIATE_SIZE = 1536
TEACHER_LAYERS = 12
TEACHER_POSITIONS = 512
NORM_EPSILON = 1e-12

# Sentence encoders of one shape and one vocabulary that the teachers start from: names of their files. The student starts from
# layers of the first.
ENCODERS = ("bge-small-en-v1.5", "e5-small-v2")

# Of the teachers' hidden states; without it three times through the labelled texts are too many.
TEACHER_DROPOUT = 0.1

# The student. In int8 the graphs take 11.8 MB: 4.0 the words, 0.3 positions and projection, 7.1 the layers, 0.3 the head.
VOCABULARY_SIZE = 15500
EMBEDDING_SIZE = 256
MAX_POSITIONS = 256

# Its layers start from these of the teacher. A pass goes through one of them, each in turn.
SOURCE_LAYERS = (0, 1, 2, 3)
PASSES = 8


def teacher_network(labels):
    """An untrained classifier of the encoders' shape."""
    config = BertConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=TEACHER_LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INTERMEDIATE_SIZE,
        max_position_embeddings=TEACHER_POSITIONS,
        num_labels=labels,
        hidden_dropout_prob=TEACHER_DROPOUT,
        attention_probs_dropout_prob=0.0,
        classifier_dropout=0.1,
    )
    # On a CPU its backward pass is the fast one; on a GPU that of `scaled_dot_product_attention` gave NaN in bfloat16 for batches
    # of 64 tokens a row.
    config._attn_implementation = "eager"
    return BertForSequenceClassification(config)


def read_encoder(onnx_path):
    """Weights of an encoder by transformers' names, as numpy arrays."""
    initializers = onnx.load(onnx_path).graph.initializer
    weights = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in initializers}
    # The export gives matrix products running numbers, six to a layer and in this order.
    products = sorted((name for name in weights if "MatMul" in name), key=lambda name: int(name.split("_")[-1]))
    order = [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ]
    if len(products) != TEACHER_LAYERS * len(order):
        wanted = TEACHER_LAYERS * len(order)
        raise ValueError(f"expected {wanted} matrix products in `{onnx_path}`, found {len(products)}")
    for index, name in enumerate(products):
        layer, part = divmod(index, len(order))
        weights[f"encoder.layer.{layer}.{order[part]}.weight"] = weights.pop(name).T.copy()
    return {name: value for name, value in weights.items() if name.split(".")[0] in ("embeddings", "encoder")}


def teacher_of(weights, labels):
    """A teacher with an encoder's weights; pooler and classifier start untrained."""
    network = teacher_network(labels)
    state = network.state_dict()
    state |= {
        "bert." + name: torch.as_tensor(value).float() for name, value in weights.items() if "bert." + name in state
    }
    network.load_state_dict(state)
    # Fine-tuning a few thousand frequent rows would shift them against all others, and costs a third of a step.
    network.bert.embeddings.requires_grad_(False)
    return network


class Teachers(nn.Module):
    """Several teachers as one: the mean of their logits, and the hidden states of the first."""

    def __init__(self, networks):
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, input_ids, mask):
        """Hidden states of the embedding and after every layer, and logits."""
        first, *others = (
            network(input_ids, attention_bias(mask).to(network.dtype), output_hidden_states=place == 0)
            for place, network in enumerate(self.networks)
        )
        return first.hidden_states, sum((other.logits for other in others), first.logits) / len(self.networks)


# What the projection is fitted on: windows are seldom longer, and more samples change nothing.
POSITIONS_FITTED = 128
SAMPLES_FITTED = 40000


def attend(query, key, value, bias):
    """Scaled dot-product attention, as the teachers compute it."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(HIDDEN_SIZE // HEADS) + bias
    return scores.softmax(-1).to(value.dtype) @ value


def attention_bias(mask):
    """What is added to attention's scores: 0 for real tokens and very negative for padding, shape [batch, 1, 1, sequence]."""
    return (1.0 - mask[:, None, None, :].float()) * -10000.0


def plain(_layer, _site, linear, values):
    """A linear of a layer as it stands; `grid.on_grid` gives another way to compute it."""
    return linear(values)


class Layer(nn.Module):
    """One layer of the student."""

    def __init__(self):
        super().__init__()
        self.attention = nn.Linear(HIDDEN_SIZE, 3 * HIDDEN_SIZE)
        self.attention_output = nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE)
        self.attention_norm = nn.LayerNorm(HIDDEN_SIZE, eps=NORM_EPSILON)
        self.ffn = nn.Linear(HIDDEN_SIZE, INTERMEDIATE_SIZE)
        self.ffn_output = nn.Linear(INTERMEDIATE_SIZE, HIDDEN_SIZE)
        self.output_norm = nn.LayerNorm(HIDDEN_SIZE, eps=NORM_EPSILON)

    def forward(self, hidden, bias, product):
        """`bias` as of `attention_bias`; `product(site, linear, values)` computes the linears, see `plain`."""
        batch, sequence, _ = hidden.shape
        packed = product("attention", self.attention, hidden).view(batch, sequence, 3, HEADS, HIDDEN_SIZE // HEADS)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        context = attend(query, key, value, bias).transpose(1, 2).reshape(batch, sequence, HIDDEN_SIZE)
        attended = self.attention_norm(hidden + product("attention_output", self.attention_output, context))
        inner = functional.gelu(product("ffn", self.ffn, attended), approximate="tanh")
        return self.output_norm(attended + product("ffn_output", self.ffn_output, inner))


class Albert(nn.Module):
    """ALBERT: a factorised embedding, one group of layers that is applied again and again, and a pooled classifier."""

    def __init__(self, labels):
        super().__init__()
        self.word = nn.Embedding(VOCABULARY_SIZE, EMBEDDING_SIZE)
        self.position = nn.Embedding(MAX_POSITIONS, EMBEDDING_SIZE)
        self.token_type = nn.Embedding(2, EMBEDDING_SIZE)
        self.embedding_norm = nn.LayerNorm(EMBEDDING_SIZE, eps=NORM_EPSILON)
        self.projection = nn.Linear(EMBEDDING_SIZE, HIDDEN_SIZE)
        self.layers = nn.ModuleList(Layer() for _ in SOURCE_LAYERS)
        self.pooler = nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE)
        self.classifier = nn.Linear(HIDDEN_SIZE, labels)
        self.product = plain

    @contextlib.contextmanager
    def computing(self, product):
        """For as long as the block lasts, the layers' linears are computed by `product(layer, site, linear, values)`."""
        before, self.product = self.product, product
        try:
            yield
        finally:
            self.product = before

    def embed(self, input_ids, token_type_ids):
        """Hidden states before the first pass."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        total = self.word(input_ids) + self.position(positions) + self.token_type(token_type_ids)
        return self.projection(self.embedding_norm(total))

    def head(self, hidden):
        """Logits from the first token."""
        return self.classifier(torch.tanh(self.pooler(hidden[:, 0])))

    def forward(self, input_ids, attention_mask):
        """Hidden states of the embedding and after every pass, and the logits after every pass."""
        bias = attention_bias(attention_mask)
        states = [self.embed(input_ids, torch.zeros_like(input_ids))]
        for number in range(PASSES):
            index = number % len(self.layers)
            states.append(self.layers[index](states[-1], bias, functools.partial(self.product, index)))
        return states, [self.head(state) for state in states[1:]]


# What lies side by side in a layer's `attention`, and the teacher's names of a layer's other parts.
PACKED = ("query", "key", "value")
TEACHER_NAMES = {
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn": "intermediate.dense",
    "ffn_output": "output.dense",
    "output_norm": "output.LayerNorm",
}


def albert_from_teacher(teacher, frequencies):
    """A student that starts from the teacher: principal components of its word table, by how often a word occurs
    (`frequencies`), and some of its layers.
    """
    student = Albert(teacher.config.num_labels)
    state = {name.removeprefix("bert."): value for name, value in teacher.state_dict().items()}
    embedding = Embedding.of(state, frequencies)
    with torch.no_grad():
        student.word.weight.copy_(embedding.word)
        student.position.weight.copy_(embedding.position[:MAX_POSITIONS])
        student.token_type.weight.zero_()
        student.projection.weight.copy_(embedding.projection.T)
        student.projection.bias.copy_(embedding.bias)
        for kind in ("weight", "bias"):
            getattr(student.pooler, kind).copy_(state[f"pooler.dense.{kind}"])
            getattr(student.classifier, kind).copy_(state[f"classifier.{kind}"])
            for index, layer in zip(SOURCE_LAYERS, student.layers):
                for part, name in TEACHER_NAMES.items():
                    getattr(getattr(layer, part), kind).copy_(state[f"encoder.layer.{index}.{name}.{kind}"])
                packed = [state[f"encoder.layer.{index}.attention.self.{name}.{kind}"] for name in PACKED]
                getattr(layer.attention, kind).copy_(torch.cat(packed))
    return student


@dataclass(frozen=True)
class Embedding:
    """The teacher's embedding, factorised."""

    word: torch.Tensor
    position: torch.Tensor
    projection: torch.Tensor
    bias: torch.Tensor
    # Share of the teacher's normalised embedding that is kept, word by word as often as it occurs.
    explained: float

    @classmethod
    def of(cls, state, frequencies):
        """Principal components of words and positions, and the least-squares way back to the teacher's embedding."""
        table = state["embeddings.word_embeddings.weight"].double()
        table = table + state["embeddings.token_type_embeddings.weight"][0].double()
        positions = state["embeddings.position_embeddings.weight"].double()
        # Every word counts a little, however rare.
        share = torch.as_tensor(frequencies).double() + 1
        share = share / share.sum()
        centre = (table * share[:, None]).sum(0)
        words = table - centre
        covariance = (words * share[:, None]).T @ words
        near = positions[:POSITIONS_FITTED]
        covariance += (near - near.mean(0)).T @ (near - near.mean(0)) / len(near)
        components = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :EMBEDDING_SIZE]
        word, position = words @ components, (positions - near.mean(0)) @ components
        generator = torch.Generator().manual_seed(1)
        rows = torch.multinomial(share, SAMPLES_FITTED, replacement=True, generator=generator)
        places = torch.randint(0, POSITIONS_FITTED, (SAMPLES_FITTED,), generator=generator)
        norm = (state["embeddings.LayerNorm.weight"].double(), state["embeddings.LayerNorm.bias"].double())
        wanted = functional.layer_norm(table[rows] + positions[places], (HIDDEN_SIZE,), *norm)
        given = functional.layer_norm(word[rows] + position[places], (EMBEDDING_SIZE,))
        given = torch.cat([given, torch.ones(len(given), 1, dtype=torch.double)], 1)
        # Normalised columns sum to zero; without the cut-off that direction gets weights that only float64 can cancel.
        solution = torch.from_numpy(numpy.linalg.lstsq(given.numpy(), wanted.numpy(), rcond=1e-4)[0])
        left = (given @ solution - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
        parts = (word, position, solution[:EMBEDDING_SIZE], solution[EMBEDDING_SIZE])
        return cls(*(part.float() for part in parts), 1 - left.item())


def frozen(network, checkpoint):
    """A network with the weights of a checkpoint of training, no longer to be trained."""
    network.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["network"])
    return network.eval().requires_grad_(False)


def checkpoint_model(student, labels):
    """The student as transformers' AlbertForSequenceClassification, which `albertine_models` converts."""
    config = AlbertConfig(
        vocab_size=VOCABULARY_SIZE,
        embedding_size=EMBEDDING_SIZE,
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=PASSES // len(SOURCE_LAYERS),
        inner_group_num=len(SOURCE_LAYERS),
        num_attention_heads=HEADS,
        intermediate_size=INTERMEDIATE_SIZE,
        max_position_embeddings=MAX_POSITIONS,
        layer_norm_eps=NORM_EPSILON,
        hidden_act="gelu_new",
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    model = AlbertForSequenceClassification(config)
    parts = [
        (model.albert.embeddings.LayerNorm, student.embedding_norm),
        (model.albert.encoder.embedding_hidden_mapping_in, student.projection),
        (model.albert.pooler, student.pooler),
        (model.classifier, student.classifier),
    ]
    layers = list(zip(model.albert.encoder.albert_layer_groups[0].albert_layers, student.layers))
    for theirs, own in layers:
        parts += [
            (theirs.attention.dense, own.attention_output),
            (theirs.attention.LayerNorm, own.attention_norm),
            (theirs.ffn, own.ffn),
            (theirs.ffn_output, own.ffn_output),
            (theirs.full_layer_layer_norm, own.output_norm),
        ]
    with torch.no_grad():
        model.albert.embeddings.word_embeddings.weight.copy_(student.word.weight)
        model.albert.embeddings.position_embeddings.weight.copy_(student.position.weight)
        model.albert.embeddings.token_type_embeddings.weight.copy_(student.token_type.weight)
        for kind in ("weight", "bias"):
            for theirs, own in layers:
                for name, values in zip(PACKED, getattr(own.attention, kind).chunk(len(PACKED))):
                    getattr(getattr(theirs.attention, name), kind).copy_(values)
            for theirs, own in parts:
                getattr(theirs, kind).copy_(getattr(own, kind))
    return model.eval()
