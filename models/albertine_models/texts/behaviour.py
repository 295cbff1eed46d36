"""Behavioural tests of sentiment: short texts made by rules, each kind about one thing that must not mislead a reader.

After Ribeiro et al. 2020, "Beyond Accuracy: Behavioral Testing of NLP Models with CheckList". Nothing is drawn from a data
set, the same texts come out every time, and none of them may be trained on.
"""

import itertools
import json
import random
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from albertine_models.errors import ConversionError
from albertine_models.terminal import Terminal

NEGATIVE, NEUTRAL, POSITIVE = "negative", "neutral", "positive"

# Of each kind; fewer rules than that would be about a few sentences and not about a kind.
CASES = 60


@dataclass(frozen=True)
class Case:
    """One text, what it is as the rule that made it says, and its kind."""

    text: str
    label: str
    kind: str


THINGS = "kettle;lamp;tent;keyboard;jacket;camera;novel;blender;headset;mattress;printer;scarf".split(";")
PARTS = "handle;cable;screen;lid;strap;button;hinge;cover".split(";")
GOOD = "wonderful;excellent;lovely;brilliant;fantastic;great;superb;delightful".split(";")
BAD = "awful;terrible;horrible;useless;dreadful;disappointing;poor;lousy".split(";")
PLAIN = (
    "comes in two sizes;has a cable of two metres;was made in Portugal;weighs 400 grams;is sold in a grey box;runs on four "
    "batteries"
).split(";")
PRAISE = (
    "I love it;I would buy it again at once;it makes me happy every day;I recommend it to everyone;it is the best I have ever "
    "had;it works perfectly"
).split(";")
BLAME = (
    "I sent it back;it broke within a week;I regret buying it;I would not give it to my worst enemy;it is a waste of "
    "money;it stopped working on the second day"
).split(";")

NAMES = (
    "Emily Jack Lakisha Jamal Aisha Mohammed Wei Mei Priya Rahul Carlos Guadalupe Kwame Ngozi Yuki Hiroshi Olga Dmitri "
    "Siobhan Lars Fatima Ahmed Rivka Moshe Thabo Nomvula"
).split()
PEOPLE = (
    "my husband;my wife;my girlfriend;my boyfriend;my two mothers;my grandfather;a gay friend of mine;a Muslim "
    "colleague;a Jewish neighbour;a Black teacher;an old woman;a young man;a trans friend;a deaf student;a Polish nurse;the "
    "priest"
).split(";")

SLANG = {
    POSITIVE: (
        "Chuffed to bits with this {thing}.;This {thing} is the bee's knees.;Pure dead brilliant, this {thing}.;Heaps good "
        "{thing}, no worries at all.;That {thing} be hittin every time, on God.;Yo this {thing} slaps.;Full paisa vasool, this "
        "{thing}, very happy only.;Ah sure the {thing} is only gorgeous.;This {thing} is lush, like.;Y'all need this "
        "{thing}, it's fixin to change your life."
    ).split(";"),
    NEGATIVE: (
        "This {thing} is proper rubbish, mate.;Absolute pants, that {thing}.;The {thing} is pure mince, so it is.;Dodgy "
        "{thing}, went bung in a week.;This {thing} ain't worth nothin.;That {thing} been trippin since day one.;Total bakwas "
        "this {thing}, money gone.;The {thing} is a load of shite, to be fair.;This {thing} is mid at best, I want my money "
        "back.;I'm fixin to throw this sorry {thing} out."
    ).split(";"),
}

EMOJI = {POSITIVE: "😍 🥰 👍 🎉 ❤️ 😊 🙌 🤩".split(), NEGATIVE: "😡 👎 😠 🤮 💔 😭 🤬 😤".split()}
EMOTICONS = {POSITIVE: ":) :-) :D ;) =) <3 :-D ^_^".split(), NEGATIVE: ":( :-( :'( >:( =( </3 D: :-/".split()}


def filled(templates, **words):
    """Every template with every choice of words that it names, in a shuffled order that is always the same."""
    found = []
    for template in templates:
        names = [name for name in words if "{" + name + "}" in template]
        for choice in itertools.product(*(words[name] for name in names)):
            found.append(template.format(**dict(zip(names, choice))))
    random.Random(len(found)).shuffle(found)
    return found


def sentence(text):
    """The text with a capital first letter, and with `an` where it has to be."""
    text = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text)
    return text[:1].upper() + text[1:]


def verdicts(label, templates, **words):
    """Cases of one label, more than are needed."""
    return [(sentence(text), label) for text in filled(templates, thing=THINGS, part=PARTS, **words)]


def evenly(*groups):
    """As many cases of each group as of the others, up to the number of a kind."""
    share = CASES // len(groups)
    return [case for group in groups for case in group[:share]]


def negation():
    """A word of praise that is denied, near and far."""
    denied = [
        "The {thing} is not {good}.",
        "I can't say that the {thing} is {good}.",
        "Nobody in this house would call the {thing} {good}.",
        "There is nothing {good} about this {thing}.",
        "I had hoped, after all that I had read, for a {good} {thing}, and it isn't.",
        "It is hardly a {good} {thing}.",
    ]
    problems = "trouble;problems;reason to complain;regrets".split(";")
    without = ["I have had no {problem} with the {thing}.", "The {thing} gives me no {problem} whatsoever."]
    return evenly(verdicts(NEGATIVE, denied, good=GOOD), verdicts(POSITIVE, without, problem=problems))


def understatement():
    """Praise by denying blame."""
    templates = [
        "Not bad at all, this {thing}.",
        "You can't go wrong with this {thing}.",
        "I can't fault the {thing}.",
        "There is nothing I would change about the {thing}.",
        "The {thing} is anything but {bad}.",
        "Never once has the {thing} let me down.",
        "I couldn't be happier with the {thing}.",
    ]
    return evenly(verdicts(POSITIVE, templates, bad=BAD))


def contrast():
    """Two opinions, the second of which is the verdict."""
    good = ["The {part} is {bad}, but {praise}.", "Yes, the {part} is {bad}. Still, {praise}."]
    bad = ["The {part} is {good}, but {blame}.", "Everyone says the {thing} is {good}; however, {blame}."]
    return evenly(verdicts(POSITIVE, good, bad=BAD, praise=PRAISE), verdicts(NEGATIVE, bad, good=GOOD, blame=BLAME))


def concession():
    """Two opinions, the first of which is granted and does not count."""
    good = ["Although the {part} is {bad}, {praise}.", "Even though it arrived with a {bad} {part}, {praise}."]
    bad = ["Although the {part} is {good}, {blame}.", "Despite its {good} {part}, {blame}."]
    return evenly(verdicts(POSITIVE, good, bad=BAD, praise=PRAISE), verdicts(NEGATIVE, bad, good=GOOD, blame=BLAME))


def plain_verdicts():
    """One clear opinion, which other kinds disturb."""
    return (
        verdicts(POSITIVE, ["This {thing} is {good}, {praise}."], good=GOOD, praise=PRAISE),
        verdicts(NEGATIVE, ["This {thing} is {bad}, {blame}."], bad=BAD, blame=BLAME),
    )


def misspelt(word, generator):
    """A word with two neighbours swapped, a letter left out, or one doubled."""
    at = generator.randrange(1, len(word) - 1)
    ways = [
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
    ]
    return generator.choice(ways)


def typos():
    """Every long word misspelt."""
    generator = random.Random(3)

    def disturbed(text):
        return re.sub(r"[a-zA-Z]{5,}", lambda match: misspelt(match[0], generator), text)

    return [(disturbed(text), label) for text, label in evenly(*plain_verdicts())]


def capitals():
    """Shouting."""
    return [(text.upper().rstrip(".") + "!!!", label) for text, label in evenly(*plain_verdicts())]


def stretched():
    """Vowels drawn out."""
    good = ["Sooo {good}!", "This {thing} is sooooo {good}."]
    bad = ["Sooo {bad}!", "This {thing} is sooooo {bad}."]

    def drawn_out(text):
        head, word, tail = re.match(r"(.*\W)(\w+)(\W+)$", text).groups()
        vowels = [at for at, letter in enumerate(word) if letter in "aeiou"]
        at = vowels[-1]
        return head + word[:at] + word[at] * 4 + word[at + 1 :] + tail

    cases = evenly(verdicts(POSITIVE, good, good=GOOD), verdicts(NEGATIVE, bad, bad=BAD))
    return [(drawn_out(text), label) for text, label in cases]


def emoji():
    """A fact whose only opinion is its emoji."""
    templates = ["My {thing} came today {sign}", "So this is the new {thing} {sign}{sign}", "The {thing} again {sign}"]
    return evenly(*(verdicts(label, templates, sign=signs) for label, signs in EMOJI.items()))


def emoticons():
    """The same with signs of the keyboard."""
    templates = ["My {thing} came today {sign}", "So this is the new {thing} {sign}", "The {thing} again {sign}"]
    return evenly(*(verdicts(label, templates, sign=signs) for label, signs in EMOTICONS.items()))


def sarcasm():
    """Praise of what nobody praises."""
    templates = [
        "Oh {good}, the {part} broke on the first day.",
        "{good}, another {thing} that arrives without a {part}.",
        "Thanks a lot for the {thing} that set fire to my kitchen. {good} work.",
        "I just love waiting three weeks for a {thing} without a {part}.",
        "What a {good} idea to make the {part} of paper.",
        "If you enjoy returning things, this is the {thing} for you.",
    ]
    return evenly(verdicts(NEGATIVE, templates, good=GOOD))


def names():
    """Whoever it is, the opinion is the same."""
    return evenly(
        verdicts(POSITIVE, ["{name} loves the {thing} and uses it every day."], name=NAMES),
        verdicts(NEUTRAL, ["{name} ordered a {thing} on Monday."], name=NAMES),
        verdicts(NEGATIVE, ["{name} hates the {thing} and wants the money back."], name=NAMES),
    )


def groups():
    """Whoever they are, a fact about them is a fact, and their opinion is theirs."""
    return evenly(
        verdicts(POSITIVE, ["I bought the {thing} for {people}, and it is {good}."], people=PEOPLE, good=GOOD),
        verdicts(NEUTRAL, ["The {thing} was ordered by {people}.", "{people} {plain}."], people=PEOPLE, plain=[
            "lives next door", "takes the bus to work", "asked about the {thing}".format(thing="lamp")]),
        verdicts(NEGATIVE, ["I bought the {thing} for {people}, and it is {bad}."], people=PEOPLE, bad=BAD),
    )  # fmt: skip


def dialects():
    """English as it is spoken in London, Glasgow, Dublin, Sydney, Delhi, Cardiff, Atlanta and on the net."""
    return evenly(*(verdicts(label, templates) for label, templates in SLANG.items()))


def change():
    """What was is not what is."""
    good = [
        "The {thing} used to be {bad}, but since the update {praise}.",
        "At first I hated the {thing}. Now {praise}.",
    ]
    bad = ["The {thing} used to be {good}. Now {blame}.", "At first I loved the {thing}. Then {blame}."]
    return evenly(
        verdicts(POSITIVE, good, bad=BAD, praise=["I love it", "I would not be without it", "it is the best I have"]),
        verdicts(NEGATIVE, bad, good=GOOD, blame=["it is useless", "it broke for good", "I have to send it back"]),
    )


def conditions():
    """What would be is not what is."""
    bad = [
        "It would have been a {good} {thing} if it had worked.",
        "If only the {part} held, this would be a {good} {thing}.",
        "I would have given five stars, had the {thing} not caught fire.",
        "You might like it if you don't mind a broken {part}.",
    ]
    good = ["If I could give the {thing} six stars, I would.", "I would buy a second {thing} if I had the room."]
    return evenly(verdicts(NEGATIVE, bad, good=GOOD), verdicts(POSITIVE, [*good, "Had I known how {good} the {thing} is, I "
        "would have bought it years ago."], good=GOOD))  # fmt: skip


def comparison():
    """Who is better than whom."""
    good = [
        "Better than any {thing} I have owned.",
        "My old {thing} was {bad} next to this one.",
        "No other {thing} comes close.",
        "I have never had a better {thing}.",
    ]
    bad = [
        "My old {thing} was so much better.",
        "I have never had a worse {thing}.",
        "Any other {thing} would have been {good} next to this one.",
        "Even the cheapest {thing} of the shop next door is better.",
    ]
    return evenly(verdicts(POSITIVE, good, bad=BAD), verdicts(NEGATIVE, bad, good=GOOD))


def quotations():
    """The opinion of others, and one's own."""
    good = ['My sister calls the {thing} "{bad}". I disagree: {praise}.', "The reviews said {bad}. Not so, {praise}."]
    bad = [
        'The advertisement calls the {thing} "{good}". It lies: {blame}.',
        "The reviews said {good}. Not so, {blame}.",
    ]
    return evenly(verdicts(POSITIVE, good, bad=BAD, praise=PRAISE), verdicts(NEGATIVE, bad, good=GOOD, blame=BLAME))


def stars():
    """Opinions in numbers."""
    form = ["{thing}: {stars}.", "{stars} for this {thing}.", "My rating of the {thing}: {stars}."]
    return evenly(
        verdicts(POSITIVE, form, stars=["5 out of 5", "10/10", "five stars", "9 out of 10", "A+"]),
        verdicts(NEUTRAL, form, stars=["3 out of 5", "5/10", "three stars", "2.5 out of 5"]),
        verdicts(NEGATIVE, form, stars=["1 out of 5", "0/10", "one star", "2 out of 10", "zero stars"]),
    )


def facts():
    """No opinion, whatever the words remind of."""
    templates = [
        "The {thing} {plain}.",
        "The film tells the story of a murdered {people}.",
        "The lecture about {topic} begins at nine.",
        "Her new novel deals with {topic}.",
        "The museum of {topic} is closed on Mondays.",
        'The word "{good}" has {number} letters.',
    ]
    topics = "war;cancer;love;happiness;the plague;friendship;hunger;fraud;beauty;the earthquake".split(";")
    people = "teacher;farmer;singer;judge".split(";")
    plain = [f'The word "{word}" has {len(word)} letters.' for word in GOOD + BAD]
    return evenly([*verdicts(NEUTRAL, templates[:1], plain=PLAIN)[:20], *verdicts(NEUTRAL, templates[1:5], topic=topics,
        people=people)[:30], *((text, NEUTRAL) for text in plain)])  # fmt: skip


def questions():
    """Whoever asks has no opinion yet."""
    templates = [
        "Does the {thing} come with a {part}?",
        "How long is the warranty of the {thing}?",
        "Is the {part} of the {thing} any good?",
        "Has anyone tried the {thing} in the rain?",
        "Which is better, the small {thing} or the large one?",
    ]
    return evenly(verdicts(NEUTRAL, templates))


def noise():
    """What stands around an opinion on the net."""
    around = [
        "@shop_help {text} #order{number}",
        "<p>{text}</p><br />",
        "{text} https://example.com/p/{number}?ref=mail",
        "RT @someone: {text}",
        "&gt;&gt; {text}   ...",
        "[{number}] {text} (sent from my phone)",
    ]
    found = []
    for number, ((text, label), form) in enumerate(zip(evenly(*plain_verdicts()), itertools.cycle(around))):
        found.append((form.format(text=text, number=1000 + number), label))
    return found


def long_texts():
    """One sentence of opinion among many of fact."""
    generator = random.Random(5)
    fact = filled(["The {thing} {plain}.", "It came in a box with a {part}.", "I ordered it on a Tuesday."], thing=THINGS,
        part=PARTS, plain=PLAIN)  # fmt: skip
    found = []
    for text, label in evenly(*plain_verdicts()):
        sentences = generator.sample(fact, 12)
        sentences.insert(generator.randrange(13), text)
        found.append((" ".join(sentence(part) for part in sentences), label))
    return found


KINDS = {
    "negation": negation,
    "understatement": understatement,
    "contrast": contrast,
    "concession": concession,
    "typos": typos,
    "capitals": capitals,
    "stretched": stretched,
    "emoji": emoji,
    "emoticons": emoticons,
    "sarcasm": sarcasm,
    "names": names,
    "groups": groups,
    "dialects": dialects,
    "change": change,
    "conditions": conditions,
    "comparison": comparison,
    "quotations": quotations,
    "stars": stars,
    "facts": facts,
    "questions": questions,
    "noise": noise,
    "long texts": long_texts,
}


def cases() -> list[Case]:
    """All cases, kind by kind."""
    return [Case(text, label, kind) for kind, make in KINDS.items() for text, label in make()[:CASES]]


def write_cases(path: Path, terminal: Terminal):
    """Writes every case as a line of JSON."""
    rows = [json.dumps(asdict(case), ensure_ascii=False) + "\n" for case in cases()]
    try:
        path.write_text("".join(rows), encoding="utf-8")
    except OSError as cause:
        raise ConversionError(f"cannot write `{path}`: {cause}") from cause
    terminal.say(f"wrote {len(rows):,} texts of {len(KINDS)} kinds to {path}")
