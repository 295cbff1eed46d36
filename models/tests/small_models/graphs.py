"""The small models as ONNX graphs, with the operators that converted models have."""

import numpy as np
from network import EPSILON, HEADS, HIDDEN_SIZE
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
IDS = [(name, TensorProto.INT64, ["batch", "sequence"]) for name in ("input_ids", "token_type_ids")]
HIDDEN = ["batch", "sequence", HIDDEN_SIZE]
LENGTHS = ("lengths", TensorProto.INT32, ["batch"])
# 7 bits: products of two with an 8-bit activation cannot saturate 16.
WEIGHT_STEPS = 63


class Builder:
    """Operators and weights of one graph; a weight that is named again is the same."""

    def __init__(self):
        self.nodes, self.weights = [], {}

    def weight(self, name, values):
        self.weights.setdefault(name, numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, operator, inputs, output, domain="", **attributes):
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def model(self, name, inputs, output):
        values = [helper.make_tensor_value_info(*value) for value in [*inputs, output]]
        graph = helper.make_graph(self.nodes, name, values[:-1], values[-1:], list(self.weights.values()))
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="albertine")


def embed(builder, network, output):
    """`input_ids`, `token_type_ids` -> hidden states."""
    weights = network.weights
    for name in ("words", "positions", "token_types", "projection", "projection_bias"):
        builder.weight(name, weights[name])
    builder.add("Gather", ["words", "input_ids"], "word_rows")
    builder.add("Gather", ["token_types", "token_type_ids"], "type_rows")
    builder.add("Shape", ["input_ids"], "length", start=1, end=2)
    builder.add("Slice", ["positions", builder.weight("start", np.array([0])), "length"], "position_rows")
    builder.add("Add", ["word_rows", "position_rows"], "placed")
    builder.add("Add", ["placed", "type_rows"], "typed")
    norm = [builder.weight(f"embedding_norm_{part}", weights[f"embedding_norm_{part}"]) for part in ("weight", "bias")]
    builder.add("LayerNormalization", ["typed", *norm], "normal", epsilon=EPSILON)
    builder.add("MatMul", ["normal", "projection"], "projected")
    builder.add("Add", ["projected", "projection_bias"], output)


def layer(builder, weights, names, scales=None):
    """One layer; `names` are its input, its output and what its weights and values begin with. With `scales` in int8."""
    source, output, group, step = names
    product = Product(builder, weights, scales, group, step)
    context = product.attention(source)
    attended = product.of("attention_output", context)
    attended = skip_norm(builder, weights, (attended, source), ("attention_norm", group), f"{step}attended")
    inner = builder.add("Relu", [product.of("ffn", attended)], f"{step}inner")
    skip_norm(builder, weights, (product.of("ffn_output", inner), attended), ("output_norm", group), output)


def skip_norm(builder, weights, inputs, name, output):
    name, group = name
    norm = [builder.weight(f"{group}{name}_{part}", weights[f"{name}_{part}"]) for part in ("weight", "bias")]
    return builder.add("SkipLayerNormalization", [*inputs, *norm], output, MICROSOFT, epsilon=EPSILON)


class Product:
    """The products of a layer, in float32, or with `scales` in int8; `"dynamic"` in place of scales takes them anew."""

    def __init__(self, builder, weights, scales, group, step):
        self.builder, self.weights, self.scales, self.group, self.step = builder, weights, scales, group, step

    def attention(self, source):
        packed = np.concatenate([self.weights[name] for name in ("query", "key", "value")], axis=1)
        bias = np.concatenate([self.weights[f"{name}_bias"] for name in ("query", "key", "value")])
        bias, output = self.builder.weight(f"{self.group}attention_bias", bias), f"{self.step}context"
        attributes = {"domain": MICROSOFT, "num_heads": HEADS}
        if self.scales is None:
            inputs = [source, self.builder.weight(f"{self.group}attention", packed), bias, "lengths"]
            return self.builder.add("Attention", inputs, output, **attributes)
        steps, weight, zeros = self.quantised("attention", source, packed)
        inputs = [steps[0], weight[0], bias, steps[1], weight[1], "lengths", steps[2], zeros]
        return self.builder.add("QAttention", inputs, output, **attributes)

    def of(self, name, source):
        bias = self.builder.weight(f"{self.group}{name}_bias", self.weights[f"{name}_bias"])
        output = f"{self.step}{name}_result"
        if self.scales is None:
            weight = self.builder.weight(f"{self.group}{name}", self.weights[name])
            product = self.builder.add("MatMul", [source, weight], f"{self.step}{name}_product")
            return self.builder.add("Add", [product, bias], output)
        steps, weight, zeros = self.quantised(name, source, self.weights[name])
        inputs = [steps[0], weight[0], steps[1], weight[1], steps[2], zeros, bias]
        return self.builder.add("MatMulIntegerToFloat", inputs, output, MICROSOFT)

    def quantised(self, name, source, weight):
        """Activation and weight, each as steps and scale; the zeros of the weight."""
        builder, group = self.builder, self.group
        column_scales = (np.abs(weight).max(axis=0) / WEIGHT_STEPS).astype(np.float32)
        weight_steps = np.round(weight / column_scales).astype(np.int8)
        stored = builder.weight(f"{group}{name}", weight_steps), builder.weight(f"{group}{name}_scales", column_scales)
        zeros = builder.weight(f"{group}{name}_zeros", np.zeros(len(column_scales), np.int8))
        results = [f"{self.step}{name}_{part}" for part in ("steps", "scale", "zero")]
        if self.scales == "dynamic":
            builder.nodes.append(helper.make_node("DynamicQuantizeLinear", [source], results))
            return results, stored, zeros
        scale, zero = self.scales[name]
        fixed = [builder.weight(f"{group}{name}_scale", scale), builder.weight(f"{group}{name}_zero", zero)]
        return [builder.add("QuantizeLinear", [source, *fixed], results[0]), *fixed], stored, zeros


def head(builder, network, source):
    """Hidden states -> `logits`, from the first token."""
    weights = network.weights
    builder.add("Gather", [source, builder.weight("first", np.array(0))], "first_token", axis=1)
    pooler = [builder.weight(name, weights[name]) for name in ("pooler", "pooler_bias")]
    builder.add("Gemm", ["first_token", *pooler], "pooled")
    builder.add("Tanh", ["pooled"], "active")
    classifier = [builder.weight(name, weights[name]) for name in ("classifier", "classifier_bias")]
    builder.add("Gemm", ["active", *classifier], "logits")


def static_scales(seen, shrink=1.0):
    """Scale and zero of each activation, from all values it had; `shrink` below 1 cuts the range off."""
    scales = {}
    for name in seen[0]:
        values = np.concatenate([values[name].ravel() for values in seen])
        low, high = min(values.min() * shrink, 0), max(values.max() * shrink, 0)
        scale = np.float32((high - low) / 255)
        scales[name] = scale, np.uint8(round(-low / scale))
    return scales


def stepped(network, scales):
    """The graphs by name: one for each distinct layer."""
    labels = network.weights["classifier"].shape[1]
    hidden, output = ("hidden", TensorProto.FLOAT, HIDDEN), ("hidden_out", TensorProto.FLOAT, HIDDEN)
    names = ["layer"] if len(network.groups) == 1 else [f"layer{index + 1}" for index in range(len(network.groups))]
    parts = {name: Builder() for name in ("embed", *names, "head")}
    embed(parts["embed"], network, "hidden")
    for name, group in zip(names, network.groups):
        layer(parts[name], group, ("hidden", "hidden_out", "", ""), scales)
    head(parts["head"], network, "hidden")
    layers = {name: parts[name].model(name, [hidden, LENGTHS], output) for name in names}
    return {
        "embed": parts["embed"].model("embed", IDS, hidden),
        **layers,
        "head": parts["head"].model("head", [hidden], ("logits", TensorProto.FLOAT, ["batch", labels])),
    }


def unrolled(network, scales):
    """The network as one graph."""
    builder, source = Builder(), "hidden_0"
    embed(builder, network, source)
    for index in range(network.passes):
        group = network.group_of(index)
        names = (source, f"hidden_{index + 1}", f"group_{group}_", f"layer_{index}_")
        layer(builder, network.groups[group], names, scales)
        source = names[1]
    head(builder, network, source)
    labels = network.weights["classifier"].shape[1]
    return builder.model("model", [*IDS, LENGTHS], ("logits", TensorProto.FLOAT, ["batch", labels]))
