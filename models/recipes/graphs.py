"""The three int8 ONNX graphs of an ALBERT student: `embed`, `layer` and `head`.

Built node by node, because no optimiser fuses ALBERT's attention. `layer` is one pass; the caller applies it again
and again. A site with a fixed range gets a constant activation scale, so a text's logits do not depend on what it is
batched with; a site without one is quantised dynamically, per call.
"""

import numpy
from onnx import TensorProto, helper, numpy_helper

import networks

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
IR_VERSION = 9
CONTRIB = "com.microsoft"


class Builder:
    """Collects nodes and constants of one graph."""

    def __init__(self):
        self.nodes = []
        self.constants = []

    def constant(self, name, values):
        """Adds an initializer and returns its name."""
        self.constants.append(numpy_helper.from_array(numpy.array(values, order="C"), name))
        return name

    def node(self, kind, inputs, outputs, domain="", **attributes):
        """Adds a node and returns its output, or its outputs when there are several."""
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        self.nodes.append(
            helper.make_node(kind, inputs, names, name=f"{names[0]}/{kind}", domain=domain, **attributes)
        )
        return outputs

    def model(self, name, inputs, outputs):
        """The finished model; inputs and outputs are (name, element type, shape)."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(*value) for value in inputs],
            [helper.make_tensor_value_info(*value) for value in outputs],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION, producer_name="albertine")


def array(tensor):
    """A float32 numpy copy of a torch tensor."""
    return tensor.detach().float().numpy()


def quantised_table(table):
    """An int8 table with one scale a row, shape [rows, 1]. Full 8 bits: rows are only gathered, never multiplied."""
    scale = numpy.maximum(numpy.abs(table).max(axis=1, keepdims=True), 1e-8) / 127
    return numpy.round(table / scale).astype(numpy.int8), scale.astype(numpy.float32)


def quantised_columns(weight):
    """A [inputs, outputs] matrix in 7 bits, one scale a column, as `networks.quantised_weight` rounds it."""
    limit = networks.WEIGHT_LIMIT
    scale = numpy.maximum(numpy.abs(weight).max(axis=0), 1e-8) / limit
    return numpy.clip(numpy.round(weight / scale), -limit, limit).astype(numpy.int8), scale.astype(numpy.float32)


def embed_graph(student):
    """`input_ids`, `token_type_ids` -> `hidden`."""
    builder = Builder()
    table, scales = quantised_table(array(student.word.weight))
    rows = builder.node("Gather", [builder.constant("word_table", table), "input_ids"], "word_rows")
    steps = builder.node("Cast", [rows], "word_steps", to=TensorProto.FLOAT)
    row_scales = builder.node("Gather", [builder.constant("word_scales", scales), "input_ids"], "row_scales")
    words = builder.node("Mul", [steps, row_scales], "words")
    shape = builder.node("Shape", ["input_ids"], "length", start=1, end=2)
    positions = builder.node(
        "Slice",
        [
            builder.constant("position_table", array(student.position.weight)),
            builder.constant("zero", numpy.array([0], numpy.int64)),
            shape,
            builder.constant("rows_axis", numpy.array([0], numpy.int64)),
        ],
        "positions",
    )
    types = builder.node(
        "Gather", [builder.constant("token_type_table", array(student.token_type.weight)), "token_type_ids"], "types"
    )
    placed = builder.node("Add", [words, positions], "placed_words")
    total = builder.node("Add", [placed, types], "embedding")
    normal = builder.node(
        "LayerNormalization",
        [
            total,
            builder.constant("norm_weight", array(student.embedding_norm.weight)),
            builder.constant("norm_bias", array(student.embedding_norm.bias)),
        ],
        "normal_embedding",
        axis=-1,
        epsilon=networks.NORM_EPSILON,
    )
    product = builder.node(
        "MatMul", [normal, builder.constant("projection_weight", array(student.projection.weight).T)], "projected"
    )
    builder.node("Add", [product, builder.constant("projection_bias", array(student.projection.bias))], "hidden")
    ids = [(name, TensorProto.INT64, ["batch", "sequence"]) for name in ("input_ids", "token_type_ids")]
    return builder.model("embed", ids, [hidden_value("hidden")])


def hidden_value(name):
    """Name, type and shape of hidden states."""
    return name, TensorProto.FLOAT, ["batch", "sequence", networks.HIDDEN_SIZE]


def quantise(builder, site, values, ranges):
    """The unsigned 8-bit form of a site's input, with its scale and zero point."""
    outputs = [f"{site}_steps", f"{site}_scale", f"{site}_zero"]
    if site not in ranges:
        return builder.node("DynamicQuantizeLinear", [values], outputs)
    scale, zero_point = ranges[site]
    builder.constant(outputs[1], numpy.float32(scale))
    builder.constant(outputs[2], numpy.uint8(zero_point))
    builder.node("QuantizeLinear", [values, outputs[1], outputs[2]], outputs[0])
    return outputs


def weight_constants(builder, site, student):
    """7-bit weight, its scales, its zero points and the bias of one site."""
    linear = getattr(student, site)
    weight, scales = quantised_columns(array(linear.weight).T)
    return (
        builder.constant(f"{site}_weight", weight),
        builder.constant(f"{site}_weight_scales", scales),
        builder.constant(f"{site}_weight_zeros", numpy.zeros(len(scales), numpy.int8)),
        builder.constant(f"{site}_bias", array(linear.bias)),
    )


def product(builder, site, student, values, ranges):
    """The integer product of one site, back in float."""
    steps, scale, zero = quantise(builder, site, values, ranges)
    weight, weight_scales, weight_zeros, bias = weight_constants(builder, site, student)
    return builder.node(
        "MatMulIntegerToFloat",
        [steps, weight, scale, weight_scales, zero, weight_zeros, bias],
        f"{site}_product",
        domain=CONTRIB,
    )


def add_and_normalise(builder, values, residual, norm, name, output):
    """Residual and layer normalisation in one node."""
    return builder.node(
        "SkipLayerNormalization",
        [
            values,
            residual,
            builder.constant(f"{name}_weight", array(norm.weight)),
            builder.constant(f"{name}_bias", array(norm.bias)),
        ],
        output,
        domain=CONTRIB,
        epsilon=networks.NORM_EPSILON,
    )


def layer_graph(student, ranges):
    """`hidden`, `lengths` -> `hidden_out`: one pass. Tokens at and beyond a row's length are not attended to."""
    builder = Builder()
    steps, scale, zero = quantise(builder, "attention", "hidden", ranges)
    weight, weight_scales, weight_zeros, bias = weight_constants(builder, "attention", student)
    context = builder.node(
        "QAttention",
        [steps, weight, bias, scale, weight_scales, "lengths", zero, weight_zeros],
        "context",
        domain=CONTRIB,
        num_heads=networks.HEADS,
    )
    attended = product(builder, "attention_output", student, context, ranges)
    attended = add_and_normalise(builder, attended, "hidden", student.attention_norm, "attention_norm", "attended")
    inner = product(builder, "ffn", student, attended, ranges)
    inner = builder.node("FastGelu", [inner], "inner", domain=CONTRIB)
    outer = product(builder, "ffn_output", student, inner, ranges)
    add_and_normalise(builder, outer, attended, student.output_norm, "output_norm", "hidden_out")
    lengths = ("lengths", TensorProto.INT32, ["batch"])
    return builder.model("layer", [hidden_value("hidden"), lengths], [hidden_value("hidden_out")])


def head_graph(student):
    """`hidden` -> `logits`, from the first token."""
    builder = Builder()
    first = builder.node(
        "Gather", ["hidden", builder.constant("first_token", numpy.array(0, numpy.int64))], "first", axis=1
    )
    pooled = builder.node(
        "Gemm",
        [
            first,
            builder.constant("pooler_weight", array(student.pooler.weight)),
            builder.constant("pooler_bias", array(student.pooler.bias)),
        ],
        "pooled",
        transB=1,
    )
    active = builder.node("Tanh", [pooled], "active")
    builder.node(
        "Gemm",
        [
            active,
            builder.constant("classifier_weight", array(student.classifier.weight)),
            builder.constant("classifier_bias", array(student.classifier.bias)),
        ],
        "logits",
        transB=1,
    )
    return builder.model("head", [hidden_value("hidden")], [("logits", TensorProto.FLOAT, ["batch", 3])])
