"""Signs that an action was followed: new ones, whole words, behind the start; an answer without is refused."""

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import MOVIE, MalformedText
from eagle_jax.eagle.roles.listed_actions import read_actions_file
from eagle_jax.eagle.roles.rewrite_formats import read_rewriting
from eagle_jax.eagle.roles.signs import read_signs
from tests.eagle.roles.rewrite_formats_test import ALONE, PLOT, with_plot, written

SIGNS = read_signs("", MOVIE)


def test_every_action_of_the_list_has_signs():
    assert list(SIGNS) == [action for _, action in read_actions_file("", MOVIE)]


@pytest.mark.parametrize(
    "action, before, written, start, expected",
    [
        ("Make it a western.", "He goes home.", "In this western, he goes home.", "In this western,", False),
        ("Make it a western.", "He goes home.", "In this western, the sheriff comes.", "In this western,", True),
        ("Set it in Japan.", "He goes home.", "In Japan, he goes home.", "In Japan,", True),
        ("Set it in Japan.", "He goes home to Japan.", "He goes home to Japan.", "", False),  # it was there
        ("Set it in Japan.", "He goes home to Japan.", "He goes home to Tokyo.", "", True),
        ("Set it at sea on a ship.", "He goes.", "He has a friendship and a season.", "", False),  # whole words
        ("Add a robot.", "He goes home.", "He goes home.", "", False),
    ],
)
def test_the_rule_finds_signs_that_are_new(action, before, written, start, expected):
    assert SIGNS[action].is_new(before, written, start) is expected


@pytest.mark.parametrize("name", ["chat", "edit"])
def test_an_answer_without_a_sign_is_not_followed(name):
    action = "Make it a western."
    sign = SIGNS[action]
    none = "In this western, the dog and the children go home to their mother."
    some = "In this western, the dog and the children meet a sheriff and his mother."
    with pytest.raises(MalformedText) as caught:
        read_rewriting(name, MOVIE, ALONE, action, written(none), sign)
    assert caught.value.reason == "not_followed"
    expected = with_plot(some if name == "chat" else f"{PLOT} {some}")
    assert read_rewriting(name, MOVIE, ALONE, action, written(some), sign) == expected
    assert none in read_rewriting(name, MOVIE, ALONE, action, written(none))  # unless nobody asks


@pytest.mark.parametrize(
    "cells, message",
    [("(,yes", "line 2: signs is no regular expression"), ("rome,perhaps", "line 2: beyond_start must be yes or no")],
)
def test_what_is_no_sign_is_refused_by_line(tmp_path, cells, message):
    path = tmp_path / "mine.csv"
    path.write_text(f"kind,action,signs,beyond_start\nplace,Set it in Rome.,{cells}\n")
    with pytest.raises(UserError, match=message):
        read_signs(str(path), MOVIE)
    path.write_text("kind,action\nplace,Set it in Rome.\n")
    assert read_signs(str(path), MOVIE) == {}
