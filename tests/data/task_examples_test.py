"""Examples obey the rule of their task: pairs, neighbors, liked and disliked, the split."""

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.data.task_examples import draw_task_examples, nearest_neighbors, rated_sides
from eagle_jax.data.tasks import TASKS

NUM_ITEMS = 60
POOL = np.arange(0, NUM_ITEMS, 2)  # the training split: even items
COUNT = 3


@pytest.fixture(scope="module")
def embeddings():
    return np.random.default_rng(0).standard_normal((NUM_ITEMS, 5))


@pytest.fixture(scope="module")
def neighbors(embeddings):
    return nearest_neighbors(embeddings, POOL, COUNT)


@pytest.fixture(scope="module")
def ratings():
    """Users 0 and 1 with 18 ratings each, user 2 with 14, user 3 who rates all alike."""
    user = np.repeat([0, 1, 2, 3], [18, 18, 14, 18])
    item = np.concatenate([np.random.default_rng(u).permutation(POOL)[: np.sum(user == u)] for u in range(4)])
    stars = np.where(user == 3, 4.0, (np.arange(len(user)) % 9 + 1) / 2)
    names = tuple(f"u{i}" for i in range(4)), tuple(f"f{i}" for i in range(NUM_ITEMS))
    return RatingTable(
        user_names=names[0], item_names=names[1], user_index=user, item_index=item, rating=stars.astype(np.float32)
    )


@pytest.fixture
def draw(neighbors, ratings):
    def drawn(name, count=200, seed=0, users=(0, 1, 2, 3), **others):
        given = {"items": POOL, "neighbors": neighbors, "ratings": ratings, "users": np.array(users)} | others
        return draw_task_examples(TASKS[name], count, np.random.default_rng(seed), **given)

    return drawn


def test_neighbors_are_those_of_a_plain_loop(embeddings, neighbors):
    for item in range(NUM_ITEMS):
        cosine = {
            other: embeddings[item] @ embeddings[other] / np.linalg.norm(embeddings[other])
            for other in POOL.tolist()
            if other != item
        }
        expected = sorted(cosine, key=cosine.get, reverse=True)[:COUNT]
        assert neighbors[item].tolist() == expected


def test_one_item_of_the_split(draw):
    rows = draw("summary")
    assert {len(row["items"]) for row in rows} == {1} and {row["user"] for row in rows} == {None}
    assert {row["items"][0] for row in rows} == set(POOL.tolist())
    assert {row["task"] for row in rows} == {"summary"}


def test_random_pairs_are_of_two_items_of_the_split(draw):
    pairs = [row["items"] for row in draw("similarities", 400)]
    assert all(a != b and {a, b} <= set(POOL.tolist()) for a, b in pairs)
    assert len({tuple(pair) for pair in pairs}) > 250  # of 870


@pytest.mark.parametrize("name", ["why_like_nn", "diff_than_nn", "common_with_nn"])
def test_neighbors_of_the_embedding_space(draw, neighbors, name):
    pairs = [row["items"] for row in draw(name, 400)]
    assert all(b in neighbors[a] for a, b in pairs)
    assert {np.flatnonzero(neighbors[a] == b)[0] for a, b in pairs} == {0, 1, 2}


def test_held_out_films_have_neighbors_of_the_pool(draw, neighbors):
    held_out = np.arange(1, NUM_ITEMS, 2)
    for first, second in (row["items"] for row in draw("common_with_nn", items=held_out)):
        assert first % 2 == 1 and second % 2 == 0 and second in neighbors[first]


@pytest.mark.parametrize("name", ["user_profile", "amazon_user_profile"])
def test_five_liked_then_five_disliked(draw, ratings, name):
    rows = draw(name)
    assert {row["user"] for row in rows} == {0, 1}  # 2 rated too few, 3 all alike
    for row in rows:
        own = ratings.user_index == row["user"]
        stars = dict(zip(ratings.item_index[own].tolist(), ratings.rating[own], strict=True))
        liked, disliked = row["items"][:5], row["items"][5:]
        assert len(set(liked)) == len(set(disliked)) == 5 and len(row["items"]) == 10
        assert min(stars[i] for i in liked) > max(stars[i] for i in disliked)
    assert len({tuple(row["items"]) for row in rows}) > 150  # each profile sees others


def test_sides_are_thirds(ratings):
    liked, disliked = rated_sides(ratings, 0)
    assert len(liked) == len(disliked) == 6 and not set(liked) & set(disliked)
    assert rated_sides(ratings, 2) is None and rated_sides(ratings, 3) is None


def test_the_seed_decides(draw):
    for name in ("summary", "similarities", "common_with_nn", "user_profile"):
        assert draw(name, seed=4) == draw(name, seed=4) != draw(name, seed=5)


def test_faults_are_named(draw, embeddings):
    with pytest.raises(UserError, match="none of 2 users has 15 ratings"):
        draw("user_profile", users=(2, 3))
    with pytest.raises(UserError, match="similarities is about two items, and there is only item"):
        draw("similarities", items=POOL[:1])
    with pytest.raises(UserError, match="3 neighbors asked for in a pool of 3 items"):
        nearest_neighbors(embeddings, POOL[:3], 3)
    for bad in (0.0, np.nan):
        damaged = embeddings.copy()
        damaged[7] = bad
        with pytest.raises(UserError, match="embedding of item 7 is zero or not finite"):
            nearest_neighbors(damaged, POOL, COUNT)
