"""The behavioural tests are what they claim to be: many kinds, many cases each, always the same."""

import collections
import json

from albertine_models.command import main
from albertine_models.texts import behaviour


def test_there_are_enough_kinds_and_cases():
    kinds = collections.Counter(case.kind for case in behaviour.cases())
    assert len(kinds) >= 12
    assert min(kinds.values()) >= 50, kinds


def test_no_case_stands_twice_and_each_has_a_label():
    cases = behaviour.cases()
    assert len({case.text for case in cases}) == len(cases)
    assert {case.label for case in cases} == {behaviour.NEGATIVE, behaviour.NEUTRAL, behaviour.POSITIVE}
    assert all("{" not in case.text and case.text.strip() == case.text for case in cases)


def test_the_same_cases_come_out_every_time():
    assert behaviour.cases() == behaviour.cases()


def test_the_command_writes_rows_that_can_be_evaluated(tmp_path, capsys):
    assert main(["behaviour", "--output", str(tmp_path / "cases.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "cases.jsonl").read_text().splitlines()]
    assert rows == [{"text": case.text, "label": case.label, "kind": case.kind} for case in behaviour.cases()]
    assert main(["behaviour", "--output", str(tmp_path / "nowhere" / "cases.jsonl")]) == 1
    assert "cannot write" in capsys.readouterr().err
