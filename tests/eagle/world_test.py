"""Where episodes start, and what rewards and value features are computed from."""

import dataclasses

import numpy as np
import pytest

from eagle_jax.data.splits import PARTS
from eagle_jax.eagle.environment import EpisodeState
from tests.small_world import utility_by_hand


@pytest.mark.parametrize("part", PARTS)
def test_starts_come_from_their_own_part(world, part):
    starts = world.draw_starts(part, np.random.default_rng(0), 200)
    assert {start.entity_index for start in starts} <= set(world.split.entities[part].tolist())
    assert {start.user_index for start in starts} == set(world.split.users[part].tolist())
    assert len({(start.entity_index, start.user_index) for start in starts}) > 20
    for start in starts[:20]:
        assert start.description == world.catalogue.descriptions[start.entity_index]
        assert start.profile == world.profiles[start.user_index]
    assert world.draw_starts(part, np.random.default_rng(0), 200) == starts


def test_rewards_and_value_features_are_those_of_text_and_user(world):
    states = [
        EpisodeState(entity_index=i, user_index=u, description=world.catalogue.descriptions[d], profile="", step=1)
        for i, u, d in ((0, 5, 7), (1, 6, 8), (0, 5, 9))
    ]
    embeddings = world.embed(states)
    by_hand = [utility_by_hand(world.scorer, z, s.user_index) for z, s in zip(embeddings, states, strict=True)]
    np.testing.assert_allclose(world.rewards(states), [u for u, *_ in by_hand], rtol=1e-4)
    for encoder, scorer in world.scorers.items():
        of_encoder = [
            utility_by_hand(scorer, z, s.user_index)
            for z, s in zip(scorer.embed([state.description for state in states]), states, strict=True)
        ]
        np.testing.assert_allclose(world.utilities(encoder, states), [u for u, *_ in of_encoder], rtol=1e-4)
    users = world.scorer.user_embeddings[[5, 6, 5]]
    expected = np.hstack([embeddings, users, embeddings * users, [t[1:] for t in by_hand]])
    np.testing.assert_allclose(world.value_features(states), expected, rtol=1e-4, atol=1e-4)


class LengthAsQuality:
    """A stub of `Quality`."""

    weight = 0.01

    def __call__(self, texts, anchors):
        return np.array([-abs(len(text) - len(anchor)) for text, anchor in zip(texts, anchors, strict=True)], float)


@pytest.mark.parametrize("quality", [None, LengthAsQuality()], ids=["U alone", "with quality"])
def test_rewards_of_users_are_those_of_each_of_them(world, quality):
    world = dataclasses.replace(world, quality=quality)
    texts, users = world.catalogue.descriptions[:3], [5, 6, 9, 5]
    found = world.rewards_of_users(texts, 2, users)
    for row, text in enumerate(texts):
        states = [EpisodeState(entity_index=2, user_index=u, description=text, profile="", step=1) for u in users]
        np.testing.assert_allclose(found[row], world.rewards(states), rtol=1e-4, atol=1e-5)
