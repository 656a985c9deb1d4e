"""The policy over listed actions: means of what they did, and whom it gives which."""

import dataclasses

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.film_fields import FieldChange
from eagle_jax.data.prompts import MOVIE
from eagle_jax.eagle.candidate_stage import CandidateSet
from eagle_jax.eagle.environment import EpisodeState, LLMEnvironment, read_actions
from eagle_jax.eagle.roles.action_head import ActionHead, fit_action_head, head_chooser
from tests.small_world import SAMPLING

LISTED = ("a", "b", "c", "d")


def candidates(world, entity, actions, moves, is_valid=None):
    """Whose actions move the entity's embedding so far."""
    (anchor,) = world.scorer.embed([world.catalogue.entities[entity].description])
    count = len(actions)
    valid = np.ones(count, bool) if is_valid is None else np.array(is_valid)
    texts, users = [""] * count, np.zeros(count, int)
    return CandidateSet(entity, list(actions), texts, users, anchor + np.array(moves), np.zeros(count), valid)


def test_an_action_does_what_it_did_on_average_drawn_to_the_mean_of_all(world):
    width = world.scorer.user_embeddings.shape[1]
    step = np.eye(width, dtype=np.float32)
    sets = [
        candidates(world, 0, ["a", "b", "x"], [4 * step[0], step[1], 9 * step[2]]),
        candidates(world, 1, ["a", "c", None], [2 * step[0], 5 * step[2], 0 * step[0]], [True, False, False]),
    ]
    head = fit_action_head(world, sets, LISTED)
    assert head.actions == ("a", "b")  # x is none of the list, c could not be applied
    mean = (6 * step[0] + step[1]) / 3
    np.testing.assert_allclose(head.displacements, [(6 * step[0] + mean) / 3, (step[1] + mean) / 2], atol=1e-5)
    with pytest.raises(UserError, match="no listed action"):
        fit_action_head(world, sets, ["x of another list"])


@pytest.fixture
def acting(world):
    """An environment in which action a makes every film one of 1935."""
    changes = {"a": FieldChange(year=1935)}
    environment = LLMEnvironment(
        generator=None, book=world.book, entity_format=MOVIE, sampling=SAMPLING, field_changes=changes
    )
    return dataclasses.replace(world, environment=environment)


def state(user, text):
    return EpisodeState(entity_index=0, user_index=user, description=text, profile="", step=0)


def test_each_user_gets_what_promises_it_most_and_nothing_that_is_so_already(acting):
    users = acting.scorer.user_embeddings
    first, second = (int(u) for u in acting.split.users["train"][:2])
    towards = users[[first, second]] / np.linalg.norm(users[[first, second]], axis=1, keepdims=True)
    head = ActionHead(("a", "b"), towards)

    def policy(head, embeddings=users):
        return head_chooser(head, acting.environment.field_changes)(embeddings)

    promised = users[[first, second]] @ towards.T
    assert promised[0, 0] > promised[0, 1] and promised[1, 1] > promised[1, 0]  # else this world tells nothing
    new, old = ("Genres: War. Year: 1995. Plot: A.", "Genres: War. Year: 1935. Plot: A.")
    states = [state(first, new), state(second, new), state(first, old)]
    assert read_actions(policy(head)(states, 0)) == ["a", "b", "b"]
    others = users.copy()
    others[[first, second]] = users[[second, first]]
    assert read_actions(policy(head, others)(states, 0)) == ["b", "a", "b"]
    again = read_actions(policy(head)([states[0], states[1], states[0], states[0]], 0))
    assert again == ["a", "b", "b", "b"]  # the next best, and the last one on
    done = dataclasses.replace(states[0], taken=("a",))
    assert read_actions(policy(head)([done], 0)) == ["b"]
    only = ActionHead(("a",), towards[:1])
    assert read_actions(policy(only)(states[2:], 0)) == ["a"]  # there is no other
