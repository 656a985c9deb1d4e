"""Profiles: what their writer sees, one for each user, and failure said aloud."""

import dataclasses

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import Catalogue, Entity, RatingTable
from eagle_jax.data.prompts import COMPACT, MOVIE
from eagle_jax.eagle.profile_stage import rated_titles, write_profiles
from eagle_jax.eagle.settings import ProfileSettings
from eagle_jax.language_model.generation import Generation
from tests.small_world import SAMPLING

# User 0: t1 5.0, t5 4.0, t4 4.0 (level: as they come), t3 2.0, t2 0.5.
RATINGS = [(0, 3, 2.0), (1, 0, 5.0), (0, 1, 5.0), (0, 5, 4.0), (0, 2, 0.5), (0, 4, 4.0), (2, 6, 3.0), (1, 7, 1.0)]


def test_rated_titles_are_the_best_and_the_worst_and_never_both():
    user, item, rating = zip(*RATINGS, strict=True)
    table = RatingTable(
        user_names=tuple(f"u{i}" for i in range(4)),
        item_names=tuple(f"i{i}" for i in range(8)),
        user_index=np.array(user, np.int32),
        item_index=np.array(item, np.int32),
        rating=np.array(rating, np.float32),
    )
    entities = tuple(Entity(entity_id=f"i{i}", title=f"t{i}", description="") for i in range(8))
    catalogue = Catalogue(name="x", entities=entities, ratings=table, tags=(), entity_format=MOVIE)

    def titles(user, count):
        return rated_titles(catalogue, table, user, count)

    assert titles(0, 1) == (["t1"], ["t2"])
    assert titles(0, 2) == (["t1", "t5"], ["t3", "t2"])
    # Five ratings have two halves of two: the one in the middle is on no side.
    assert titles(0, 10) == (["t1", "t5"], ["t3", "t2"])
    assert titles(1, 10) == (["t0"], ["t7"])
    assert titles(2, 10) == titles(3, 10) == ([], [])


class Profiler:
    """Writes a profile from the prompt; fails on the given titles' first tries."""

    def __init__(self, **failures):
        self.failures = failures
        self.calls = []

    def generate(self, prompts, sampling, seed):
        self.calls.append((len(prompts), seed))
        return [self.write(prompt.text) for prompt in prompts]

    def write(self, text):
        title = next((title for title in ("t1", "t0") if title in text), "nothing")
        assert title != "t1" or "t2" in text
        fails = self.failures.get(title, 0) > 0
        self.failures[title] = self.failures.get(title, 0) - 1
        reason = "length" if fails else "stop"
        return Generation(text=f"fan of {title}", token_ids=None, log_probs=None, stop_reason=reason)


TITLES = {0: (["t1", "t5"], ["t3", "t2"]), 1: (["t0"], ["t7"]), 3: ([], [])}
SETTINGS = ProfileSettings(titles_per_side=2, max_tries=3, sampling=SAMPLING)


def test_malformed_profiles_are_retried_with_another_seed():
    profiler = Profiler(t0=2, nothing=1)
    profiles, malformed = write_profiles(profiler, COMPACT, TITLES, SETTINGS, 7)
    assert profiles == {0: "fan of t1", 1: "fan of t0", 3: "fan of nothing"}
    assert malformed == {"length": 3}
    assert [count for count, _ in profiler.calls] == [3, 2, 1]
    assert len({seed for _, seed in profiler.calls}) == 3


def test_failure_names_user_and_reason():
    with pytest.raises(UserError, match=r"after 2 tries for 1 of 3 users: 1 \(length\);"):
        write_profiles(Profiler(t0=9), COMPACT, TITLES, dataclasses.replace(SETTINGS, max_tries=2), 7)
