"""A corpus of real texts, shuffled with a seed: one JSON object with `id` and `text` a line.

Every data set gives as many documents as the others, as far as it has them: the small ones would drown otherwise.
"""

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer


def texts(path: Path) -> Iterator[str]:
    """Texts of a gzip'd file of JSON lines that are not empty."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["text"]
            if text.strip():
                yield text


def fitting(pool: list[str], tokenizer: Tokenizer, tokens_max: int | None) -> Iterator[str]:
    """Texts of a shuffled pool that are short enough, tokenised only as far as they are asked for."""
    for text in pool:
        if tokens_max is None or len(tokenizer.encode(text).ids) <= tokens_max:
            yield text


def drawn(paths: list[Path], options: argparse.Namespace) -> list[str]:
    """Documents of all sets in turn, until there are enough."""
    generator = random.Random(options.seed)
    tokenizer = Tokenizer.from_file(str(options.tokenizer))
    tokenizer.no_truncation()
    seen, sources = set(), []
    for path in paths:
        pool = []
        for text in texts(path):
            if options.duplicates or text not in seen:
                pool.append(text)
                seen.add(text)
        generator.shuffle(pool)
        sources.append(fitting(pool, tokenizer, options.tokens_max))
    found = []
    while sources and len(found) < options.documents:
        for source in list(sources):
            text = next(source, None)
            if text is None:
                sources.remove(source)
            elif len(found) < options.documents:
                found.append(text)
    generator.shuffle(found)
    return found


def main():
    """Writes the corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", type=Path, nargs="+", help="gzip'd JSON lines with a field `text`")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json of the model")
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--tokens-max", type=int, help="leave longer texts out, counted with special tokens")
    parser.add_argument("--duplicates", action="store_true", help="keep texts that stand there more than once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    found = drawn(options.sets, options)
    with options.output.open("w", encoding="utf-8") as output:
        for number, text in enumerate(found):
            output.write(json.dumps({"id": f"d{number:07}", "text": text}, ensure_ascii=False) + "\n")
    if len(found) < options.documents:
        raise SystemExit(f"only {len(found)} documents fit; they were written")


if __name__ == "__main__":
    main()
