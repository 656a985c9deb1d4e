"""Who plays without training: a list of instructions, and changes of fields by the reward."""

import dataclasses

import numpy as np

from eagle_jax.data.film_fields import field_edits
from eagle_jax.eagle.environment import Start, read_actions
from eagle_jax.eagle.evaluation.untrained import best_field_changes, listed_policy
from eagle_jax.embeddings.utility import UtilityTerms

TEXTS = ("Genres: War, Drama. Year: 1954. Plot: A.", "Genres: Comedy. Year: 2001. Plot: B.")
STARTS = [Start(place, place, text, "") for place, text in enumerate(TEXTS)]


class Taste:
    """User 0 likes westerns and the 1930s, user 1 neither."""

    def score(self, texts, users):
        likes = np.array([2.0 * ("Western" in text) + 1.0 * ("1935" in text) for text in texts]) * (1 - 2 * users)
        return UtilityTerms(likes, likes, None, 0 * likes)


def test_each_change_is_the_best_one_by_the_reward_and_none_is_made_without_gain(world):
    judged = dataclasses.replace(world, scorers={"train": Taste()})
    once, stays = best_field_changes(judged, STARTS, 1)
    assert once.description == field_edits(TEXTS[0])["also Western"] and stays.description == TEXTS[1]
    twice, _ = best_field_changes(judged, STARTS, 2)
    assert twice.description == field_edits(once.description)["of the 1930s"]
    assert once.num_calls == 0 and once.malformed is None


def test_instructions_are_drawn_evenly_and_one_alone_is_always_that():
    states = [None] * 3000
    drawn = read_actions(listed_policy(["a", "b", "c"])(states, 0))
    counts = [drawn.count(action) for action in "abc"]
    assert sum(counts) == 3000 and min(counts) > 900
    assert read_actions(listed_policy(["a"])(states[:5], 1)) == ["a"] * 5
