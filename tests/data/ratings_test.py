"""Splits without leaks, and the ratings of some items."""

import numpy as np
import pytest

from eagle_jax.data.catalogue import RatingTable
from eagle_jax.data.ratings import restrict_items, split_ratings


def _triples(table):
    return [
        (table.user_names[user], table.item_names[item], float(rating))
        for user, item, rating in zip(table.user_index, table.item_index, table.rating, strict=True)
    ]


def _random_table(seed, num_users=40, num_items=60):
    rng = np.random.default_rng(seed)
    rated = rng.random((num_users, num_items)) < rng.random((num_users, 1)) * rng.random(num_items)
    user_index, item_index = (index.astype(np.int32) for index in np.nonzero(rated))
    return RatingTable(
        user_names=tuple(map(str, range(num_users))),
        item_names=tuple(map(str, range(num_items))),
        user_index=user_index,
        item_index=item_index,
        rating=rng.integers(1, 11, len(user_index)).astype(np.float32) / 2,
    )


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.7])
def test_split_laws(fraction):
    table = _random_table(0)
    split = split_ratings(table, held_out_fraction=fraction, seed=1)
    train, test = set(_triples(split.train)), set(_triples(split.test))
    assert not train & test and train | test == set(_triples(table))
    assert len(train) == len(split.train) and len(test) == len(split.test)
    total = np.bincount(table.user_index, minlength=40)
    held_out = np.bincount(split.test.user_index, minlength=40)
    assert np.all(held_out <= np.floor(fraction * total + 1e-9))
    assert 0.5 * fraction * len(table) < len(test) <= fraction * len(table)
    assert set(split.test.user_index) <= set(split.train.user_index)
    assert set(table.item_index) == set(split.train.item_index)


def test_split_depends_on_the_seed_only():
    table = _random_table(2)
    first, again, other = (split_ratings(table, held_out_fraction=0.2, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.test.item_index, again.test.item_index)
    assert _triples(first.test) != _triples(other.test)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_split_refuses_a_fraction_that_is_none(fraction):
    with pytest.raises(ValueError, match=f"held_out_fraction is {fraction}"):
        split_ratings(_random_table(3), held_out_fraction=fraction, seed=0)


def test_restrict_items_keeps_the_ratings_by_name():
    table = _random_table(4)
    chosen = [7, 3, 50]
    restricted = restrict_items(table, chosen)
    assert restricted.item_names == ("7", "3", "50")
    expected = [triple for triple in _triples(table) if triple[1] in ("7", "3", "50")]
    assert sorted(_triples(restricted)) == sorted(expected) and len(expected) > 5
    assert set(restricted.user_names) == {user for user, _, _ in expected}
