"""Short texts made by rules, for constructions that turn an opinion round and that data sets hold too few of.

Reviews rarely say "not bad at all", and a model that learns from them alone adds up words. The sentences here are others than
those of the behavioural tests (`albertine_models/texts/behaviour.py`): other frames, other things, other verdicts, so that the
tests say whether a construction was understood and not whether a sentence was seen. `overlaps` removes what is equal.
"""

import dataclasses
import random
import re

from data_sets import Example

NEGATIVE, NEUTRAL, POSITIVE = range(3)

# Of each kind and label. With a third of them and two thirds of the weight, what they are about was not learnt.
CASES = 1500

# They are right by rule, but made: half of a real text's weight.
WEIGHT = 0.5

# Real short texts that are disturbed by typos, capitals and stretched vowels.
DISTURBED = 9000

WORDS = {
    "thing": "phone;sofa;hotel;restaurant;book;movie;album;app;course;bike;flight;laptop;toaster;monitor;speaker;backpack;watch;"
    "drill;mattress topper;cafe;podcast;series;game;router;stroller;tripod;pillow;knife;show;play;museum;beach bar;charger;"
    "vacuum;perfume;moisturiser;driver;waiter;update;website;delivery;support team;sequel;ending;soundtrack;plot;cast",
    "part": "battery;zip;lens;motor;cushion;wheel;charger;seat;sole;lining;touchpad;remote;menu;sound;picture;dialogue;"
    "acting;packaging;app;manual;colour;smell",
    "good": "good;nice;amazing;perfect;beautiful;solid;impressive;enjoyable;terrific;outstanding;first-rate;charming;"
    "comfortable;reliable;fun;awesome;incredible;gorgeous;great;excellent;wonderful;clever;delicious",
    "bad": "bad;rubbish;ugly;mediocre;boring;pathetic;flimsy;unreliable;annoying;dull;shoddy;atrocious;noisy;cheap and "
    "nasty;worthless;frustrating;horrid;abysmal;awful;terrible;disappointing;dreary;tasteless",
    "praise": "I adore it;I am thrilled;it does its job beautifully;I use it all the time;we had a great time;I can only "
    "recommend it;I would order again;it was worth every penny;it never fails me;it exceeded my expectations;everybody at home "
    "is happy with it;I enjoyed every minute;it is a keeper",
    "blame": "I want a refund;it is going in the bin;I can't stand it;we left early;I was bored to tears;it fell apart in my "
    "hands;I would never order again;avoid it;it is money down the drain;it gave me nothing but trouble;I ended up throwing it "
    "away;I have rarely been so let down;do not bother",
    "who": "My brother;Our neighbour;Everyone at work;The critic;The shop assistant;My aunt;A colleague;The magazine;The blurb;"
    "Half the internet;My flatmate;The brochure",
    "fact": "is blue;was released in March;comes with two cables;is available in three colours;opens at ten;has four doors;"
    "measures thirty centimetres;was filmed in Spain;is made of steel;was delivered on Thursday;runs for ninety minutes;is "
    "the second one of the series;needs two screws;is sold online",
    "mishap": "it arrived in pieces;they sent me somebody else's parcel;it smells of petrol;it rusted overnight;I got charged "
    "twice;nobody answers the phone;it came loose within the hour;half of the screws were missing;it does not even switch on;"
    "they closed early and told nobody;it scratched my floor;the cat broke it by looking at it;it took them six weeks;it crashed "
    "before the first page;they forgot half of my order;the stain will not come out",
}

KINDS = {
    "negation": {
        NEGATIVE: "The {thing} isn't {good}.;I don't find this {thing} {good} at all.;It wasn't {good}, this {thing}.;Never "
        "again: the {thing} was not {good}.;I didn't think the {thing} was {good}.;There was little that was {good} about the "
        "{thing}.;Far from {good}, this {thing}.;The {thing} fails to be {good}.;Not a {good} {thing}.;Neither {good} nor "
        "useful, this {thing}.;I wouldn't say the {part} is {good}.;The {thing} lacks a {good} {part}.;I do not like the "
        "{thing}.;I don't recommend the {thing}.;It doesn't work, and it isn't {good}.",
        POSITIVE: "The {thing} isn't {bad}.;I don't find this {thing} {bad} at all.;It wasn't {bad}, this {thing}.;I never found "
        "the {thing} {bad}.;There is nothing {bad} about the {thing}.;Far from {bad}, this {thing}.;Not {bad} in the least.;Not "
        "a {bad} {thing} at all.;I can't complain about the {thing}.;Nothing to complain about with this {thing}.;No issues "
        "whatsoever with the {part}.;The {thing} did not disappoint.;I have no complaints about the {thing}.;You won't regret "
        "getting the {thing}.;It is hard to find anything {bad} in this {thing}.;I couldn't ask for a better {thing}.;I could "
        "not be more pleased with the {thing}.;The {part} has never let us down.;Can't say a bad word about the {thing}.",
    },
    "litotes": {
        POSITIVE: "Nothing wrong with this {thing}.;You will not do wrong with this {thing}.;Hard to fault, this {thing}.;I find no "
        "fault with the {part}.;There's nothing I don't like about it.;Not one thing about the {thing} annoys me.;It is no {bad} "
        "{thing}, quite the opposite.;The {part} is by no means {bad}.;Nothing about the {thing} is {bad}.;In two years the {part} "
        "has not failed once.;It hasn't let anyone down yet.;I would not swap this {thing} for another.;I wouldn't want to be "
        "without my {thing}.;Couldn't be more content.;I can't think of anything to improve.;The {thing} is not {bad}, it is "
        "{good}.;Hardly a {bad} {thing}.;Not once did I regret the {thing}.;Never a dull moment with this {thing}.",
        NEGATIVE: "Not exactly {good}.;Not what I would call {good}.;It is no {good} {thing}, quite the opposite.;The {part} is by no "
        "means {good}.;Nothing about the {thing} is {good}.;I can think of a lot to improve.;Not one thing about the {thing} "
        "pleases me.;I could be happier with it.;I would gladly swap this {thing} for another.;I find fault with the {part} every "
        "day.;It has let us down more than once.;Easy to fault, this {thing}.;The {thing} is not {good}, it is {bad}.;Hardly a "
        "sign of {good} work, this {part}.;Not once did the {thing} do what it should.",
    },
    "contrast": {
        POSITIVE: "The {part} was {bad} but {praise}.;{bad} {part}, yet {praise}.;I had doubts about the {part}, but {praise}.;The "
        "{part} looks {bad}. Nevertheless {praise}.;Despite the {bad} {part}, {praise}.;Although the {part} was {bad}, {praise}."
        ";Though some call the {part} {bad}, {praise}.;In spite of a {bad} {part}, {praise}.;Granted, the {part} is {bad}, but "
        "{praise}.;{who} found it {bad}, but {praise}.;A bit {bad} at first, but {praise}.",
        NEGATIVE: "The {part} was {good} but {blame}.;{good} {part}, yet {blame}.;I had hopes for the {part}, but {blame}.;The "
        "{part} looks {good}. Nevertheless {blame}.;Despite the {good} {part}, {blame}.;Although the {part} was {good}, {blame}."
        ";Though some call the {part} {good}, {blame}.;In spite of a {good} {part}, {blame}.;Granted, the {part} is {good}, but "
        "{blame}.;{who} found it {good}, but {blame}.;Quite {good} at first, but {blame}.",
    },
    "change": {
        POSITIVE: "The {thing} was {bad} last year. These days {praise}.;I used to find it {bad}, but now {praise}.;After a {bad} "
        "start, {praise}.;It began {bad} and ended {good}.;They fixed the {bad} {part}, and now {praise}.;Once {bad}, now {good}."
        ";I expected something {bad}. Instead {praise}.",
        NEGATIVE: "The {thing} was {good} last year. These days {blame}.;I used to find it {good}, but now {blame}.;After a {good} "
        "start, {blame}.;It began {good} and ended {bad}.;They ruined the {good} {part}, and now {blame}.;Once {good}, now {bad}."
        ";I expected something {good}. Instead {blame}.",
    },
    "comparison": {
        POSITIVE: "Much better than the {thing} I had before.;The best {thing} I have come across.;Nothing beats this {thing}.;Beats "
        "every {bad} {thing} on the market.;I have seen many a {thing}, and this one wins.;Compared with this, other ones are "
        "{bad}.;So much nicer than the {bad} {thing} of my friend.;Unlike the last {thing}, this one is {good}.",
        NEGATIVE: "Much worse than the {thing} I had before.;The worst {thing} I have come across.;Anything beats this {thing}.;Even "
        "a {bad} {thing} would do better.;I have seen many a {thing}, and this one comes last.;Compared with this, other ones "
        "are {good}.;I miss my old {thing}.;The one before this was in a different league.;The {thing} of my neighbour is far more "
        "{good}.;A free {thing} from the skip would serve me better.;Unlike the last {thing}, this one is {bad}.;The previous "
        "{thing} was far more {good}.",
    },
    "hypothesis": {
        NEGATIVE: "It could have been {good}.;It should have been a {good} {thing}.;With a working {part} it might be {good}.;I would "
        "have loved it if the {part} had lasted.;It would be {good} if it did what it promises.;I wish the {thing} were {good}."
        ";Had they tested the {part}, it might have been {good}.;I wanted it to be {good}.",
        POSITIVE: "I would give it ten stars if I could.;I wish I had found this {thing} earlier.;If you can get this {thing}, do.;I "
        "only wish it came in more colours, {praise}.;You would be mad to miss this {thing}.",
    },
    "quotation": {
        POSITIVE: '{who} said the {thing} was {bad}. They are wrong, {praise}.;"{bad}", says {who}. I think otherwise: {praise}.;'
        "I had read that it was {bad}, but that is nonsense: {praise}.;Don't believe those who call it {bad}: {praise}.",
        NEGATIVE: '{who} said the {thing} was {good}. They are wrong, {blame}.;"{good}", says {who}. I think otherwise: {blame}.;'
        "I had read that it was {good}, but that is nonsense: {blame}.;Don't believe those who call it {good}: {blame}.",
    },
    "sarcasm": {
        NEGATIVE: "Wow, a {thing} that stops working after an hour. {good}!;Well done, the {part} fell off.;{good}! Two weeks late and "
        "the wrong size.;How {good}, it leaks.;Yeah, right, {good} {part}.;I so enjoyed being on hold for two hours.;Just what I "
        "needed, a {thing} without instructions.;Brilliant design: the {part} melts in the sun.;Thanks for nothing.;Another "
        "cancelled {thing}, how {good}.;Love it when the {part} dies at noon.;Sure, because who needs a {part} that works.;Great "
        "job losing my order again.;A real masterpiece, if you like to sleep.;Oh joy, {mishap}.;How {good}, {mishap}.;{good}. Simply "
        "{good}: {mishap}.;So {good} that {mishap}.;What a surprise, {mishap}.;What a {good} {thing}: {mishap}.;Yet another {thing} "
        "with a {bad} {part}, how {good}.;I do love it when {mishap}.;Congratulations to whoever made this {thing}, {mishap}.;Many "
        "thanks for the {thing} that ruined my evening.;A {thing} for people who love to be put on hold.;The ideal {thing} for "
        "anybody who likes to complain.;{good} job, {mishap}.;Because what everybody wants is a {thing} with a {bad} {part}.;"
        "Repairing my {thing} every weekend is my favourite hobby.;{good} news: {mishap}.;Apparently {good} means that {mishap}.",
        POSITIVE: "How {good}, {praise}.;What a {good} {thing}: {praise}.;{good} job, {praise}.;Many thanks for the {thing}, {praise}."
        ";Just what I needed, {praise}.;I do love it when a {thing} simply works.;The ideal {thing} for anybody who likes to cook.;"
        "Congratulations to whoever made this {thing}, {praise}.;{good}! Two days early and gift-wrapped.;What a surprise, {praise}."
        ";So {good} that I got a second one.;{good} news: {praise}.",
    },
    "stretched": {
        POSITIVE: "so {long_good};{long_good} {thing};{long_good}!!;it was {long_good}, {praise};yesss, {long_good};the {part} looks "
        "{long_good};really {long_good}, this {thing};The {thing} was {long_good}.;{long_good}, {long_good}!;looove this {thing}",
        NEGATIVE: "so {long_bad};{long_bad} {thing};{long_bad}!!;it was {long_bad}, {blame};nooo, {long_bad};the {part} looks "
        "{long_bad};really {long_bad}, this {thing};The {thing} was {long_bad}.;{long_bad}, {long_bad}!;haaate this {thing}",
    },
    "facts": {
        NEUTRAL: "The {thing} {fact}.;This {thing} {fact}.;{who} says that the {thing} {fact}.;According to the label, the {thing} "
        "{fact}.;The {part} of the {thing} {fact}.;It {fact}.;The {thing} {fact} and {fact}.;The book is about the war.;The "
        "documentary covers the flood.;A lecture on poverty takes place in May.;The article describes the disease.;The exhibition "
        "shows paintings of joy and grief.;The word {good} comes from Old English.;In chapter two the hero dies.;She works as a "
        "nurse.;The bus stops here.;We took the train to the office.;He asked where the {thing} was.;I received the {thing} on "
        "Friday.;I have had the {thing} for a week.;Press the button beside the {part} to start it.;To open the {part}, turn it to the "
        "left.;It replaces a {thing} that I had for six years.;I ordered it with a spare {part}.;The {thing} came with a {part} and "
        "a manual.;I keep the {thing} in the kitchen.;{who} gave me the {thing} for my birthday.;Before that I had a {thing} of "
        "another make.;You have to charge it for two hours first.;The {thing} {fact}, and the {part} {fact}.;{who} asked about "
        "the {part}.;If you hold the {part} down, the {thing} switches to the next setting.;It is meant to go under the {part}.",
    },
    "questions": {
        NEUTRAL: "What colour is the {thing}?;Can the {part} be replaced?;Is the {thing} available in other sizes?;Who made the {thing}?"
        ";Where can I find the manual of the {thing}?;Is the {thing} {good}?;Is the {thing} {bad}?;How do I reset the {thing}?;When "
        "will the {thing} be back?;Do you ship the {thing} abroad?;Has the {part} been changed?;Should I get the {thing} or wait?",
    },
    "numbers": {
        POSITIVE: "5/5;{thing}, 5 stars.;4.5 out of 5;9/10 would buy again;Ten out of ten.;I give it 5 stars.;Five stars from me.;"
        "100/100;Grade: A.;Rating 10.;Solid 9.",
        NEUTRAL: "3/5;{thing}, 3 stars.;6/10;Three out of five.;I give it 3 stars.;Middle of the road, 3 stars.;50/100;Grade: C.",
        NEGATIVE: "1/5;{thing}, 1 star.;0.5 out of 5;2/10 would not buy again;Zero out of ten.;I give it 1 star.;One star from me.;"
        "0/100;Grade: F.;Rating 1.;Two stars at most.",
    },
    "signs": {
        POSITIVE: "{glad};{thing} {glad};just got the {thing} {glad};{who} and the {thing} {glad}{glad};it {fact} {glad};finally "
        "{glad};{glad}{glad}{glad};{praise} {glad}",
        NEGATIVE: "{sad};{thing} {sad};just got the {thing} {sad};{who} and the {thing} {sad}{sad};it {fact} {sad};finally "
        "{sad};{sad}{sad}{sad};{blame} {sad}",
    },
    "slang": {
        POSITIVE: "this {thing} rocks;this {thing} is fire;dope {thing};sick {thing}, love it;the {thing} is a banger;class, this "
        "{thing};well good, that {thing};this {thing} is lit;no cap, {good} {thing};10x better, ngl;a cracking {thing};grand "
        "{thing}, so it is;chef's kiss;this {thing} goes hard;top notch;a corker;hella {good};smashing;mint condition and a "
        "belter of a {thing};can't fault it",
        NEGATIVE: "this {thing} sucks;what a rip-off;total garbage;this {thing} is trash;meh, bin it;crap {thing};naff {thing};this "
        "{thing} blows;a right mess;what a joke;utter tosh;pile of junk;hot mess;lame;ain't no good;busted on arrival;clapped "
        "out {thing};shambles;gone to the dogs;a dud",
    },
}

GLAD = "😀 😁 😂 😃 😄 😆 😉 😋 😎 😘 😗 🙂 🤗 💖 💕 💜 💙 💯 👏 👌 ✨ 🔥 ⭐ 😻 🤩 🥳 ♡ :) :-) :] xD :P ;-) \\o/ (: 😍 👍 ❤️ 🎉".split()
SAD = "😒 😔 😕 🙁 😖 😞 😟 😢 😥 😩 😫 😣 😨 😱 😾 🤢 🤦 💩 😑 😪 ☹️ 🖕 :/ :-( :[ :-| D-: ;( T_T -_- ): 😡 👎 😭 💔".split()


def filled(template, generator):
    """A template with a drawn word in each place; `{long_good}` is one of the `good` with a vowel drawn out."""
    words = {"glad": GLAD, "sad": SAD} | {name: words.split(";") for name, words in WORDS.items()}

    def word(match):
        if match[1].startswith("long_"):
            return stretched(generator.choice(words[match[1].removeprefix("long_")]), generator)
        return generator.choice(words[match[1]])

    text = re.sub(r"\{(\w+)\}", word, template)
    text = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text)
    return text if generator.random() < 0.2 else text[:1].upper() + text[1:]


def made():
    """Texts of every kind, without repetitions."""
    generator = random.Random(11)
    found = {}
    for kind, by_label in KINDS.items():
        for label, templates in by_label.items():
            choices = templates.split(";")
            for _ in range(CASES):
                found[filled(generator.choice(choices), generator)] = Example("", label, WEIGHT, f"made_{kind}")
    return [Example(text, example.label, example.weight, example.source) for text, example in found.items()]


def misspelt(text, generator):
    """A text in which every third longer word has two letters swapped, one missing, or one doubled."""

    def change(match):
        word = match[0]
        if generator.random() > 1 / 3:
            return word
        at = generator.randrange(1, len(word) - 1)
        ways = [
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at : at + 1] + word[at:],
        ]
        return generator.choice(ways)

    return re.sub(r"[A-Za-z]{4,}", change, text)


def stretched(text, generator):
    """A text in which one vowel is drawn out."""
    places = [match.start() for match in re.finditer(r"[aeiou](?=\w{0,2}\b)", text)]
    if not places:
        return text
    at = generator.choice(places)
    return text[:at] + text[at] * generator.randint(3, 6) + text[at + 1 :]


def disturbed(examples):
    """Real short texts as people type them."""
    generator = random.Random(12)
    short = [example for example in examples if 20 < len(example.text) < 160]
    ways = [
        (misspelt, "typos"),
        (misspelt, "typos"),
        (stretched, "stretched"),
        (lambda text, _: text.upper() + "!", "capitals"),
    ]
    found = []
    for example in generator.sample(short, min(DISTURBED, len(short))):
        way, name = generator.choice(ways)
        found.append(dataclasses.replace(example, text=way(example.text, generator), source=f"disturbed_{name}"))
    return found
