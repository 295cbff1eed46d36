"""What is missing is said at once, and not after hours."""

import pytest
import recipe

from data_sets import Example


def refused(arguments):
    with pytest.raises(SystemExit) as ended:
        recipe.main(arguments)
    return str(ended.value)


def test_a_stage_that_lacks_something_is_refused(tmp_path):
    work = ["albert-topic", "--work", str(tmp_path)]
    assert "there is no stage `training`" in refused([*work, "--stages", "teachers,training"])
    assert refused([*work, "--stages", "texts", "--data", "d"]) == "error: stage `texts` needs `--demo`"
    lacking = refused([*work, "--stages", "teachers,export", "--data", "d", "--albertine", "no-such-program"])
    assert lacking == "error: there is no program `no-such-program`; name it with `--albertine`"


def test_every_label_of_a_measured_set_is_one_of_the_model():
    for made in recipe.RECIPES.values():
        for measured in made.measured.values():
            assert set(measured.among) <= set(made.texts.LABELS)


def test_short_sets_are_met_several_times():
    examples = [Example("Rain today.", 0, 1.0, "news"), Example("A long talk.", 1, 0.5, "talks")]
    assert recipe.repeated(examples, {"news": 3}) == [examples[0]] * 3 + [examples[1]]
    with pytest.raises(ValueError, match="no training set is named tweets"):
        recipe.repeated(examples, {"tweets": 2})
