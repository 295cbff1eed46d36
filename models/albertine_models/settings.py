"""What a conversion is told, and what follows from it and the checkpoint: names, labels, windows.

`Options` is the command line as it was given; `describe` and `input_of` resolve it, with an error for each choice
that does not fit the checkpoint.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from albertine_models.checkpoint import Checkpoint
from albertine_models.errors import ConversionError
from albertine_models.manifest import Description, Input
from albertine_models.quantisation import Roundings

# A window beyond this costs more attention than it gains; checkpoints have 512 positions anyway.
MAX_LENGTH_DEFAULT = 512
WINDOW_OVERLAP_DEFAULT = 64

# Below this a window would be mostly special tokens.
MAX_LENGTH_MIN = 16

LANGUAGE = re.compile(r"[a-z]{2}")


@dataclass
class Options:
    """The options of `convert`, by the names of the command line."""

    checkpoint: str
    output: Path
    revision: str | None = None
    name: str | None = None
    version: str = "1"
    task: str | None = None
    labels: list[str] | None = None
    languages: list[str] = field(default_factory=list)
    license: str = "unknown"
    description: str | None = None
    pair: bool = False
    windowed: str = "text"
    max_length: int | None = None
    window_overlap: int | None = None
    precision: str = "int8"
    calibration: Path | None = None
    evaluation: list[Path] = field(default_factory=list)
    private_evaluation: list[Path] = field(default_factory=list)
    activation_range: str = "mse"
    keep_float: list[str] = field(default_factory=list)
    dynamic: list[str] = field(default_factory=list)
    temperature: float = 1.0
    notes: Path | None = None
    unrolled: bool = True
    force: bool = False
    threads: int = 1
    # For recipes, not on the command line: how a model was trained to be rounded, and where it came from.
    roundings: Roundings | None = None
    recipe: str = "albertine-models convert"
    source: str | None = None
    teacher: str = ""
    data: list[str] = field(default_factory=list)
    # Called with the accepted graphs: gives figures for the manifest, and Markdown for the end of the card.
    report: Callable[[dict[str, bytes]], tuple[dict[str, float], str]] | None = None


def labels_of(options: Options, checkpoint: Checkpoint) -> list[str]:
    """Names in the order of the logits: those given, else the checkpoint's own."""
    count = checkpoint.config.num_labels
    found = [checkpoint.config.id2label.get(index, "") for index in range(count)]
    if options.labels is not None:
        found = options.labels
        if len(found) != count:
            raise ConversionError(f"`--labels` names {len(found)} labels, the checkpoint has {count} outputs")
    elif any(re.fullmatch(r"LABEL_\d+", str(name)) for name in found):
        raise ConversionError(
            f"the checkpoint calls its {count} labels {', '.join(map(str, found))}; name them in the order of its "
            "outputs with `--labels`, such as `--labels negative,positive`"
        )
    found = [str(name) for name in found]
    if any(not name.strip() for name in found) or len(set(found)) != count:
        raise ConversionError(f"labels must be distinct and not empty, found {', '.join(map(repr, found))}")
    return found


def describe(options: Options, checkpoint: Checkpoint) -> Description:
    """The names of the model; what was not given follows from the checkpoint."""
    source = options.source or checkpoint.source
    name = options.name or source.split("@")[0].rsplit("/", 1)[-1]
    if not name.strip() or "/" in name:
        raise ConversionError(f"`{name}` is no name for a model: it must not be empty or hold a slash; give `--name`")
    for language in options.languages:
        if not LANGUAGE.fullmatch(language):
            raise ConversionError(f"`{language}` is no ISO 639-1 code, such as `en`; leave `--languages` out for any")
    if not options.temperature > 0:
        raise ConversionError(f"`--temperature` is {options.temperature}, it must be above 0")
    task = options.task or getattr(checkpoint.config, "finetuning_task", None) or "classification"
    return Description(
        name=name,
        version=options.version,
        task=task,
        labels=labels_of(options, checkpoint),
        languages=options.languages,
        description=options.description or f"An ALBERT for {task}, converted from {source.split('@')[0]}",
        license=options.license,
        recipe=options.recipe,
        source=source,
        teacher=options.teacher,
        data=options.data,
    )


def input_of(options: Options, checkpoint: Checkpoint) -> Input:
    """Windows that fit the checkpoint's positions and token types."""
    positions = checkpoint.config.max_position_embeddings
    if options.pair and checkpoint.config.type_vocab_size < 2:
        raise ConversionError("the checkpoint has one token type, a pair needs two; leave out `--pair`")
    max_length = options.max_length if options.max_length is not None else min(positions, MAX_LENGTH_DEFAULT)
    if not MAX_LENGTH_MIN <= max_length <= positions:
        raise ConversionError(
            f"`--max-length` is {max_length}, it must be {MAX_LENGTH_MIN} to {positions}, the checkpoint's positions"
        )
    overlap = options.window_overlap
    if overlap is None:
        overlap = min(WINDOW_OVERLAP_DEFAULT, max_length // 4)
    if not 0 <= overlap <= max_length // 2:
        raise ConversionError(f"`--window-overlap` is {overlap}, it must be 0 to half a window, {max_length // 2}")
    return Input(max_length, overlap, options.windowed if options.pair else None)
