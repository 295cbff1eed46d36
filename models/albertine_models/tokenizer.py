"""The tokenizer of a checkpoint as one self-contained `tokenizer.json`, proven equal to transformers' own.

The file of the checkpoint is taken as it is, without truncation and padding; where there is only a SentencePiece
model, transformers converts it. Every verification text must give the same ids both ways.
"""

from pathlib import Path

import transformers
from tokenizers import Tokenizer

from albertine_models.checkpoint import Checkpoint, first_line
from albertine_models.errors import ConversionError
from albertine_models.rows import EncodedRow, Row

# Files that a tokenizer can be read from, the first of them as it is.
VOCABULARIES = ("tokenizer.json", "spiece.model", "vocab.txt")

# Texts encoded in one call.
BATCH_ROWS = 256


def load_reference(folder: Path):
    """transformers' own tokenizer of a checkpoint; never the checkpoint's code."""
    if not any((folder / name).is_file() for name in VOCABULARIES):
        # transformers would make up a tokenizer that knows only special tokens.
        raise ConversionError(f"`{folder}` holds no tokenizer; it needs one of `{'`, `'.join(VOCABULARIES)}`")
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as cause:  # a missing or unfit file raises many kinds
        raise ConversionError(f"cannot load the tokenizer of `{folder}`: {first_line(cause)}") from cause


def self_contained(folder: Path, reference) -> Tokenizer:
    """The tokenizer that the folder will carry."""
    path = folder / "tokenizer.json"
    try:
        if path.exists():
            tokenizer = Tokenizer.from_file(str(path))
        else:
            # Serialised and read again, so that only what the file holds is used from here on.
            tokenizer = Tokenizer.from_str(reference.backend_tokenizer.to_str())
    except Exception as cause:  # the library raises plain Exception
        raise ConversionError(f"cannot read the tokenizer of `{folder}`: {first_line(cause)}") from cause
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def check_vocabulary(tokenizer: Tokenizer, checkpoint: Checkpoint, reference):
    """Ids must lie in the word table, and special tokens must stand around a text."""
    rows = checkpoint.config.vocab_size
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if highest >= rows:
        raise ConversionError(
            f"the tokenizer gives ids up to {highest}, the word table has {rows} rows; they are not of one checkpoint"
        )
    ids = tokenizer.encode("a").ids
    if len(ids) < 3 or ids[0] != reference.cls_token_id or ids[-1] != reference.sep_token_id:
        raise ConversionError(
            f"`tokenizer.json` does not put `{reference.cls_token}` and `{reference.sep_token}` around a text; "
            "save it again with transformers"
        )


def load_tokenizer(checkpoint: Checkpoint):
    """The folder's tokenizer and transformers' own."""
    reference = load_reference(checkpoint.folder)
    tokenizer = self_contained(checkpoint.folder, reference)
    check_vocabulary(tokenizer, checkpoint, reference)
    return tokenizer, reference


def encode(tokenizer: Tokenizer, rows: list[Row]) -> list[EncodedRow]:
    """Every row with its special tokens, whole."""
    inputs = [row.text if row.text_pair is None else (row.text, row.text_pair) for row in rows]
    found = []
    for begin in range(0, len(inputs), BATCH_ROWS):
        found += tokenizer.encode_batch(inputs[begin : begin + BATCH_ROWS])
    return [EncodedRow(row, encoding.ids, encoding.type_ids) for row, encoding in zip(rows, found)]


def check_parity(encoded: list[EncodedRow], reference):
    """Refuses a file whose ids or token types differ from transformers' for any row."""
    for begin in range(0, len(encoded), BATCH_ROWS):
        batch = encoded[begin : begin + BATCH_ROWS]
        pairs = None if batch[0].row.text_pair is None else [one.row.text_pair for one in batch]
        wanted = reference([one.row.text for one in batch], pairs, return_token_type_ids=True, verbose=False)
        for place, one in enumerate(batch):
            same = one.input_ids == wanted["input_ids"][place] and one.token_type_ids == wanted["token_type_ids"][place]
            if not same:
                raise ConversionError(
                    f"`tokenizer.json` and transformers disagree on verification text {begin + place + 1}, "
                    f"{one.row.text[:40]!a}: {one.input_ids[:12]} and {wanted['input_ids'][place][:12]}; "
                    "remove `tokenizer.json` to have it made by transformers, if that is what the model was trained with"
                )
