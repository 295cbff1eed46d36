"""A Hugging Face checkpoint, and its usual int8 export, from an int8 model folder.

The float32 weights of a model folder need not be kept anywhere, so they are taken from its graphs: each 8-bit weight
times its scale is a float32 weight that computes the same. So every peer runs the network that albertine runs.
"""

import argparse
import json
import tomllib
from pathlib import Path

import classifier
import numpy
import onnx
import torch
from onnx import helper, numpy_helper
from transformers import AlbertConfig, AlbertForSequenceClassification, PreTrainedTokenizerFast

# Operator in the layer's graph -> name of the activation in a checkpoint.
ACTIVATIONS = {"FastGelu": "gelu_new", "Gelu": "gelu", "BiasGelu": "gelu", "Relu": "relu"}

# What tokenizers of ALBERTs and BERTs call their special tokens.
SPECIAL_TOKENS = {
    "[CLS]": "cls_token",
    "[SEP]": "sep_token",
    "[PAD]": "pad_token",
    "[UNK]": "unk_token",
    "[MASK]": "mask_token",
    "<pad>": "pad_token",
    "<unk>": "unk_token",
}

LAYERS = "albert.encoder.albert_layer_groups.0.albert_layers"


class Graph:
    """Nodes and weights of one graph, or of several that share no name."""

    def __init__(self, *files: Path):
        self.nodes, self.weights = [], {}
        for file in files:
            graph = onnx.load(file).graph
            self.nodes += graph.node
            # What stands outside the layers is stored in float16 and cast.
            stored = {one.name.removesuffix("_float16"): numpy_helper.to_array(one) for one in graph.initializer}
            self.weights |= stored

    def attribute(self, kinds: set[str], name: str, default=None):
        """An attribute of the first node that is of one of these kinds and has it."""
        for node in self.nodes:
            for attribute in node.attribute:
                if node.op_type in kinds and attribute.name == name:
                    return helper.get_attribute_value(attribute)
        return default

    def weight(self, name: str, scales: str | None = None) -> numpy.ndarray:
        """A weight in float32, dequantised where it has scales."""
        values = self.weights[name].astype(numpy.float32)
        factors = self.weights.get(scales or f"{name}_scales")
        return values if factors is None else values * factors

    def norm(self, name: str) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Scale and shift of a normalisation."""
        return self.weight(f"{name}_weight"), self.weight(f"{name}_bias")

    def dense(self, name: str) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Weight and bias of a linear step of the layers; a checkpoint holds the weight transposed."""
        weight = self.weight(f"{name}_weight")
        # What the weights took up from the channels that were evened out.
        factors = self.weights.get(f"{name}_channel_factors")
        return (weight if factors is None else weight * factors[:, None]).T, self.weight(f"{name}_bias")

    def head(self, name: str) -> tuple[numpy.ndarray, numpy.ndarray]:
        """The same of the head, whose nodes may hold the weight either way."""
        node = next(node for node in self.nodes if f"{name}_weight" in node.input)
        transposed = any(one.name == "transB" and one.i for one in node.attribute)
        weight = self.weight(f"{name}_weight")
        return weight if transposed else weight.T, self.weight(f"{name}_bias")

    def epsilon(self) -> float:
        """What normalisations add to the variance."""
        if "norm_epsilon" in self.weights:
            return float(self.weights["norm_epsilon"])
        return self.attribute({"SkipLayerNormalization", "LayerNormalization"}, "epsilon", 1e-12)


def configuration(manifest: dict, ends: Graph, layers: list[Graph], special_ids: dict) -> AlbertConfig:
    """Sizes and names; what the manifest does not say is read from the graphs."""
    first = layers[0]
    activation = next(ACTIVATIONS[node.op_type] for node in first.nodes if node.op_type in ACTIVATIONS)
    labels = dict(enumerate(manifest["labels"]))
    return AlbertConfig(
        vocab_size=manifest["architecture"]["vocabulary_size"],
        embedding_size=ends.weights["word_table"].shape[1],
        hidden_size=manifest["architecture"]["hidden_size"],
        num_hidden_layers=manifest["architecture"]["passes"] // len(layers),
        inner_group_num=len(layers),
        num_attention_heads=first.attribute({"QAttention", "Attention"}, "num_heads"),
        intermediate_size=first.weights["ffn_weight"].shape[1],
        hidden_act=activation,
        max_position_embeddings=ends.weights["position_table"].shape[0],
        type_vocab_size=ends.weights["token_type_table"].shape[0],
        layer_norm_eps=first.epsilon(),
        id2label=labels,
        label2id={label: index for index, label in labels.items()},
        **special_ids,
    )


def ends_state(ends: Graph, temperature: float) -> dict[str, numpy.ndarray]:
    """Weights of the embedding and of the head by their names in a checkpoint."""
    found = {
        "albert.embeddings.word_embeddings.weight": ends.weight("word_table", "word_scales"),
        "albert.embeddings.position_embeddings.weight": ends.weight("position_table"),
        "albert.embeddings.token_type_embeddings.weight": ends.weight("token_type_table"),
    }
    # The classifier gives logits over the temperature, so that a plain softmax gives the folder's probabilities.
    classifier_weight, classifier_bias = ends.head("classifier")
    pairs = {
        "albert.embeddings.LayerNorm": ends.norm("norm"),
        "albert.encoder.embedding_hidden_mapping_in": ends.dense("projection"),
        "albert.pooler": ends.head("pooler"),
        "classifier": (classifier_weight / temperature, classifier_bias / temperature),
    }
    return found | named(pairs)


def layer_state(layer: Graph, name: str, hidden_size: int) -> dict[str, numpy.ndarray]:
    """Weights of a layer by their names in a checkpoint."""
    pairs = {
        f"{name}.attention.LayerNorm": layer.norm("attention_norm"),
        f"{name}.full_layer_layer_norm": layer.norm("output_norm"),
        f"{name}.attention.dense": layer.dense("attention_output"),
        f"{name}.ffn": layer.dense("ffn"),
        f"{name}.ffn_output": layer.dense("ffn_output"),
    }
    # Query, key and value stand side by side in the graph.
    packed_weight, packed_bias = layer.dense("attention")
    for place, part_name in enumerate(("query", "key", "value")):
        part = slice(place * hidden_size, (place + 1) * hidden_size)
        pairs[f"{name}.attention.{part_name}"] = (packed_weight[part], packed_bias[part])
    return named(pairs)


def named(pairs: dict) -> dict[str, numpy.ndarray]:
    """Weight and bias of each by their names."""
    return {f"{name}.{kind}": values for name, both in pairs.items() for kind, values in zip(("weight", "bias"), both)}


def special_tokens(tokenizer: dict) -> dict[str, dict]:
    """Role -> added token."""
    return {
        SPECIAL_TOKENS[token["content"]]: token
        for token in tokenizer["added_tokens"]
        if token["content"] in SPECIAL_TOKENS
    }


def write_checkpoint(folder: Path, output: Path):
    """Writes configuration, weights and tokenizer."""
    manifest = tomllib.loads((folder / "model.toml").read_text())
    if manifest["graphs"]["kind"] != "stepped":
        raise SystemExit(f"{folder} has one graph for all layers; only stepped folders can be read back")
    files = manifest["graphs"]
    ends = Graph(folder / files["embed"], folder / files["head"])
    layers = [Graph(folder / file) for file in files["layers"]]
    tokens = special_tokens(json.loads((folder / "tokenizer.json").read_text()))
    ids = {"cls_token": "bos_token_id", "sep_token": "eos_token_id", "pad_token": "pad_token_id"}
    config = configuration(manifest, ends, layers, {name: tokens[role]["id"] for role, name in ids.items()})
    # Evaluation mode: the export below, and whoever loads the module, must not get dropout.
    model = AlbertForSequenceClassification(config).eval()
    weights = ends_state(ends, manifest["calibration"]["temperature"])
    for place, layer in enumerate(layers):
        weights |= layer_state(layer, f"{LAYERS}.{place}", config.hidden_size)
    # Strict: a weight that is missing or left over is an error.
    model.load_state_dict({name: torch.from_numpy(numpy.array(values)) for name, values in weights.items()})
    model.save_pretrained(output)
    PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        model_max_length=manifest["input"]["max_length"],
        **{role: token["content"] for role, token in tokens.items()},
    ).save_pretrained(output)


def main():
    """Writes the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="model folder, such as models/albert-sentiment")
    parser.add_argument("output", type=Path, help="folder of the checkpoint")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    write_checkpoint(options.folder, options.output)
    classifier.export(options.output)


if __name__ == "__main__":
    main()
