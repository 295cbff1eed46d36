"""A pruned vocabulary reads kept words as before, and emoji as words of their own."""

import numpy

import vocabulary
from albertine_models.texts.ordinary import ordinary_rows

TEXTS = [row.text for row in ordinary_rows(200, pair=False, seed=4)]


def pruned(wordpiece):
    frequencies = vocabulary.counts(wordpiece, TEXTS, 100)
    return vocabulary.Vocabulary(wordpiece, frequencies, 500 + 2 * len(vocabulary.emoji()))


def test_frequent_words_keep_their_tokens_and_rows_of_the_table(wordpiece):
    words = pruned(wordpiece)
    smaller = words.tokenizer()
    table = numpy.arange(wordpiece.get_vocab_size(), dtype=numpy.float32)[:, None]
    rows = words.table(table)
    assert len(rows) == smaller.get_vocab_size() == len(words.ids)
    same = 0
    for text in TEXTS:
        old, new = wordpiece.encode(text), smaller.encode(text)
        assert "[UNK]" not in new.tokens or "[UNK]" in old.tokens, text
        if old.tokens == new.tokens:
            same += 1
            assert rows[new.ids, 0].tolist() == old.ids
    assert same > len(TEXTS) / 2


def test_words_that_are_gone_are_read_in_pieces(wordpiece):
    words = pruned(wordpiece)
    gone = [token for token in wordpiece.get_vocab() if token.isalpha() and len(token) > 3 and token not in words.ids]
    assert gone
    for word in gone:
        tokens = words.tokenizer().encode(word, add_special_tokens=False).tokens
        assert "".join(token.removeprefix("##") for token in tokens) == word


def test_an_emoji_is_a_token_alone_and_behind_a_word(wordpiece):
    smaller = pruned(wordpiece).tokenizer()
    assert "[UNK]" in wordpiece.encode("a 😍 ❤️").tokens
    assert smaller.encode("a 😍a😍😍 ❤️", add_special_tokens=False).tokens == ["a", "😍", "##a", "##😍", "##😍", "❤"]


def test_padding_keeps_id_0(wordpiece):
    assert pruned(wordpiece).ids["[PAD]"] == 0
