"""What is held out: disjoint parts of the sizes asked for, by the seed, and none of them empty."""

import dataclasses

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.splits import PARTS, split_catalogue
from tests.small_world import SPLIT


def test_ratings_are_divided_within_users(world):
    def triples(table):
        columns = (table.user_index, table.item_index, table.rating)
        return set(zip(*(column.tolist() for column in columns), strict=True))

    ratings = world.catalogue.ratings
    train, test = triples(world.split.train), triples(world.split.test)
    assert not train & test and train | test == triples(ratings)
    assert 0.07 < len(test) / len(ratings) <= 0.1


@pytest.mark.parametrize(("what", "least"), [("entities", SPLIT.min_anchor_ratings), ("users", SPLIT.min_user_ratings)])
def test_parts_are_disjoint_exhaustive_and_of_the_size_asked_for(world, what, least):
    parts, table = getattr(world.split, what), world.split.train
    assert tuple(parts) == PARTS
    index, total = (table.item_index, table.num_items) if what == "entities" else (table.user_index, table.num_users)
    enough = [i for i in range(total) if np.sum(index == i) >= least]
    assert 10 < len(enough) < total  # somebody is left out: the rule is at work
    assert sorted(np.concatenate([parts[name] for name in PARTS]).tolist()) == enough
    assert len(parts["validation"]) == round(0.1 * len(enough))
    assert len(parts["test"]) == round(0.2 * len(enough))
    assert all((np.diff(part) > 0).all() for part in parts.values())


def test_the_seed_decides(world):
    again, other = (split_catalogue(world.catalogue, dataclasses.replace(SPLIT, seed=seed)) for seed in (0, 1))
    for what in ("entities", "users"):
        own = getattr(world.split, what)
        for name in PARTS:
            np.testing.assert_array_equal(getattr(again, what)[name], own[name])
        assert set(getattr(other, what)["test"]) != set(own["test"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_user_ratings": 1000}, "no train users left of 0 with enough ratings"),
        ({"min_anchor_ratings": 1000}, "no train entities left of 0"),
        ({"validation_fraction": 0.0}, "no validation entities left of"),
        ({"test_fraction": 0.001}, "no test entities left of"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "no (train|validation) entities"),
    ],
)
def test_an_empty_part_is_refused_by_name(world, changes, message):
    with pytest.raises(UserError, match=f"config.split: {message}.*min_anchor_ratings"):
        split_catalogue(world.catalogue, dataclasses.replace(SPLIT, **changes))


def test_more_cannot_be_held_out_than_there_is():
    with pytest.raises(ValueError, match=r"validation_fraction \+ test_fraction must be at most 1"):
        dataclasses.replace(SPLIT, validation_fraction=0.9)
