"""Takes from the teacher's vocabulary what English reviews, news and discussions never use, and weighs what they do.

A shorter word table leaves room for a wider layer in a file of the same size. A word that is gone is read in its pieces,
as any word that was never in the vocabulary; single characters and special tokens always stay.
"""

import json
import unicodedata

import numpy
from tokenizers import Tokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# A continuation of a word, in WordPiece.
CONTINUATION = "##"

# The teacher's vocabulary has no emoji, and WordPiece gives up a whole word over one unknown character. These are the faces,
# hearts, hands and signs that opinions are written with, and the skin tones that may follow a hand.
EMOJI_RANGES = (
    "\u2639-\u263a \u2600-\u2600 \u2705-\u2705 \u270a-\u270d \u2728-\u2728 \u274c-\u274c \u2764-\u2764 \u2b50-\u2b50 "
    "\U0001f31f-\U0001f31f \U0001f381-\U0001f381 \U0001f382-\U0001f382 \U0001f389-\U0001f38a \U0001f3fb-\U0001f3ff "
    "\U0001f440-\U0001f440 \U0001f446-\U0001f450 \U0001f480-\U0001f480 \U0001f48b-\U0001f49f \U0001f4a2-\U0001f4a9 "
    "\U0001f4aa-\U0001f4af \U0001f525-\U0001f525 \U0001f595-\U0001f595 \U0001f5a4-\U0001f5a4 \U0001f600-\U0001f64f "
    "\U0001f680-\U0001f680 \U0001f90c-\U0001f930 \U0001f937-\U0001f937 \U0001f970-\U0001f97a \U0001f9e1-\U0001f9e1"
).split()


def plain(path_or_json):
    """A tokenizer without padding and truncation, from a path or from the content of one."""
    tokenizer = Tokenizer.from_str(path_or_json) if path_or_json.startswith("{") else Tokenizer.from_file(path_or_json)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode(tokenizer, texts, longest):
    """Token ids of each text without special tokens, at most `longest`."""
    # No token of these vocabularies covers more than a few characters on average.
    encoded = tokenizer.encode_batch([text[: 8 * longest] for text in texts], add_special_tokens=False)
    return [row.ids[:longest] for row in encoded]


def counts(tokenizer, texts, longest):
    """How often each token of the vocabulary occurs."""
    found = numpy.zeros(tokenizer.get_vocab_size(), dtype=numpy.int64)
    for begin in range(0, len(texts), 2000):
        ids = encode(tokenizer, texts[begin : begin + 2000], longest)
        found += numpy.bincount(
            numpy.concatenate([numpy.array(row, dtype=numpy.int64) for row in ids]), minlength=len(found)
        )
    return found


def emoji():
    """Every emoji of the ranges, in their order, with the words of its Unicode name."""
    found = {}
    for both in EMOJI_RANGES:
        first, last = both.split("-")
        for code in range(ord(first), ord(last) + 1):
            if name := unicodedata.name(chr(code), None):
                found[chr(code)] = name.lower().replace("-", " ")
    return found


def kept_tokens(tokenizer, frequencies, size):
    """Ids that stay, in their order: special tokens, single characters, and the most frequent others."""
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}

    def always(index):
        return tokens[index] in SPECIAL_TOKENS or len(tokens[index].removeprefix(CONTINUATION)) == 1

    # A foreign script's character that never occurs is no help to a model that knows English only.
    needed = [index for index in tokens if always(index) and (frequencies[index] > 0 or tokens[index].isascii())]
    rest = set(tokens) - set(needed)
    others = sorted(rest, key=lambda index: (-frequencies[index], index))
    return sorted(needed + others[: size - len(needed)])


class Vocabulary:
    """A smaller vocabulary: what stays of an old one, and emoji, alone and as the continuation of a word."""

    def __init__(self, tokenizer, frequencies, size):
        self.old = tokenizer
        self.emoji = emoji()
        tokens = {index: token for token, index in tokenizer.get_vocab().items()}
        self.kept = kept_tokens(tokenizer, frequencies, size - 2 * len(self.emoji))
        self.added = [prefix + sign for prefix in ("", CONTINUATION) for sign in self.emoji]
        self.ids = {token: new for new, token in enumerate([tokens[old] for old in self.kept] + self.added)}

    def tokenizer(self):
        """The tokenizer of the smaller vocabulary."""
        content = json.loads(self.old.to_str())
        content["model"]["vocab"] = self.ids
        for added in content["added_tokens"]:
            added["id"] = self.ids[added["content"]]
        for special in content["post_processor"]["special_tokens"].values():
            special["ids"] = [self.ids[token] for token in special["tokens"]]
        return plain(json.dumps(content, ensure_ascii=False))

    def table(self, old_table):
        """The word table of the smaller vocabulary; an emoji starts as the mean of the words of its name."""
        signs = [old_table[self.old.encode(name, add_special_tokens=False).ids].mean(0) for name in self.emoji.values()]
        return numpy.concatenate([old_table[self.kept], numpy.stack(signs * 2)])
