"""Checkpoints of Hugging Face: found in a folder or on the hub, checked, and read without running their code.

Guarantee: what is returned is an AlbertForSequenceClassification for one label a text, every weight of which came
from the checkpoint and is finite. Pickled weights are read with `weights_only`, so they cannot execute anything.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import numpy
import torch
import transformers

from albertine_models.errors import ConversionError
from albertine_models.network import Network, network_from

ARCHITECTURE = "AlbertForSequenceClassification"

# What is fetched from the hub: never code.
TOKENIZER_FILES = (
    "config.json tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json spiece.model vocab.txt"
).split()
SAFETENSORS = ["*.safetensors", "*.safetensors.index.json"]
PICKLES = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]

# transformers' names of an activation -> the graph builder's. The tanh forms differ by rounding only.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "relu": "relu",
}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: its folder, where it came from, its configuration, transformers' model and the arrays."""

    folder: Path
    source: str
    config: transformers.AlbertConfig
    model: torch.nn.Module
    network: Network

    def logits(self, input_ids: numpy.ndarray, token_type_ids: numpy.ndarray) -> numpy.ndarray:
        """Transformers' own float32 logits of rows of equal length, shape [batch, labels]."""
        with torch.inference_mode():
            found = self.model(
                input_ids=torch.from_numpy(input_ids), token_type_ids=torch.from_numpy(token_type_ids)
            ).logits
        return found.numpy()

    def observe(self, observer: Callable[[int, str, torch.Tensor], None]) -> list:
        """Calls `observer(layer, site, values)` with every input of a product; returns hooks to remove."""
        hooks = []
        groups = self.model.albert.encoder.albert_layer_groups
        layers = [layer for group in groups for layer in group.albert_layers]
        for index, layer in enumerate(layers):
            modules = {
                "attention": layer.attention.query,
                "attention_output": layer.attention.dense,
                "ffn": layer.ffn,
                "ffn_output": layer.ffn_output,
            }
            for site, module in modules.items():
                hooks.append(module.register_forward_pre_hook(observing_hook(observer, index, site)))
        return hooks


def observing_hook(observer, index: int, site: str):
    """A hook that passes a module's input to the observer."""

    def hook(_module, arguments):
        observer(index, site, arguments[0])

    return hook


def open_checkpoint(location: str, revision: str | None = None) -> Checkpoint:
    """The checkpoint in a local folder, or of a repository on the hub where no such folder exists."""
    folder, source = locate(location, revision, [*TOKENIZER_FILES, *SAFETENSORS])
    check_config(read_config(folder), folder)
    config = load_config(folder)
    activation = check_shape(config)
    model = load_model(folder)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    check_finite(state)
    return Checkpoint(folder, source, config, model, network_from(state, config, activation))


def locate(location: str, revision: str | None, files: list[str]) -> tuple[Path, str]:
    """The checkpoint's folder on this machine and its name for the manifest; fetches `files` where it is not here."""
    folder = Path(location)
    if folder.is_dir():
        if revision is not None:
            raise ConversionError(f"`{location}` is a local folder, which has no revision; leave out `--revision`")
        return folder, folder.resolve().name
    if folder.exists() or location.startswith((".", "/", "~")) or location.count("/") > 1:
        raise ConversionError(f"`{location}` is not a folder with a checkpoint")
    try:
        fetched = Path(huggingface_hub.snapshot_download(location, revision=revision, allow_patterns=files))
        if files != TOKENIZER_FILES and not any(fetched.glob("*.safetensors")):
            huggingface_hub.snapshot_download(location, revision=fetched.name, allow_patterns=PICKLES)
    except (huggingface_hub.errors.HfHubHTTPError, huggingface_hub.errors.HFValidationError, OSError) as cause:
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise ConversionError(
            f"`{location}` is no folder here, and fetching it from the hub failed: {reason}"
        ) from cause
    return fetched, f"{location}@{fetched.name}"


def read_config(folder: Path) -> dict:
    """`config.json` as it stands, read before anything of transformers looks at it."""
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as cause:
        raise ConversionError(f"cannot read `{path}`: {cause}") from cause
    if not isinstance(found, dict):
        raise ConversionError(f"`{path}` is not a JSON object")
    return found


def check_config(fields: dict, folder: Path):
    """Refuses other architectures and other kinds of outputs, by what `config.json` says."""
    architectures = fields.get("architectures") or []
    if fields.get("model_type") != "albert" or architectures != [ARCHITECTURE]:
        found = ", ".join(map(str, architectures)) or fields.get("model_type") or "nothing"
        raise ConversionError(
            f"`{folder}` holds `{found}`, only `{ARCHITECTURE}` can be converted; fine-tune it for classification first"
        )
    problem = fields.get("problem_type")
    if problem not in (None, "single_label_classification"):
        raise ConversionError(f"`{folder}` was trained for `{problem}`, only one label a text can be converted")
    if "auto_map" in fields:
        raise ConversionError(f"`{folder}` brings code of its own (`auto_map`), which is never run")


def load_config(folder: Path) -> transformers.AlbertConfig:
    """transformers' form of the configuration."""
    try:
        return transformers.AlbertConfig.from_pretrained(folder)
    except Exception as cause:  # transformers raises many kinds for a file that does not suit it
        raise ConversionError(f"cannot read `{folder / 'config.json'}` as an ALBERT: {first_line(cause)}") from cause


def check_shape(config: transformers.AlbertConfig) -> str:
    """Refuses shapes that no graph can be built for; returns the graph builder's name of the activation."""
    if config.num_labels < 2:
        raise ConversionError("the checkpoint has one output (a regression), at least two labels are needed")
    for name in ("num_hidden_layers", "num_hidden_groups", "inner_group_num", "num_attention_heads"):
        if getattr(config, name) < 1:
            raise ConversionError(f"`{name}` of the checkpoint is {getattr(config, name)}, at least 1 is needed")
    if config.hidden_size % config.num_attention_heads:
        raise ConversionError(
            f"`hidden_size` {config.hidden_size} is no multiple of `num_attention_heads` {config.num_attention_heads}"
        )
    if config.hidden_act not in ACTIVATIONS:
        raise ConversionError(
            f"the activation `{config.hidden_act}` cannot be converted, only {', '.join(sorted(ACTIVATIONS))}"
        )
    return ACTIVATIONS[config.hidden_act]


def load_model(folder: Path) -> torch.nn.Module:
    """transformers' model in float32, eager; refuses missing weights, which transformers would make up."""
    reporting = logging.getLogger("transformers")
    level = reporting.level
    # Its report of missing weights is this function's error.
    reporting.setLevel(logging.CRITICAL)
    try:
        model, report = transformers.AlbertForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True, local_files_only=True
        )
    except Exception as cause:  # bad pickles, cut files and wrong shapes all raise kinds of their own
        raise ConversionError(f"cannot load the weights in `{folder}`: {first_line(cause)}") from cause
    finally:
        reporting.setLevel(level)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ConversionError(
            f"`{folder}` has no weights for `{missing[0]}` ({len(missing)} missing); was it fine-tuned and saved whole?"
        )
    return model.eval().requires_grad_(False)


def check_finite(state: dict[str, numpy.ndarray]):
    """Refuses weights that are not numbers."""
    for name, values in state.items():
        if not numpy.isfinite(values).all():
            raise ConversionError(f"the weight `{name}` holds NaN or infinite values; the checkpoint is broken")


def first_line(cause: BaseException) -> str:
    """The first line of an exception's message; transformers writes paragraphs."""
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__
