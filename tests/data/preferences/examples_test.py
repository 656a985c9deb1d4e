"""What an example may be, and the label that the data knows of two of its responses."""

import math

import pytest

from eagle_jax.data.preferences.examples import PreferenceExample, PreferencePair, known_label, labelled_pair


def example(**changes):
    fields = {"prompt": "Q", "responses": ("a", "b", "c"), "scores": None, "label": None}
    return PreferenceExample(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt": " \n"}, "empty prompt"),
        ({"responses": ("a",)}, "fewer than two responses: 1"),
        ({"responses": ()}, "fewer than two responses: 0"),
        ({"responses": tuple(map(str, range(65)))}, "more than 64 responses: 65"),
        ({"responses": ("a", " \n")}, "empty response: number 2 of 2"),
        ({"responses": ("a", "a", "a")}, "identical responses"),
        ({"scores": (1.0, 2.0)}, "not one score per response: 2 of 3"),
        ({"scores": (1.0, math.nan, 2.0)}, "score that is not a finite number"),
        ({"scores": (1.0, math.inf, 2.0)}, "score that is not a finite number"),
        ({"label": (0, 3)}, "label out of range"),
        ({"label": (-1, 0)}, "label out of range"),
        ({"label": (1, 1)}, "label out of range"),
    ],
)
def test_what_no_example_may_be(changes, reason):
    with pytest.raises(ValueError, match=reason):
        example(**changes)


def test_two_to_64_responses_of_which_some_are_equal():
    assert len(example(responses=("a", "a", "b")).responses) == 3
    many = tuple(map(str, range(64)))
    assert example(responses=many, scores=tuple(map(float, many))).responses == many


def test_the_label_decides_before_the_scores_and_ties_are_not_known():
    scored = example(scores=(1.0, 3.0, 1.0), label=(0, 1))
    assert known_label(scored, 0, 1) == known_label(scored, 1, 0) == (0, 1)  # against the scores
    assert known_label(scored, 1, 2) == known_label(scored, 2, 1) == (1, 2)
    assert known_label(scored, 0, 2) is None
    labelled = example(label=(2, 0))
    assert known_label(labelled, 0, 2) == (2, 0)
    assert known_label(labelled, 1, 2) is None and known_label(example(), 0, 1) is None


def test_a_label_makes_a_pair():
    assert labelled_pair(example(), (2, 0)) == PreferencePair(prompt="Q", chosen="c", rejected="a")
