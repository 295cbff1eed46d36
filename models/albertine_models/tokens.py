"""Command `tokens`: texts with their ids, in the row format of `verification.jsonl`.

For a checkpoint the ids are those of transformers' own tokenizer, so that the program's tokenizer can be held against
it on any number of texts; for a model folder those of its `tokenizer.json`.
"""

from pathlib import Path

from tokenizers import Tokenizer

from albertine_models.checkpoint import TOKENIZER_FILES, locate
from albertine_models.errors import ConversionError
from albertine_models.rows import EncodedRow, Row, json_line, read_rows, row_fields
from albertine_models.terminal import Terminal
from albertine_models.tokenizer import BATCH_ROWS, encode, load_reference


def write_tokens(options: dict, terminal: Terminal):
    """Encodes the texts of a file and writes them."""
    rows = read_rows(options["texts"], options["pair"])[: options["limit"]]
    encoder = encoder_of(options["model"])
    partial = options["output"].with_name(options["output"].name + ".partial")
    try:
        with partial.open("w", encoding="ascii") as file:
            batches = range(0, len(rows), BATCH_ROWS)
            for begin in terminal.count(batches, len(batches), "encoding"):
                for encoded in encoder(rows[begin : begin + BATCH_ROWS]):
                    file.write(json_line(row_fields(encoded, options["pair"])))
        partial.replace(options["output"])
    except OSError as cause:
        raise ConversionError(f"cannot write `{options['output']}`: {cause}") from cause
    terminal.done(f"wrote {len(rows):,} texts to {options['output']}")


def encoder_of(model: str):
    """What turns rows into encoded rows."""
    folder = Path(model)
    if (folder / "model.toml").is_file():
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as cause:  # the library raises plain Exception
            raise ConversionError(f"cannot read `{folder / 'tokenizer.json'}`: {cause}") from cause
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return lambda rows: encode(tokenizer, rows)
    reference = load_reference(locate(model, None, TOKENIZER_FILES)[0])
    return lambda rows: reference_rows(reference, rows)


def reference_rows(reference, rows: list[Row]) -> list[EncodedRow]:
    """Rows as transformers encodes them."""
    pairs = [row.text_pair for row in rows] if rows[0].text_pair is not None else None
    found = reference([row.text for row in rows], pairs, return_token_type_ids=True, verbose=False)
    return [EncodedRow(*one) for one in zip(rows, found["input_ids"], found["token_type_ids"])]
