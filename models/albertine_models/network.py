"""An ALBERT classifier as plain arrays: what the graph builder needs, and nothing of torch.

Matrices are float32 [inputs, outputs], as ONNX multiplies them. `Network.order` names the layer of every pass, so
that one shared layer, hidden groups and inner groups are the same thing with more or fewer distinct layers.
"""

from dataclasses import dataclass

import numpy
from numpy import ndarray

# Inputs of a layer's four products; what quantisation decides, it decides for each of them.
SITES = ("attention", "attention_output", "ffn", "ffn_output")


@dataclass(frozen=True)
class Linear:
    """`values @ weight + bias`."""

    weight: ndarray
    bias: ndarray


@dataclass(frozen=True)
class Norm:
    """Scale and shift of a layer normalisation."""

    weight: ndarray
    bias: ndarray


@dataclass(frozen=True)
class Embedding:
    """The factorised embedding: three tables [rows, embedding size], a normalisation, and the way up to hidden size."""

    word: ndarray
    position: ndarray
    token_type: ndarray
    norm: Norm
    projection: Linear


@dataclass(frozen=True)
class Layer:
    """One distinct transformer layer; `attention` holds query, key and value side by side."""

    attention: Linear
    attention_output: Linear
    attention_norm: Norm
    ffn: Linear
    ffn_output: Linear
    output_norm: Norm


@dataclass(frozen=True)
class Head:
    """First token through a tanh pooler to the labels."""

    pooler: Linear
    classifier: Linear


@dataclass(frozen=True)
class Network:
    """All weights, the layers' order, and the three constants of the shape that arrays do not show."""

    embedding: Embedding
    layers: tuple[Layer, ...]
    order: tuple[int, ...]
    head: Head
    heads: int
    activation: str
    norm_epsilon: float

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self.embedding.projection.weight.shape[1]

    def weight_of(self, layer: int, site: str) -> ndarray:
        """The weight of one product."""
        return getattr(self.layers[layer], site).weight

    @property
    def labels(self) -> int:
        """Number of logits."""
        return self.head.classifier.weight.shape[1]

    @property
    def splittable(self) -> bool:
        """Whether the layers are called in turn, the first behind the last: then each is a graph of its own."""
        turns, rest = divmod(len(self.order), len(self.layers))
        return rest == 0 and self.order == tuple(range(len(self.layers))) * turns


def linear(state: dict[str, ndarray], *names: str) -> Linear:
    """One Linear of a checkpoint, or several packed side by side; checkpoints store [outputs, inputs]."""
    weight = numpy.concatenate([state[f"{name}.weight"] for name in names])
    bias = numpy.concatenate([state[f"{name}.bias"] for name in names])
    return Linear(numpy.ascontiguousarray(weight.T), bias)


def norm(state: dict[str, ndarray], name: str) -> Norm:
    """One LayerNorm of a checkpoint."""
    return Norm(state[f"{name}.weight"], state[f"{name}.bias"])


def layer_from(state: dict[str, ndarray], name: str) -> Layer:
    """The layer whose weights begin with `name`."""
    attention = f"{name}.attention"
    return Layer(
        attention=linear(state, f"{attention}.query", f"{attention}.key", f"{attention}.value"),
        attention_output=linear(state, f"{attention}.dense"),
        attention_norm=norm(state, f"{attention}.LayerNorm"),
        ffn=linear(state, f"{name}.ffn"),
        ffn_output=linear(state, f"{name}.ffn_output"),
        output_norm=norm(state, f"{name}.full_layer_layer_norm"),
    )


def layer_order(config) -> tuple[int, ...]:
    """Distinct layer of every pass, numbered group by group, as transformers' AlbertTransformer walks them."""
    order = []
    for step in range(config.num_hidden_layers):
        group = int(step / (config.num_hidden_layers / config.num_hidden_groups))
        order += [group * config.inner_group_num + inner for inner in range(config.inner_group_num)]
    return tuple(order)


def network_from(state: dict[str, ndarray], config, activation: str) -> Network:
    """The network of a checkpoint's arrays; `config` is its AlbertConfig."""
    embeddings = "albert.embeddings"
    return Network(
        embedding=Embedding(
            word=state[f"{embeddings}.word_embeddings.weight"],
            position=state[f"{embeddings}.position_embeddings.weight"],
            token_type=state[f"{embeddings}.token_type_embeddings.weight"],
            norm=norm(state, f"{embeddings}.LayerNorm"),
            projection=linear(state, "albert.encoder.embedding_hidden_mapping_in"),
        ),
        layers=tuple(
            layer_from(state, f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}")
            for group in range(config.num_hidden_groups)
            for inner in range(config.inner_group_num)
        ),
        order=layer_order(config),
        head=Head(linear(state, "albert.pooler"), linear(state, "classifier")),
        heads=config.num_attention_heads,
        activation=activation,
        norm_epsilon=config.layer_norm_eps,
    )
