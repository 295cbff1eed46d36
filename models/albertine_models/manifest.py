"""`model.toml`, which the program reads: format 3."""

import json
import tomllib
from dataclasses import dataclass, field

from albertine_models import FOLDER_FORMAT
from albertine_models.folder import layers_among


@dataclass(frozen=True)
class Description:
    """What people decide about a model: names, labels in the order of the logits, terms, origin."""

    name: str
    version: str
    task: str
    labels: list[str]
    languages: list[str]
    description: str
    license: str
    recipe: str
    source: str
    teacher: str = ""
    data: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Architecture:
    """What the program needs to know of the network."""

    hidden_size: int
    passes: int
    vocabulary_size: int


@dataclass(frozen=True)
class Input:
    """How texts become windows. `windowed` is None for models that read one text."""

    max_length: int
    window_overlap: int
    windowed: str | None = None

    @property
    def pair(self) -> bool:
        """Whether the model reads two texts."""
        return self.windowed is not None


@dataclass(frozen=True)
class Files:
    """The graphs of the folder: unrolled where `model.onnx` is among the hashes, else stepped."""

    precision: str
    sha256: dict[str, str]


def quoted(value) -> str:
    """A string, number, boolean or list in TOML; JSON's escapes are TOML's, except for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def table(name: str, values: dict) -> str:
    """One table with its keys in order."""
    lines = [f"[{name}]"] if name else []
    for key, value in values.items():
        bare = key.replace("_", "").isalnum() and key.isascii()
        lines.append(f"{key if bare else quoted(key)} = {quoted(value)}")
    return "\n".join(lines) + "\n"


def graphs_table(files: Files) -> dict:
    """Which graphs there are."""
    if "model.onnx" in files.sha256:
        return {"kind": "unrolled", "model": "model.onnx", "precision": files.precision}
    parts = {"embed": "embed.onnx", "layers": layers_among(files.sha256), "head": "head.onnx"}
    return {"kind": "stepped", **parts, "precision": files.precision}


@dataclass(frozen=True)
class Manifest:
    """Everything that `model.toml` says."""

    description: Description
    architecture: Architecture
    input: Input
    files: Files
    accuracy: dict[str, float]
    temperature: float = 1.0

    def tables(self) -> dict[str, dict]:
        """Table name -> its keys; the nameless table stands first."""
        said = self.description
        shape = {"pair": self.input.pair}
        if self.input.windowed:
            shape["windowed"] = self.input.windowed
        verification = {"corpus": "verification.jsonl"}
        if "unrolled.onnx" in self.files.sha256:
            verification["unrolled"] = "unrolled.onnx"
        return {
            "": {
                "format": FOLDER_FORMAT,
                "name": said.name,
                "version": said.version,
                "task": said.task,
                "labels": said.labels,
                "languages": said.languages,
                "description": said.description,
                "license": said.license,
            },
            "architecture": {"kind": "albert", **vars(self.architecture)},
            "input": {
                **shape,
                "max_length": self.input.max_length,
                "window_overlap": self.input.window_overlap,
            },
            "graphs": graphs_table(self.files),
            "calibration": {"temperature": float(self.temperature)},
            "verification": verification,
            "sha256": self.files.sha256,
            "provenance": {
                "recipe": said.recipe,
                "teacher": said.teacher,
                "data": said.data,
                "source": said.source,
            },
            "accuracy": {name: round(float(value), 9) for name, value in self.accuracy.items()},
        }

    def text(self) -> str:
        """The file; read back once, so that no name can make it another document."""
        tables = self.tables()
        text = "# Written by `albertine-models`.\n" + "\n".join(table(name, keys) for name, keys in tables.items())
        wanted = tables.pop("") | tables
        if tomllib.loads(text) != wanted:
            raise ValueError("the manifest does not read back as it was written")
        return text
