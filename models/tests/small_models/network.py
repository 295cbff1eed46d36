"""A very small ALBERT in numpy: the reference that the graphs of the small models are compared with.

It follows the paper (Lan et al., 2020) with ReLU for the activation, and shares no code with the graphs.
"""

from dataclasses import dataclass, field

import numpy as np

EMBEDDING_SIZE = 6
HIDDEN_SIZE = 8
HEADS = 2
INTERMEDIATE_SIZE = 12
POSITIONS = 32
TOKEN_TYPES = 2
EPSILON = 1e-12


@dataclass
class Network:
    """Weights by name; those of a layer once for each group."""

    weights: dict
    groups: list
    passes: int
    # Whether the groups take turns, pass by pass.
    in_turn: bool = False
    # What each product of a layer was given, over all texts so far: for static activation scales.
    seen: list = field(default_factory=list)

    @staticmethod
    def random(generator, vocabulary_size, labels, groups, passes, in_turn):
        """Weights large enough that a text's label depends on its words."""

        def normal(*shape, scale=1.0):
            return generator.normal(0, scale, shape).astype(np.float32)

        def norm(name, size):
            return {f"{name}_weight": 1 + normal(size, scale=0.1), f"{name}_bias": normal(size, scale=0.1)}

        def layer():
            square = (HIDDEN_SIZE, HIDDEN_SIZE)
            weights = {name: normal(*square, scale=0.6) for name in ("query", "key", "value", "attention_output")}
            weights |= {f"{name}_bias": normal(HIDDEN_SIZE, scale=0.1) for name in list(weights)}
            weights |= {"ffn": normal(HIDDEN_SIZE, INTERMEDIATE_SIZE, scale=0.5)}
            weights |= {"ffn_bias": normal(INTERMEDIATE_SIZE, scale=0.1)}
            weights |= {"ffn_output": normal(INTERMEDIATE_SIZE, HIDDEN_SIZE, scale=0.5)}
            weights |= {"ffn_output_bias": normal(HIDDEN_SIZE, scale=0.1)}
            return weights | norm("attention_norm", HIDDEN_SIZE) | norm("output_norm", HIDDEN_SIZE)

        weights = {
            "words": normal(vocabulary_size, EMBEDDING_SIZE),
            "positions": normal(POSITIONS, EMBEDDING_SIZE, scale=0.2),
            "token_types": normal(TOKEN_TYPES, EMBEDDING_SIZE, scale=0.5),
            **norm("embedding_norm", EMBEDDING_SIZE),
            "projection": normal(EMBEDDING_SIZE, HIDDEN_SIZE, scale=0.6),
            "projection_bias": normal(HIDDEN_SIZE, scale=0.1),
            "pooler": normal(HIDDEN_SIZE, HIDDEN_SIZE, scale=0.5),
            "pooler_bias": normal(HIDDEN_SIZE, scale=0.1),
            "classifier": normal(HIDDEN_SIZE, labels, scale=2.0),
            "classifier_bias": np.zeros(labels, np.float32),
        }
        return Network(weights, [layer() for _ in range(groups)], passes, in_turn)

    def group_of(self, index):
        """The group of the layer at this depth: in turn, or each for its part of the depth."""
        if self.in_turn:
            return index % len(self.groups)
        return index * len(self.groups) // self.passes

    def logits(self, ids, token_types):
        """Logits of one sequence, in float64."""
        weights = self.weights
        embedding = weights["words"][ids] + weights["positions"][: len(ids)] + weights["token_types"][token_types]
        hidden = normalised(embedding.astype(np.float64), weights, "embedding_norm")
        hidden = hidden @ weights["projection"] + weights["projection_bias"]
        for index in range(self.passes):
            hidden = self.layer(hidden, self.groups[self.group_of(index)])
        pooled = np.tanh(hidden[0] @ weights["pooler"] + weights["pooler_bias"])
        return pooled @ weights["classifier"] + weights["classifier_bias"]

    def layer(self, hidden, weights):
        """One layer on [sequence, hidden]."""
        context = attention(hidden, weights)
        attended = hidden + context @ weights["attention_output"] + weights["attention_output_bias"]
        attended = normalised(attended, weights, "attention_norm")
        inner = np.maximum(attended @ weights["ffn"] + weights["ffn_bias"], 0)
        self.seen.append({"attention": hidden, "attention_output": context, "ffn": attended, "ffn_output": inner})
        return normalised(attended + inner @ weights["ffn_output"] + weights["ffn_output_bias"], weights, "output_norm")


def attention(hidden, weights):
    """Multi-head attention without its output projection."""
    size = HIDDEN_SIZE // HEADS
    query, key, value = (hidden @ weights[name] + weights[f"{name}_bias"] for name in ("query", "key", "value"))
    heads = []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / np.sqrt(size)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(shares / shares.sum(axis=1, keepdims=True) @ value[:, part])
    return np.concatenate(heads, axis=1)


def normalised(values, weights, name):
    """Layer normalisation over the last axis."""
    centred = values - values.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
    return centred / deviation * weights[f"{name}_weight"] + weights[f"{name}_bias"]
