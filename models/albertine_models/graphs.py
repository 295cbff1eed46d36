"""The ONNX graphs of an ALBERT, built node by node, because no optimiser fuses ALBERT's attention.

`embed`, `layer` and `head` are one network in three parts; `whole` is the same nodes in one graph, its layers
unrolled over shared initializers. A site is float32, or int8 with a constant activation scale, or int8 with a scale
that follows the batch: `quantisation.Plan` says which. No graph depends on files beside it.
"""

import numpy
from onnx import ModelProto, TensorProto, helper, numpy_helper

from albertine_models.folder import layer_names
from albertine_models.network import Layer, Linear, Network, Norm
from albertine_models.quantisation import WORD_TABLE, Plan, quantised_columns, quantised_table

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
IR_VERSION = 9
CONTRIB = "com.microsoft"

# Activation of a network -> (operator, domain, whether the operator adds a bias itself).
ACTIVATIONS = {
    "gelu_tanh": ("FastGelu", CONTRIB, True),
    "gelu": ("Gelu", CONTRIB, False),
    "relu": ("Relu", "", False),
}

IDS = [(name, TensorProto.INT64, ["batch", "sequence"]) for name in ("input_ids", "token_type_ids")]
LENGTHS = ("lengths", TensorProto.INT32, ["batch"])


class Builder:
    """Collects nodes and constants of one graph. A constant added twice under one name is stored once."""

    def __init__(self, network: Network, plan: Plan):
        self.network = network
        self.plan = plan
        self.nodes = []
        self.constants = {}

    def constant(self, name: str, values) -> str:
        """Adds an initializer, unless one of this name is there, and returns its name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(numpy.array(values, order="C"), name)
        return name

    def weight(self, name: str, values: numpy.ndarray) -> str:
        """A table or matrix outside the layers: float32, or float16 in the file where the layers are int8.

        Half the bytes, and errors a hundred times smaller than those of int8. The cast is done once, when a session opens.
        """
        if not self.plan.quantises_layer:
            return self.constant(name, values)
        stored = self.constant(f"{name}_float16", values.astype(numpy.float16))
        return self.node("Cast", [stored], name, to=TensorProto.FLOAT)

    def node(self, kind: str, inputs, outputs, domain: str = "", **attributes):
        """Adds a node and returns its output, or its outputs when there are several."""
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        self.nodes.append(helper.make_node(kind, inputs, names, name=f"{names[0]}/{kind}", domain=domain, **attributes))
        return outputs

    def norm(self, name: str, weights: Norm) -> list[str]:
        """Constants of a layer normalisation."""
        return [self.constant(f"{name}_weight", weights.weight), self.constant(f"{name}_bias", weights.bias)]

    def hidden_value(self, name: str):
        """Name, type and shape of hidden states."""
        return name, TensorProto.FLOAT, ["batch", "sequence", self.network.hidden_size]

    def logits_value(self):
        """Name, type and shape of the logits."""
        return "logits", TensorProto.FLOAT, ["batch", self.network.labels]

    def model(self, name: str, inputs, outputs) -> ModelProto:
        """The finished model; inputs and outputs are (name, element type, shape)."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(*value) for value in inputs],
            [helper.make_tensor_value_info(*value) for value in outputs],
            list(self.constants.values()),
        )
        return helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION, producer_name="albertine")


def word_rows(builder: Builder) -> str:
    """Rows of the word table, in float."""
    word = builder.network.embedding.word
    if builder.plan.is_float(WORD_TABLE):
        return builder.node("Gather", [builder.constant("word_table", word), "input_ids"], "words")
    table, scales = quantised_table(word)
    rows = builder.node("Gather", [builder.constant("word_table", table), "input_ids"], "word_rows")
    steps = builder.node("Cast", [rows], "word_steps", to=TensorProto.FLOAT)
    row_scales = builder.node("Gather", [builder.constant("word_scales", scales), "input_ids"], "row_scales")
    return builder.node("Mul", [steps, row_scales], "words")


def position_rows(builder: Builder) -> str:
    """The first rows of the position table, as many as the sequence is long."""
    shape = builder.node("Shape", ["input_ids"], "length", start=1, end=2)
    table = builder.weight("position_table", builder.network.embedding.position)
    zero = builder.constant("zero", numpy.array([0], numpy.int64))
    axis = builder.constant("rows_axis", numpy.array([0], numpy.int64))
    return builder.node("Slice", [table, zero, shape, axis], "positions")


def embed_nodes(builder: Builder, output: str):
    """`input_ids`, `token_type_ids` -> hidden states before the first layer."""
    embedding = builder.network.embedding
    words = word_rows(builder)
    table = builder.constant("token_type_table", embedding.token_type)
    types = builder.node("Gather", [table, "token_type_ids"], "types")
    typed = builder.node("Add", [words, types], "typed_words")
    # The sum with the positions, which have no batch axis, happens inside the normalisation.
    normal = builder.node(
        "SkipLayerNormalization",
        [typed, position_rows(builder), *builder.norm("norm", embedding.norm)],
        "normal_embedding",
        domain=CONTRIB,
        epsilon=builder.network.norm_epsilon,
    )
    weight = builder.weight("projection_weight", embedding.projection.weight)
    projected = builder.node("MatMul", [normal, weight], "projected")
    builder.node("Add", [projected, builder.constant("projection_bias", embedding.projection.bias)], output)


class LayerStep:
    """One application of one layer; where a graph has several, the prefixes tell values and constants apart."""

    def __init__(self, builder: Builder, index: int, values_prefix: str = "", constants_prefix: str = ""):
        self.builder = builder
        self.index = index
        self.layer: Layer = builder.network.layers[index]
        self.constants_prefix = constants_prefix
        self.values_prefix = values_prefix

    def value(self, name: str) -> str:
        """Name of an intermediate value."""
        return self.values_prefix + name

    def constant(self, name: str, values) -> str:
        """A constant of the layer."""
        return self.builder.constant(self.constants_prefix + name, values)

    def quantised_input(self, site: str, values: str) -> list[str]:
        """The unsigned 8-bit form of a site's input, with its scale and zero point."""
        outputs = [self.value(f"{site}_{part}") for part in ("steps", "scale", "zero")]
        rounding = self.builder.plan.roundings[self.index, site]
        if rounding.channels is not None:
            factors = self.constant(f"{site}_channel_factors", (1 / rounding.channels).astype(numpy.float32))
            values = self.builder.node("Mul", [values, factors], self.value(f"{site}_evened"))
        if site in self.builder.plan.dynamic:
            return self.builder.node("DynamicQuantizeLinear", [values], outputs)
        scale = self.constant(f"{site}_scale", numpy.float32(rounding.scale))
        zero = self.constant(f"{site}_zero", numpy.uint8(rounding.zero))
        self.builder.node("QuantizeLinear", [values, scale, zero], outputs[0])
        return [outputs[0], scale, zero]

    def quantised_weight(self, site: str) -> list[str]:
        """The 7-bit weight of a site, its scales and its zero points."""
        weight = getattr(self.layer, site).weight
        channels = self.builder.plan.roundings[self.index, site].channels
        weight, scales = quantised_columns(weight if channels is None else weight * channels[:, None])
        return [
            self.constant(f"{site}_weight", weight),
            self.constant(f"{site}_weight_scales", scales),
            self.constant(f"{site}_weight_zeros", numpy.zeros(len(scales), numpy.int8)),
        ]

    def bias(self, site: str) -> str:
        """The bias of a site."""
        return self.constant(f"{site}_bias", getattr(self.layer, site).bias)

    def attention(self, hidden: str) -> str:
        """Packed query, key and value, the softmax over the row's real tokens, and the weighted values."""
        output = self.value("context")
        heads = self.builder.network.heads
        if self.builder.plan.is_float("attention"):
            weight = self.constant("attention_weight", self.layer.attention.weight)
            inputs = [hidden, weight, self.bias("attention"), "lengths"]
            return self.builder.node("Attention", inputs, output, domain=CONTRIB, num_heads=heads)
        steps, scale, zero = self.quantised_input("attention", hidden)
        weight, weight_scales, weight_zeros = self.quantised_weight("attention")
        inputs = [steps, weight, self.bias("attention"), scale, weight_scales, "lengths", zero, weight_zeros]
        return self.builder.node("QAttention", inputs, output, domain=CONTRIB, num_heads=heads)

    def product(self, site: str, values: str) -> tuple[str, str | None]:
        """The product of one site in float, and its bias where that is still to be added."""
        output = self.value(f"{site}_product")
        if self.builder.plan.is_float(site):
            weights: Linear = getattr(self.layer, site)
            weight = self.constant(f"{site}_weight", weights.weight)
            return self.builder.node("MatMul", [values, weight], output), self.bias(site)
        steps, scale, zero = self.quantised_input(site, values)
        weight, weight_scales, weight_zeros = self.quantised_weight(site)
        inputs = [steps, weight, scale, weight_scales, zero, weight_zeros, self.bias(site)]
        return self.builder.node("MatMulIntegerToFloat", inputs, output, domain=CONTRIB), None

    def activate(self, values: str, bias: str | None) -> str:
        """The activation between the two products of the feed-forward part."""
        output = self.value("inner")
        kind, domain, adds_bias = ACTIVATIONS[self.builder.network.activation]
        if bias is None:
            return self.builder.node(kind, [values], output, domain=domain)
        if adds_bias:
            return self.builder.node(kind, [values, bias], output, domain=domain)
        if kind == "Gelu":
            return self.builder.node("BiasGelu", [values, bias], output, domain=CONTRIB)
        biased = self.builder.node("Add", [values, bias], self.value("ffn_biased"))
        return self.builder.node(kind, [biased], output, domain=domain)

    def add_and_normalise(self, product: tuple[str, str | None], residual: str, norm: str, output: str) -> str:
        """Bias, residual and layer normalisation."""
        values, bias = product
        weights: Norm = getattr(self.layer, norm)
        names = [
            self.constant(f"{norm}_weight", weights.weight),
            self.constant(f"{norm}_bias", weights.bias),
        ]
        if self.builder.plan.quantises_layer:
            return self.normalise_in_parts([values, residual, *([bias] if bias else [])], names, norm, output)
        inputs = [values, residual, *names, *([bias] if bias else [])]
        epsilon = self.builder.network.norm_epsilon
        return self.builder.node("SkipLayerNormalization", inputs, output, domain=CONTRIB, epsilon=epsilon)

    def normalise_in_parts(self, addends: list[str], weight_and_bias: list[str], norm: str, output: str) -> str:
        """The normalised sum of `addends`, in operators that ONNX Runtime computes with vector instructions.

        Its CPU kernel of SkipLayerNormalization sums one element after the other, which takes twice the time of all
        these together; where products are int8, that is a tenth of a layer. int8 graphs run on CPUs only; float32
        graphs keep the one node, which is the faster form on a GPU.
        """
        node, total = self.builder.node, addends[0]
        for count, addend in enumerate(addends[1:], 2):
            total = node("Add", [total, addend], self.value(f"{norm}_sum_of_{count}"))
        mean = node("ReduceMean", [total], self.value(f"{norm}_mean"), axes=[2])
        centred = node("Sub", [total, mean], self.value(f"{norm}_centred"))
        squares = node("Mul", [centred, centred], self.value(f"{norm}_squares"))
        variance = node("ReduceMean", [squares], self.value(f"{norm}_variance"), axes=[2])
        epsilon = self.builder.constant("norm_epsilon", numpy.float32(self.builder.network.norm_epsilon))
        guarded = node("Add", [variance, epsilon], self.value(f"{norm}_guarded_variance"))
        deviation = node("Sqrt", [guarded], self.value(f"{norm}_deviation"))
        unit = node("Div", [centred, deviation], self.value(f"{norm}_unit"))
        scaled = node("Mul", [unit, weight_and_bias[0]], self.value(f"{norm}_scaled"))
        return node("Add", [scaled, weight_and_bias[1]], output)

    def add_nodes(self, hidden: str, output: str) -> str:
        """The whole layer."""
        attended = self.product("attention_output", self.attention(hidden))
        attended = self.add_and_normalise(attended, hidden, "attention_norm", self.value("attended"))
        inner = self.activate(*self.product("ffn", attended))
        outer = self.product("ffn_output", inner)
        return self.add_and_normalise(outer, attended, "output_norm", output)


def head_nodes(builder: Builder, hidden: str):
    """Hidden states -> `logits`, from the first token."""
    head = builder.network.head
    first_token = builder.constant("first_token", numpy.array(0, numpy.int64))
    values = builder.node("Gather", [hidden, first_token], "first", axis=1)
    for name, weights, output in (("pooler", head.pooler, "pooled"), ("classifier", head.classifier, "logits")):
        weight = builder.weight(f"{name}_weight", weights.weight)
        bias = builder.constant(f"{name}_bias", weights.bias)
        values = builder.node("Gemm", [values, weight, bias], output)
        if name == "pooler":
            values = builder.node("Tanh", [values], "active")


def embed_graph(network: Network, plan: Plan) -> ModelProto:
    """`input_ids`, `token_type_ids` -> `hidden`."""
    builder = Builder(network, plan)
    embed_nodes(builder, "hidden")
    return builder.model("embed", IDS, [builder.hidden_value("hidden")])


def layer_graph(network: Network, plan: Plan, index: int) -> ModelProto:
    """`hidden`, `lengths` -> `hidden_out`: one pass, through one layer."""
    builder = Builder(network, plan)
    LayerStep(builder, index).add_nodes("hidden", "hidden_out")
    return builder.model("layer", [builder.hidden_value("hidden"), LENGTHS], [builder.hidden_value("hidden_out")])


def head_graph(network: Network, plan: Plan) -> ModelProto:
    """`hidden` -> `logits`."""
    builder = Builder(network, plan)
    head_nodes(builder, "hidden")
    return builder.model("head", [builder.hidden_value("hidden")], [builder.logits_value()])


def whole_graph(network: Network, plan: Plan) -> ModelProto:
    """`input_ids`, `token_type_ids`, `lengths` -> `logits`; every distinct layer's weights are stored once."""
    builder = Builder(network, plan)
    hidden = "embedded"
    embed_nodes(builder, hidden)
    for step, index in enumerate(network.order, 1):
        prefix = "" if len(network.layers) == 1 else f"layer{index}_"
        hidden = LayerStep(builder, index, f"step{step}_", prefix).add_nodes(hidden, f"step{step}_hidden")
    head_nodes(builder, hidden)
    return builder.model("model", [*IDS, LENGTHS], [builder.logits_value()])


def folder_graphs(network: Network, plan: Plan, with_unrolled: bool) -> dict[str, bytes]:
    """File name -> serialised graph of a model folder."""
    if not network.splittable:
        models = {"model.onnx": whole_graph(network, plan)}
    else:
        names = layer_names(len(network.layers))
        layers = {name: layer_graph(network, plan, index) for index, name in enumerate(names)}
        models = {"embed.onnx": embed_graph(network, plan), **layers, "head.onnx": head_graph(network, plan)}
        if with_unrolled:
            models["unrolled.onnx"] = whole_graph(network, plan)
    return {name: model.SerializeToString() for name, model in models.items()}
