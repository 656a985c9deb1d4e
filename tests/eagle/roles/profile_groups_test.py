"""Groups of users and the profiles that they share: sizes, hand arithmetic, and what is told of one member alone."""

import dataclasses

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.eagle.profile_stage import profile_facts, run_profile_stage
from eagle_jax.eagle.roles.data_profiles import DataProfileSettings
from eagle_jax.eagle.roles.profile_groups import ProfileGroupSettings, group_users, pooled_ratings
from tests.small_world import RIDGE, count_letters

PROFILES = DataProfileSettings(fields=(), values_per_side=1, titles_per_side=3, shrinkage=1.0)


def test_groups_have_the_fewest_users_or_less_than_twice_as_many():
    points = np.random.default_rng(0).normal(size=(103, 5))
    groups = group_users(points, 4)
    sizes = np.bincount(groups)
    assert sizes.min() >= 4 and sizes.max() < 8 and sizes.sum() == 103
    # Nearer than groups drawn at random, by far: that is what they are for.
    centers = np.stack([points[groups == number].mean(axis=0) for number in range(len(sizes))])
    at_random = np.random.default_rng(1).permutation(groups)
    drawn = np.stack([points[at_random == number].mean(axis=0) for number in range(len(sizes))])
    assert np.sum((points - centers[groups]) ** 2) < 0.6 * np.sum((points - drawn[at_random]) ** 2)
    turned = points @ np.linalg.qr(np.random.default_rng(2).normal(size=(5, 5)))[0]
    np.testing.assert_array_equal(group_users(turned, 4), groups)  # only distances count
    assert set(group_users(points[:7], 4)) == {0}
    with pytest.raises(UserError, match="min_users is 4; there are 3 users"):
        group_users(points[:3], 4)


def test_groups_by_hand():
    # The mean is 4.5: 10 is farthest and takes 9; then 0, the farthest from 10, takes 1; the rest is one group.
    assert group_users(np.array([[0.0], [1], [9], [10], [2], [3], [6.5]]), 2).tolist() == [1, 1, 0, 0, 2, 2, 2]


# Ann's mean is 3: +2, -1, -1. Bob's is 4: +1, -1. Cleo rates two alike.
ROWS = [(0, 0, 5.0), (0, 1, 2.0), (0, 2, 2.0), (1, 0, 5.0), (1, 2, 3.0), (2, 3, 4.0), (2, 1, 4.0)]


def ratings():
    user, item, rating = (np.array(column) for column in zip(*ROWS, strict=True))
    return RatingTable(
        user_names=("ann", "bob", "cleo"),
        item_names=("a", "b", "c", "d"),
        user_index=user,
        item_index=item,
        rating=rating.astype(np.float32),
    )


def test_a_group_rates_what_two_of_its_members_have_rated():
    pooled = pooled_ratings(ratings(), [np.array([0, 1])])
    assert pooled.item_index.tolist() == [0, 2] and pooled.user_index.tolist() == [0, 0]
    np.testing.assert_allclose(pooled.rating, [(2 + 1) / 3, (-1 - 1) / 3])
    all_of_them = pooled_ratings(ratings(), [np.array([0, 1, 2])])
    assert dict(zip(all_of_them.item_index.tolist(), all_of_them.rating.tolist(), strict=True)) == pytest.approx(
        {0: 1, 1: (-1 + 0) / 3, 2: -2 / 3}
    )
    with pytest.raises(UserError, match="by 2 of the 2 users of a group, among them 'bob'"):
        pooled_ratings(ratings(), [np.array([1, 2])])


def test_all_of_a_group_have_its_profile_and_no_title_is_one_users_alone(world, tmp_path):
    stage, groups = StageFolder(tmp_path, {}), ProfileGroupSettings(min_users=5)
    profiles = run_profile_stage(stage, world, None, count_letters, None, RIDGE, 0, PROFILES, groups)
    users = np.concatenate([world.split.users[part] for part in sorted(world.split.users)])
    assert sorted(profiles) == sorted(users.tolist())
    of_text = {text: [user for user in profiles if profiles[user] == text] for text in profiles.values()}
    assert min(map(len, of_text.values())) >= 5 and len(of_text) > 1
    assert stage.read_json("facts.json")["groups"] == len(of_text)
    assert {row["name"]: row["value"] for row in profile_facts(stage)}["groups"] == len(of_text)
    titles = {entity.title: place for place, entity in enumerate(world.catalogue.entities)}
    table, told = world.split.train, 0
    for text, members in of_text.items():
        for title in (title for title in titles if f" {title};" in text or f" {title}." in text):
            raters = table.user_index[table.item_index == titles[title]]
            assert len(set(raters) & set(members)) >= 2
            told += 1
    assert told > 2 * len(of_text)
    again = run_profile_stage(StageFolder(tmp_path, {}), world, None, count_letters, None, RIDGE, 0, PROFILES, groups)
    assert again == profiles
    whole = dataclasses.replace(world, profiles={})
    alone = run_profile_stage(StageFolder(tmp_path / "alone", {}), whole, None, count_letters, None, RIDGE, 0, PROFILES)
    assert len(set(alone.values())) > 0.9 * len(users)
