"""Texts of the golden file: written for it, none taken from a data set.

They cover what a stream brings: ordinary reviews of several lengths, and texts at the edges of tokenisation.
"""

ORDINARY = [
    "I love this kettle. It boils fast and looks great on the counter.",
    "The zipper broke on the second day and nobody answers my mails.",
    "The parcel contains one cable, one adapter and a manual.",
    "Terrible. Just terrible.",
    "Best purchase of the year!",
    "It is okay.",
    "The meeting starts at nine in the small hall.",
    "The plot makes no sense, but the music is wonderful and I would watch it again.",
    "Not bad at all, in fact rather good.",
    "I would not recommend this to my worst enemy.",
    "I wanted to like it. I really did. I could not.",
    "Arrived on time, works as described.",
    "The battery lasts about four hours, which is what the box says.",
    "My daughter adores the puzzle and asks for it every evening.",
    "After the update the phone restarts by itself three times a day.",
    "The committee will publish its report on Tuesday.",
    "What a waste of two hours.",
    "Warm, funny and beautifully acted from the first scene to the last.",
    "The gloves are blue.",
    "Service was slow, the soup was cold, and the bill was wrong.",
    "Our flight left at 10:45 from gate B12.",
    "Thank you so much for finding my suitcase, you made my day!",
    "Does this lamp come with a European plug?",
    "Neither the best nor the worst blender I have owned.",
    "It does what it should, nothing more and nothing less.",
    "The first half is brilliant; the second half throws it all away.",
    "Never again.",
    "The screen is bright and sharp, the speakers are weak, and for this price I am satisfied.",
    "I returned it the same week because the handle came off while I was pouring hot water.",
    "The minister said that the new line would open in spring and that tickets would cost as much as before.",
    "Honestly, who approved this design?",
    "The keys feel solid, the software is simple, and support answered within the hour. Five stars from me.",
    "The book has 320 pages and was printed in Leipzig.",
    "You get what you pay for, and I paid very little.",
    "Could be better, could be worse.",
]

LONG = [
    "I bought this tent for a week on the coast, and it was the best decision of the whole trip. It goes up in five "
    "minutes, it kept us dry through two nights of heavy rain, and it packs down smaller than my old one. The pegs are "
    "a little soft, so bring your own for stony ground, but that is the only thing I can complain about.",
    "We stayed three nights. The room smelled of smoke, the shower dripped, and the people next door argued until two "
    "in the morning. When I asked for another room the man at the desk laughed. Breakfast was a bun and a coffee from "
    "a machine. I have slept in better places for half the money and I will certainly not come back.",
    "The museum opened in 1911 in the old customs house near the harbour. Its first floor shows maps and instruments, "
    "the second floor holds the library, and the third is used for changing exhibitions. It is closed on Mondays. A "
    "guided tour takes about ninety minutes and can be booked at the entrance.",
    "This is my third pair of headphones from this maker, so I knew roughly what to expect. The sound is what I hoped "
    "for: clear voices, a bass that is there when the record has one, and no hiss at night when the house is silent. "
    "The cable is long enough to reach from the shelf to the armchair. What I did not expect was the new headband. It "
    "presses on the top of my head after an hour or so, and no amount of bending has changed that. I wrote to the shop "
    "and they offered a softer cushion, which arrived four days later and helps, although it slips when I lean back. "
    "The carrying case is a nice touch. The folding hinge creaks. The buttons on the side are so small that I have to "
    "take the thing off to find them, and twice I have ended a call when I only wanted to make it louder. So there it "
    "is: the part that matters most is excellent, and almost everything around it could have used another month of "
    "work. If you sit still and listen to music, buy them. If you walk about or take calls all day, I "
    "would look at the older model, which costs less and never annoyed me in six years.",
]

EDGES = [
    "",
    " ",
    "\n\t\r\n",
    ".",
    "?!?!?!",
    "ok",
    "GREAT PRODUCT!!! LOVE IT!!!",
    "tHiS iS nOt WhAt I oRdErEd",
    "Loved it 😍😍😍",
    "😡",
    "👨‍👩‍👧‍👦 family trip 🏖️ was perfect",
    "Très déçu, le café était froid et le garçon désagréable.",
    "Das Gerät läuft seit Jahren tadellos, sehr zufrieden.",
    "Cafe\u0301 with a combining accent, na\u00efve and fac\u0327ade",
    "这个产品非常好,我很喜欢。",
    "とても残念でした。もう買いません。",
    "ужасное качество, не советую",
    "a\u0000b\u0007c\u001b[31m bad control characters\u200b\ufeff",
    "non\u00a0breaking\u2003spaces\u2028and separators are fine",
    "x" * 300,
    "good " + "very" * 30 + " long word in the middle of a good text",
    "good good good good good good good good good good good good good good good good",
    "12345 67890 3.14159 -1e10 $19.99 50%",
    "https://example.org/path?query=1&other=2#part see for yourself",
    "@shop #fail your app has crashed again, thanks for nothing",
    "<b>Nice</b> &amp; cheap <br /><br /> would buy again",
    "[CLS] special names in the text [SEP] [MASK] are only words",
    "don't can't won't it's they're y'all",
    "5/5",
    "0 stars if I could",
    "ﬁne ligature, ½ price, ① first",
]

TEXTS = ORDINARY + LONG + EDGES
