"""Edits and CIPHER: hand-worked rounds, and what the agent's preferences say read back."""

import numpy as np
import pytest

from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.data.minilens.world import draw_world
from eagle_jax.studies.people import edits


@pytest.fixture
def context():
    return edits.draw_context("a", np.random.default_rng(0))


@pytest.fixture
def affinity():
    return draw_world().value_affinity(draw_world().draw_tastes(1, np.random.default_rng(1))[0])


@pytest.mark.parametrize(
    ("first", "second", "distance"), [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2), ("abc", "abc", 0)]
)
def test_edit_distance_of_known_words(first, second, distance):
    assert edits.edit_distance(first, second) == edits.edit_distance(second, first) == distance


def test_a_user_changes_what_gains_most(context, affinity):
    edited = edits.user_edit(context, affinity, max_edits=3, least_gain=0.0)
    before, after = edits.film_of(context), edits.film_of(edited)
    changed = [slot for slot in before if before[slot] != after[slot]]
    gains = {
        slot: max(affinity[slot, v] for v in range(grammar.num_values(slot))) - affinity[slot, before[slot]]
        for slot in before
    }
    assert set(changed) == set(sorted(gains, key=gains.get)[-3:])
    assert edits.edit_cost(context, edited) == 3  # a word for a word, the rest as it was
    assert grammar.parse_film(grammar.tell_film(edited)) == after
    limit = sorted(gains.values())[-2]  # only the greatest gain is above it
    assert edits.edit_cost(context, edits.user_edit(context, affinity, max_edits=3, least_gain=limit)) == 1


def test_a_draft_that_the_user_likes_is_left(context, affinity):
    for _ in range(4):
        context = edits.user_edit(context, affinity, max_edits=3, least_gain=0.0)
    assert edits.user_edit(context, affinity, max_edits=3, least_gain=0.0) == context


def test_an_edit_is_read_as_likes_and_dislikes(context):
    film = edits.film_of(context)
    new = {slot: (film[slot] + 1) % grammar.num_values(slot) for slot in ("genre", "music")}
    preference = edits.read_edit(context, edits.with_values(context, new))
    liked, disliked = corpus.read_profile(preference)
    assert liked == set(new.items()) and disliked == {(slot, film[slot]) for slot in new}
    assert edits.read_edit(context, context) == ""
    # The next draft is by it; it is what the user made of this one.
    assert edits.draft_for(context, preference) == edits.with_values(context, new)


@pytest.mark.parametrize(
    "sides", [((), ()), ((("tone", 1),), ()), ((), (("tone", 1),)), ((("hero", 2),), (("tone", 1),))]
)
def test_preferences_are_read_back(sides):
    assert corpus.read_profile(edits.tell_preference(*sides)) == tuple(map(set, sides))


def test_votes_decide_what_is_aggregated():
    def told(liked, disliked):
        return edits.tell_preference(liked, disliked)

    a, b, c = ("genre", 0), ("genre", 1), ("tone", 3)
    # a: 2 for; b: 1 for, 2 against; c: 1 for, 1 against.
    said = edits.aggregate([told([a], [b]), told([a, c], [b]), told([b], [c])])
    assert corpus.read_profile(said) == ({a}, {b})
    assert edits.aggregate([told([b], [a])]) == told([b], [a])
    assert corpus.read_profile(edits.aggregate([told([a], []), told([b], []), told([b], [])])) == ({b}, set())


def test_what_stood_is_confirmed(context):
    film = edits.film_of(context)
    other = ("genre", (film["genre"] + 1) % 8)
    preference = edits.tell_preference(
        [("tone", film["tone"]), other], [("music", film["music"]), ("hero", 7 - film["hero"])]
    )
    liked, disliked = corpus.read_profile(edits.standing(preference, context))
    assert liked == {("tone", film["tone"])} and ("music", film["music"]) not in disliked and len(disliked) == 1


def test_the_first_named_of_a_slot_is_drafted(context):
    film = edits.film_of(
        edits.draft_for(context, "genre: loves horror and western, dislikes noir. tone: enjoys grim, avoids tense.")
    )
    assert (film["genre"], film["tone"]) == (grammar.word_values()["horror"][1], grammar.word_values()["grim"][1])


def test_the_nearest_by_cosine():
    contexts = np.array([[1.0, 0.0], [10.0, 10.0], [0.0, 1.0], [-1.0, 0.1]])
    assert edits.nearest(contexts, np.array([0.1, 2.0]), 2).tolist() == [2, 1]


def test_correlation_by_hand():
    affinity = {("genre", 0): 2.0, ("genre", 1): -1.0, ("tone", 0): -1.0}
    # says (1, -1, 0): covariance with (2, -1, -1) is 3, norms sqrt(2) and sqrt(6).
    told = edits.tell_preference([("genre", 0)], [("genre", 1)])
    assert edits.told_correlation(told, affinity) == pytest.approx(3 / np.sqrt(12))
    assert edits.told_correlation("", affinity) == 0.0
