"""Ordinary texts by templates: reviews, tickets, news and questions, alone or as pairs.

The kind is returned as the label, so that a small network can be trained on them where a test needs one.
"""

import random

from albertine_models.rows import Row

KINDS = ("review", "ticket", "news", "question")

THINGS = (
    "kettle tent lamp blanket keyboard bicycle suitcase toaster jacket headset backpack mattress camera drill "
    "notebook clock scarf umbrella printer vacuum microphone helmet puzzle calendar chair desk mirror radio"
).split()
QUALITIES = (
    "sturdy light noisy cheap elegant comfortable fragile bright heavy reliable clumsy soft sharp slow quick quiet "
    "dull warm flimsy useful disappointing wonderful ordinary awful"
).split()
PLACES = (
    "Lisbon Oslo Nairobi Lima Osaka Toronto Krakow Porto Tallinn Quito Perth Leipzig Bergen Gdansk Cork Ghent"
).split()
PEOPLE = "Amara Bjorn Chiara Dmitri Elif Farid Greta Hiro Ines Jonas Kavya Leon Mira Noor Otto Priya".split()
PARTS = "zipper handle cable screen hinge battery lid strap button wheel switch cover lens cushion".split()
SYSTEMS = "billing search checkout reporting login export calendar inbox archive dashboard import scheduler".split()
EVENTS = (
    "a new tram line; the spring budget; a repaired bridge; an early election; a record harvest; a quiet strike; "
    "two small earthquakes; the reopened museum; a late frost; a merger of two ferries"
).split("; ")
SUBJECTS = "invoice password tariff timetable warranty permit refund passport recipe visa grant route".split()
TIMES = "yesterday;last week;this morning;on Tuesday;in March;two days ago;since the update;after lunch".split(";")

TEMPLATES = {
    "review": (
        "The {thing} is {quality} and the {part} feels {quality2}.",
        "I bought this {thing} {time}. It is {quality}, but the {part} broke within {number} days.",
        "{quality_title}! My {thing} arrived {time} and I use it every day.",
        "Not the most {quality} {thing} I have owned, yet for {number}.99 it will do.",
        "Do not buy this {thing}: the {part} is {quality} and support never answered.",
        "Five stars. {person} loves the {thing}, and so do I; even the {part} is {quality}.",
        "It's okay... the {thing} does what it should, nothing more (the {part} is rather {quality}).",
    ),
    "ticket": (
        "Hello, the {system} page shows error {number} {time}. Please help, {person}.",
        "Ticket #{number}: {system} is down for {number2} users in {place}. Steps: open, click, wait.",
        "Since {time} we cannot use {system}. Priority: high. Contact: {person}@example.org",
        "Feature request: let the {system} remember my last {number2} filters.",
        "Hi team, could you reset my access to {system}? I am locked out {time}. Thanks, {person}",
        "{system_title} exports {number} rows instead of {number2}; see https://example.org/t/{number}?tab=log",
    ),
    "news": (
        "{place}: officials announced {event} {time}, {number} people attended.",
        "Researchers from {place} and {place2} reported {event}, according to {person} Holm.",
        "In {place}, {event} kept {number} households busy {time}; {place2} sent help.",
        "Shares of the maker of the {quality} {thing} rose {number2}% {time} after {event}.",
        'The mayor of {place}, {person} Berg, called {event} "a {quality} decision" {time}.',
        "After {event}, trains between {place} and {place2} run every {number2} minutes.",
    ),
    "question": (
        "Where can I get a new {subject} in {place}?",
        "How long does a {subject} take if I applied {time}?",
        "Is the {thing} still under warranty when the {part} is {quality}?",
        "Who should I ask about my {subject}: {person} or {person2}?",
        "What's the difference between a {subject} and a {subject2}, and do I need both?",
        "Can {person} change the {subject} {time}, or is {number2} hours too late?",
    ),
}

# Share of texts made of several sentences of their kind, so that lengths differ by an order of magnitude.
LONG_SHARE = 0.15


def fill(generator: random.Random, template: str) -> str:
    """A template with its blanks filled."""
    quality, system = generator.choice(QUALITIES), generator.choice(SYSTEMS)
    return template.format(
        thing=generator.choice(THINGS),
        quality=quality,
        quality2=generator.choice(QUALITIES),
        quality_title=quality.capitalize(),
        part=generator.choice(PARTS),
        place=generator.choice(PLACES),
        place2=generator.choice(PLACES),
        person=generator.choice(PEOPLE),
        person2=generator.choice(PEOPLE),
        system=system,
        system_title=system.capitalize(),
        event=generator.choice(EVENTS),
        subject=generator.choice(SUBJECTS),
        subject2=generator.choice(SUBJECTS),
        time=generator.choice(TIMES),
        number=generator.randint(2, 9999),
        number2=generator.randint(2, 99),
    )


def ordinary_text(generator: random.Random, kind: str) -> str:
    """One text of a kind: mostly a sentence, sometimes a paragraph."""
    sentences = generator.randint(3, 9) if generator.random() < LONG_SHARE else 1
    return " ".join(fill(generator, generator.choice(TEMPLATES[kind])) for _ in range(sentences))


def ordinary_rows(count: int, pair: bool, seed: int = 1) -> list[Row]:
    """`count` rows without repeats, the four kinds in turn; the label is the kind of `text`."""
    generator = random.Random(seed)
    rows, seen = [], set()
    while len(rows) < count:
        kind = KINDS[len(rows) % len(KINDS)]
        text = ordinary_text(generator, kind)
        other = ordinary_text(generator, generator.choice(KINDS)) if pair else None
        if text not in seen:
            seen.add(text)
            rows.append(Row(text, other, kind))
    return rows
