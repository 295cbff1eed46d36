"""Command `speed`: tokens a second on one core, this package's graphs beside what the usual tools make of a checkpoint.

All candidates run in turn, round after round, so that a busy moment of the machine hits each of them; the median
counts. The core's peak is that of plain integer products of the same weights' shapes, without anything in between.
"""

import functools
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer

from albertine_models import graphs, runtime
from albertine_models.acceptance import float_distance
from albertine_models.calibration import Observations
from albertine_models.checkpoint import Checkpoint, open_checkpoint
from albertine_models.errors import ConversionError
from albertine_models.network import SITES, Network
from albertine_models.quantisation import Plan, float_plan
from albertine_models.terminal import Terminal

# Texts x tokens.
SHAPES = [(1, 16), (8, 16), (1, 128), (4, 128), (1, 512)]

# Rows of the products that the peak is measured with: enough that weights are read once for many.
PEAK_ROWS = 512

# Logits of the export may differ from transformers by this: its fusions use another form of the activation.
EXPORT_TOLERANCE = 1e-2

# Opset of the export; the optimiser's fusions know it.
EXPORT_OPSET = 17

OURS_FLOAT, OURS_INT8 = "albertine float32", "albertine int8"
USUAL_FLOAT, USUAL_INT8 = "torch export, ORT optimiser, float32", "the same, dynamic int8"
PEAK = "integer products alone (peak)"


class Classifier(torch.nn.Module):
    """transformers' model with positional inputs and one output, as an exporter wants it."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        """Logits."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits


def usual_export(checkpoint: Checkpoint, folder: Path) -> tuple[Path, Path]:
    """What the usual tools make: exported by torch, fused by ONNX Runtime's optimiser, and quantised dynamically."""
    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = tuple(torch.ones(2, 16, dtype=torch.long) for _ in names)
    axes = {name: {0: "batch", 1: "sequence"} for name in names} | {"logits": {0: "batch"}}
    exported, fused, int8 = (folder / f"{name}.onnx" for name in ("exported", "fused", "int8"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            # An exporter gives a module back in the mode it found it in, with all that is inside.
            Classifier(checkpoint.model).eval(),
            example,
            exported,
            input_names=names,
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=EXPORT_OPSET,
            dynamo=False,
        )
    config = checkpoint.config
    optimised = optimizer.optimize_model(
        str(exported), model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size
    )
    optimised.save_model_to_file(str(fused))
    # Without a default type the quantiser leaves out every product whose input type it cannot infer: all of them.
    extra = {"DefaultTensorType": TensorProto.FLOAT}
    quantize_dynamic(str(fused), str(int8), per_channel=True, weight_type=QuantType.QInt8, extra_options=extra)
    return fused, int8


def usual_run(path: Path) -> runtime.Logits:
    """An exported model as a function of ids, types and lengths."""
    session = runtime.session(path.read_bytes())
    wanted = {one.name for one in session.get_inputs()}

    def run(input_ids, token_type_ids, lengths):
        mask = (numpy.arange(input_ids.shape[1]) < lengths[:, None]).astype(numpy.int64)
        feeds = {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": token_type_ids}
        return session.run(None, {name: values for name, values in feeds.items() if name in wanted})[0]

    return run


def our_runs(checkpoint: Checkpoint) -> dict[str, runtime.Logits]:
    """This package's graphs; speed does not depend on ranges, so random ids are enough to calibrate."""
    network = checkpoint.network
    observations = Observations(10_000)
    hooks = checkpoint.observe(observations.add)
    ids = random_ids(network, 4, 64)
    checkpoint.logits(ids, numpy.zeros_like(ids))
    for hook in hooks:
        hook.remove()
    plans = {OURS_FLOAT: float_plan(), OURS_INT8: Plan(observations.roundings("minmax", network.weight_of))}
    return {
        name: runtime.served(graphs.folder_graphs(network, plan, with_unrolled=False), len(network.order))
        for name, plan in plans.items()
    }


def random_ids(network: Network, batch: int, sequence: int) -> numpy.ndarray:
    """Ids of any words."""
    return numpy.random.default_rng(1).integers(0, len(network.embedding.word), (batch, sequence))


def products(network: Network) -> Callable[[], None]:
    """The integer products of every pass, one after the other, on inputs that are 8 bits already."""
    generator = numpy.random.default_rng(2)
    inputs, nodes, outputs, constants, feeds = [], [], [], [], {}
    for site in SITES:
        shape = getattr(network.layers[0], site).weight.shape
        weight = generator.integers(-63, 64, shape).astype(numpy.int8)
        constants.append(numpy_helper.from_array(weight, f"{site}_weight"))
        feeds[site] = generator.integers(0, 256, (PEAK_ROWS, shape[0])).astype(numpy.uint8)
        inputs.append(helper.make_tensor_value_info(site, TensorProto.UINT8, feeds[site].shape))
        nodes.append(helper.make_node("MatMulInteger", [site, f"{site}_weight"], [f"{site}_product"]))
        outputs.append(helper.make_tensor_value_info(f"{site}_product", TensorProto.INT32, None))
    graph = helper.make_graph(nodes, "products", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=graphs.OPSETS, ir_version=graphs.IR_VERSION)
    session = runtime.session(model.SerializeToString())

    def run():
        for _ in network.order:
            session.run(None, feeds)

    return run


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def measure(checkpoint: Checkpoint, rounds: int, terminal: Terminal) -> dict[str, dict[str, float]]:
    """Candidate -> shape -> tokens a second."""
    network = checkpoint.network
    with tempfile.TemporaryDirectory() as folder:
        exported = usual_export(checkpoint, Path(folder))
        check_usual(checkpoint, *exported)
        runs = {name: usual_run(path) for name, path in zip((USUAL_FLOAT, USUAL_INT8), exported)}
    runs |= our_runs(checkpoint)
    peak = products(network)
    longest = checkpoint.config.max_position_embeddings
    shapes = [(batch, sequence) for batch, sequence in SHAPES if sequence <= longest]
    times: dict[tuple[str, str], list[float]] = {}
    jobs = [(shape, number) for number in range(rounds + 1) for shape in shapes]
    for (batch, sequence), number in terminal.count(jobs, len(jobs), "timing"):
        ids = random_ids(network, batch, sequence)
        arguments = (ids, numpy.zeros_like(ids), numpy.full(batch, sequence, numpy.int32))
        column = f"{batch}x{sequence}"
        for name, run in runs.items():
            spent = seconds(functools.partial(run, *arguments))
            # The first round warms up.
            if number:
                times.setdefault((name, column), []).append(spent / (batch * sequence))
        if number:
            times.setdefault((PEAK, column), []).append(seconds(peak) / PEAK_ROWS)
    found: dict[str, dict[str, float]] = {}
    for (name, column), values in times.items():
        found.setdefault(name, {})[column] = round(1 / statistics.median(values), 1)
    return found


def check_usual(checkpoint: Checkpoint, fused: Path, int8: Path):
    """A comparison is fair only with an export that computes the same, and whose products were quantised."""
    ids = random_ids(checkpoint.network, 3, 12)
    types, lengths = numpy.zeros_like(ids), numpy.full(3, 12, numpy.int32)
    distance = float_distance(checkpoint.logits(ids, types), usual_run(fused)(ids, types, lengths))
    kinds = [node.op_type for node in onnx.load(int8).graph.node]
    if distance > EXPORT_TOLERANCE or not any("MatMulInteger" in kind for kind in kinds):
        raise ConversionError(f"the usual export of this checkpoint is no measure: its logits differ by {distance:.1e}")


def processor() -> str:
    """Name of the core and whether it multiplies bytes in one step (VNNI)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    vnni = "VNNI" if "vnni" in facts.get("flags", "") else "without VNNI"
    return f"{facts.get('model name', platform.machine())}, {vnni}"


def print_speed(options: dict, terminal: Terminal):
    """Measures and prints."""
    runtime.use_threads(1)
    checkpoint = open_checkpoint(options["checkpoint"])
    found = measure(checkpoint, options["rounds"], terminal)
    core = f"{processor()}; ONNX Runtime {onnxruntime.__version__}, onnx {onnx.__version__}"
    if options["json"]:
        print(json.dumps({"core": core, "rounds": options["rounds"], "tokens_per_second": found}, indent=2))
        return
    columns = list(next(iter(found.values())))
    print(f"tokens a second on one core ({core}), median of {options['rounds']} interleaved runs\n")
    print("| texts x tokens | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, speeds in found.items():
        print(f"| {name} | " + " | ".join(f"{speeds[column]:,.0f}" for column in columns) + " |")
