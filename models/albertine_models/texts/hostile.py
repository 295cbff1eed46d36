"""Hostile texts: every class of characters that tokenisers treat differently, alone and inside ordinary words.

Characters come from fixed ranges rather than from `unicodedata`, whose tables change with the Python version.
"""

import random
import unicodedata
from collections.abc import Callable

from albertine_models.rows import Row
from albertine_models.texts.ordinary import KINDS, ordinary_text

# Script or class -> ranges of code points, both ends included.
RANGES = {
    "latin_extended": [(0x00C0, 0x024F), (0x1E00, 0x1EF9)],
    "greek": [(0x0391, 0x03A1), (0x03B1, 0x03C9), (0x1F00, 0x1F15)],
    "cyrillic": [(0x0400, 0x045F)],
    "armenian_georgian": [(0x0531, 0x0556), (0x10D0, 0x10F0)],
    "hebrew": [(0x05D0, 0x05EA), (0x05B0, 0x05BC)],
    "arabic": [(0x0621, 0x064A), (0x064B, 0x0652), (0x0660, 0x0669)],
    "devanagari": [(0x0904, 0x0939), (0x093E, 0x094D), (0x0966, 0x096F)],
    "bengali_tamil": [(0x0985, 0x098C), (0x09BE, 0x09C4), (0x0B85, 0x0B8A), (0x0BBE, 0x0BC2)],
    "thai_lao": [(0x0E01, 0x0E3A), (0x0E40, 0x0E4E), (0x0E81, 0x0E82)],
    "tibetan_myanmar_khmer": [(0x0F40, 0x0F47), (0x1000, 0x1021), (0x1780, 0x17A2)],
    "ethiopic_cherokee": [(0x1200, 0x1248), (0x13A0, 0x13F5), (0xAB70, 0xABBF)],
    "hangul": [(0xAC00, 0xAFFF)],
    "hangul_jamo": [(0x1100, 0x1112), (0x1161, 0x1175), (0x11A8, 0x11C2)],
    "kana": [(0x3041, 0x3096), (0x30A1, 0x30FA), (0xFF66, 0xFF9D)],
    "han": [(0x4E00, 0x5FFF), (0x3400, 0x3500), (0x20000, 0x20100), (0xF900, 0xFA0D)],
    "full_width": [(0xFF01, 0xFF5E), (0xFFE0, 0xFFE6)],
    "combining": [(0x0300, 0x036F), (0x20D0, 0x20DC), (0xFE20, 0xFE2F)],
    "ligatures": [(0xFB00, 0xFB06), (0x0132, 0x0133), (0x01C4, 0x01CC), (0xFDF0, 0xFDFB)],
    "punctuation": [(0x2010, 0x2027), (0x2030, 0x205E), (0x3001, 0x3011), (0x0021, 0x002F)],
    "symbols": [(0x20A0, 0x20BF), (0x2190, 0x21FF), (0x2200, 0x22FF), (0x2500, 0x257F), (0x00A1, 0x00BF)],
    "mathematical": [(0x1D400, 0x1D454), (0x1D7CE, 0x1D7FF), (0x2100, 0x214F)],
    "numbers": [(0x2150, 0x2189), (0x2460, 0x249B), (0x00B2, 0x00B3), (0x3220, 0x3229)],
    "emoji": [(0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x1F680, 0x1F6C5), (0x2600, 0x26FF)],
    "spaces": [(0x2000, 0x200A), (0x00A0, 0x00A0), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)],
    "format": [(0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x2069), (0x00AD, 0x00AD), (0xFEFF, 0xFEFF)],
    "control": [(0x0000, 0x001F), (0x007F, 0x009F)],
    "variation_and_tags": [(0xFE00, 0xFE0F), (0xE0020, 0xE007F), (0xE0100, 0xE0110)],
    "private_use": [(0xE000, 0xE0FF), (0xF0000, 0xF0010), (0x10FFF0, 0x10FFFD)],
    "unassigned": [(0x0378, 0x0379), (0x0530, 0x0530), (0x2FE0, 0x2FEF), (0xE0080, 0xE0090)],
    "noncharacters": [(0xFDD0, 0xFDEF), (0xFFFE, 0xFFFF), (0x1FFFE, 0x1FFFF), (0x10FFFE, 0x10FFFF)],
    "separators": [(0x2028, 0x2029), (0x0085, 0x0085), (0x2581, 0x2581), (0xFFFC, 0xFFFD)],
}

# Names that special tokens have in one vocabulary or another; in a text they are only words.
SPECIAL_NAMES = (
    "[CLS] [SEP] [MASK] [PAD] [UNK] <pad> <unk> <s> </s> [cls] [CLS][SEP] ⁇ ▁ ▁▁the <mask> [unused0] <|endoftext|> "
    "##ing <extra_id_0>"
).split()

EMOJI_SEQUENCES = (
    "👨\u200d👩\u200d👧\u200d👦",
    "👩🏽\u200d🚀",
    "🏳\ufe0f\u200d🌈",
    "🇵🇹🇯🇵",
    "1\ufe0f\u20e3",
    "❤\ufe0f",
    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "🤷🏿\u200d♂\ufe0f",
)

FIXED = (
    "",
    " ",
    "   ",
    "\t",
    "\n",
    "\r\n\r\n",
    "\u00a0",
    "\u3000\u3000",
    "\u200b",
    "\ufeff",
    "\u2581",
    "\u2581\u2581 \u2581",
    "\u0000",
    "a\u0000b",
    "\u0301",
    "e\u0301",
    "\u00e9",
    "e\u0301\u0301\u0301",
    "ﬁnd the eﬃcient ﬂow",
    "Ａｌｌ ｆｕｌｌ ｗｉｄｔｈ　１２３",
    "İstanbul ıßẞ ǅ Ⅻ ﬀ",
    "ΣΊΣΥΦΟΣ ὈΔΥΣΣΕΎΣ",
    "``quoted'' and ''quoted``",
    "don't can't 'tis y'all's o'clock",
    "don’t “curly” ‘quotes’ „low“ «angle»",
    ".",
    "...",
    "…",
    "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
    "-----",
    "1,000,000.00",
    "9, 10, 11,12,13",
    "3.14159e-10 0x7f 1_000 ½ ¼ ² ³ № 5",
    "https://user:secret@example.org:8443/a/b%20c?q=1&r=%F0%9F%98%80#top",
    "mailto:a.b+c@example.org ftp://[::1]/ C:\\temp\\x.txt /usr/bin/env",
    "for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; } // done",
    "SELECT * FROM t WHERE a='b' -- \"c\";",
    '{"a": [1, null, true], "b": "\\u0041\\n"}',
    "<b>bold</b> &amp; &lt;tag&gt; <br/><!-- hidden -->",
    "\u202ereversed\u202c and back",
    "שלום hello עולם 123",
    "مرحبا hello بالعالم ١٢٣",
    "привет hello 你好 こんにちは 안녕 สวัสดี",
    "аpple with a Cyrillic first letter",
    "tab\tseparated\tvalues\nnew line\r\nwindows line\rold line\x0bvertical\x0cpage",
    "\x1b[31mred\x1b[0m bell\x07 back\x08space",
    "soft\u00adhyphen zero\u200bwidth word\u2060joiner non\u200djoiner",
    "  leading and trailing   and   inner   spaces  ",
    "ＴｈＩｓ Is MiXeD CaSe AND SHOUTING",
    "Zürich Ångström naïve façade Łódź Đà Nẵng Þór ærlig œuvre",
    "a" * 300,
    "ab" * 400,
    "word" * 150 + " end",
    "supercalifragilistic" * 12,
    "你" * 200,
    "😀" * 100,
    "." * 300,
    "1" * 250,
    "a " * 300,
    "\u0301" * 60,
    "x" + "\u0323\u0301" * 40,
    " " * 500,
    "\n" * 100,
)


def characters(generator: random.Random, name: str, count: int) -> str:
    """Characters of one class."""
    found = []
    for _ in range(count):
        low, high = generator.choice(RANGES[name])
        found.append(chr(generator.randint(low, high)))
    return "".join(found)


def words_of_class(generator: random.Random) -> str:
    """A few words in one script."""
    name = generator.choice(list(RANGES))
    return " ".join(characters(generator, name, generator.randint(1, 8)) for _ in range(generator.randint(1, 6)))


def inside_ordinary(generator: random.Random) -> str:
    """An ordinary text with characters of one class put at random places, also inside words."""
    text = ordinary_text(generator, generator.choice(KINDS))
    name = generator.choice(list(RANGES))
    for _ in range(generator.randint(1, 6)):
        place = generator.randint(0, len(text))
        text = text[:place] + characters(generator, name, generator.randint(1, 3)) + text[place:]
    return text


def mixed_scripts(generator: random.Random) -> str:
    """Every word of another script, some of them glued together."""
    names = generator.sample(list(RANGES), generator.randint(2, 6))
    return generator.choice(["", " ", "\t"]).join(
        characters(generator, name, generator.randint(1, 5)) for name in names
    )


def normal_forms(generator: random.Random) -> str:
    """Accented text in a form of its own: composed, decomposed, or the compatibility forms."""
    text = characters(generator, "latin_extended", 8) + " " + characters(generator, "hangul", 4)
    text += " " + ordinary_text(generator, generator.choice(KINDS))
    return unicodedata.normalize(generator.choice(["NFC", "NFD", "NFKC", "NFKD"]), text)


def special_names(generator: random.Random) -> str:
    """Names of special tokens inside a text, with and without space around them."""
    text = ordinary_text(generator, generator.choice(KINDS)).split(" ")
    for _ in range(generator.randint(1, 3)):
        glue = generator.choice(["", "x", "."])
        text.insert(generator.randint(0, len(text)), glue + generator.choice(SPECIAL_NAMES) + glue)
    return generator.choice([" ", "", "  "]).join(text)


def emoji_sequences(generator: random.Random) -> str:
    """Joined emoji, whole and cut in the middle of a sequence."""
    text = " ".join([ordinary_text(generator, "review"), *generator.choices(EMOJI_SEQUENCES, k=3)])
    return text[: generator.randint(len(text) - 12, len(text))]


def odd_spaces(generator: random.Random) -> str:
    """An ordinary text whose spaces are other ones."""
    words = ordinary_text(generator, generator.choice(KINDS)).split(" ")
    gaps = ["\t", "\n", "\r\n", "  ", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2028", "\u0085", "\u2581", "\x1f"]
    return "".join(word + generator.choice(gaps) for word in words)


def odd_case(generator: random.Random) -> str:
    """An ordinary text in capitals, or in capitals here and there."""
    text = ordinary_text(generator, generator.choice(KINDS))
    if generator.random() < 0.3:
        return text.upper()
    return "".join(character.upper() if generator.random() < 0.3 else character for character in text)


def numbers(generator: random.Random) -> str:
    """Numbers as people write them."""
    forms = ["{:,}", "{}.00", "${}", "{}%", "-{}", "+{}", "1/{}", "{}:30", "{}-01-02", "#{}", "{}x{}", "{}e9", "({})"]
    return " ".join(
        generator.choice(forms).format(generator.randint(0, 10**9), generator.randint(0, 99))
        for _ in range(generator.randint(1, 8))
    )


FORMS: tuple[Callable[[random.Random], str], ...] = (
    words_of_class,
    inside_ordinary,
    mixed_scripts,
    normal_forms,
    special_names,
    emoji_sequences,
    odd_spaces,
    odd_case,
    numbers,
)


def hostile_rows(count: int, pair: bool, seed: int = 2) -> list[Row]:
    """`count` rows: the fixed texts first, then one form after the other; pairs take either side in turn."""
    generator = random.Random(seed)
    texts = list(FIXED[:count])
    # One text of every class alone, so that none is left to chance.
    texts += [characters(generator, name, 6) for name in RANGES][: count - len(texts)]
    while len(texts) < count:
        texts.append(FORMS[len(texts) % len(FORMS)](generator))
    if not pair:
        return [Row(text) for text in texts]
    rows = []
    for number, text in enumerate(texts):
        other = ordinary_text(generator, generator.choice(KINDS))
        rows.append((Row(text, other), Row(other, text), Row(text, text))[number % 3])
    return rows
