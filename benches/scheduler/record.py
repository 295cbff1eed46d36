"""Records what the scheduler sees of real documents: no text, only numbers.

One document a line, in the data set's own order; one `length:passes` a window: its tokens with special ones, cut as
`pipeline/text/window.rs` cuts them, and how many passes it took until early exit let it go, as `albertine classify` says
of the window's own text.

    python benches/scheduler/record.py DATA/imdb.jsonl.gz --source "film reviews" --model models/albert-sentiment \
        --albertine target/debug/albertine --output benches/scheduler/lengths/long.txt
"""

import argparse
import gzip
import itertools
import json
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer


def windows(length: int, capacity: int, overlap: int) -> list[range]:
    """Ranges of tokens; the same numbers as `windows` of `pipeline/text/window.rs`."""
    count = max(1, -(-max(0, length - overlap) // (capacity - overlap)))
    size = -(-(length + (count - 1) * overlap) // count)
    span = length - min(size, length)
    starts = [span * index // (count - 1) if count > 1 else 0 for index in range(count)]
    return [range(start, min(start + size, length)) for start in starts]


def texts(path: Path) -> Iterator[str]:
    """Texts of a gzip'd file of JSON lines that are not empty."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["text"]
            if text.strip():
                yield text


def cut(text: str, tokenizer: Tokenizer, limits: dict) -> Iterator[tuple[int, str]]:
    """Tokens and text of every window."""
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    for window in windows(len(offsets), limits["max_length"] - special, limits["window_overlap"]):
        part = text[offsets[window[0]][0] : offsets[window[-1]][1]] if window else text
        yield len(window) + special, part


def passes(parts: list[str], model: str, albertine: Path) -> list[int]:
    """How many passes each of these texts takes."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        for part in parts:
            file.write(json.dumps({"text": part}) + "\n")
        file.flush()
        command = [albertine, "classify", "--model", model, file.name]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    depths = [json.loads(line)["depth"] for line in found.strip().split("\n")]
    if len(depths) != len(parts):
        raise SystemExit(f"{len(parts)} windows were given, and {len(depths)} came back")
    return depths


def main():
    """Writes one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, help="gzip'd JSON lines with a field `text`")
    parser.add_argument("--source", required=True, help="what the texts are, for the first line")
    parser.add_argument("--model", type=Path, required=True, help="its folder, which the configuration names too")
    parser.add_argument("--albertine", type=Path, required=True, help="the program")
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    manifest = tomllib.loads((options.model / "model.toml").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    tokenizer.no_truncation()
    chosen = itertools.islice(texts(options.set), options.documents)
    documents = [list(cut(text, tokenizer, manifest["input"])) for text in chosen]
    parts = [part for document in documents for _, part in document]
    depths = iter(passes(parts, manifest["name"], options.albertine))
    name = options.set.name.removesuffix(".jsonl.gz")
    with options.output.open("w", encoding="utf-8") as output:
        output.write(
            f"# {options.source}: the first {len(documents)} of the set {name} in their own order; "
            f"`length:passes` a window, of {manifest['name']} {manifest['version']}; made by record.py\n"
        )
        for document in documents:
            output.write(" ".join(f"{length}:{next(depths)}" for length, _ in document) + "\n")


if __name__ == "__main__":
    main()
