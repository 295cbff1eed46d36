"""Model folders on disk: written beside their place and moved there when complete.

A reader never sees graphs whose hashes do not fit, and a command that fails leaves nothing behind.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from albertine_models.errors import ConversionError


def check_place(output: Path, replace: bool):
    """Refuses a place where something stands, before hours are spent."""
    if output.exists() and not replace:
        raise ConversionError(f"`{output}` exists; choose another `--output` or say `--force` to replace it")
    if output.exists() and not (output / "model.toml").is_file() and any(output.iterdir() if output.is_dir() else [0]):
        raise ConversionError(f"`{output}` exists and is no model folder; it is not replaced")


@contextmanager
def building(output: Path) -> Iterator[Path]:
    """A folder to fill; it takes its place when the block ends well, and is removed when it does not."""
    partial = output.with_name(f".{output.name}.building")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        replace_folder(partial, output)
    except OSError as cause:
        raise ConversionError(f"cannot write `{output}`: {cause}") from cause
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(complete: Path, output: Path):
    """Moves a complete folder to its place."""
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    complete.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def layer_names(count: int) -> list[str]:
    """File names of so many distinct layers, in the order in which they are called."""
    return ["layer.onnx"] if count == 1 else [f"layer{place}.onnx" for place in range(1, count + 1)]


def layers_among(names: Iterable[str]) -> list[str]:
    """The layers among a folder's files, in the order in which they are called."""
    return layer_names(sum(name.startswith("layer") for name in names))


def sha256(path: Path) -> str:
    """Hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
