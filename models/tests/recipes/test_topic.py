"""Texts that the student of `albert-topic` learns from beside those that have a label."""

import topic
from data_sets import Example


def test_news_are_spliced_from_two_news_for_the_student_alone(monkeypatch):
    monkeypatch.setattr(topic, "SPLICED_NEWS", 50)
    news = [Example(" ".join(f"{item}-{place}" for place in range(8)), 0, 1.0, "ag_news") for item in "abc"]
    made = topic.made_from([*news, Example("d-0 d-1 d-2 d-3", 1, 1.0, "newsgroups")])
    assert {(example.label, example.source) for example in made} == {(-1, "ag_news_spliced_unlabelled")}
    for example in made:
        items, places = zip(*(word.split("-") for word in example.text.split()))
        first, second = dict.fromkeys(items)
        assert first != second and {first, second} <= set("abc")
        assert places == tuple("01234567"), "the beginning of one and the end of the other"
        assert 2 <= items.count(first) <= 6
