"""Unmet demand worked by hand, and what holds of it whatever the embeddings are."""

import numpy as np
import pytest

from eagle_jax.eagle.gaps.settings import GapSettings
from eagle_jax.eagle.gaps.unmet_demand import as_wide, by_ratings, distances_between, largest_apart, unmet_demand, wants


def settings(**changed):
    return GapSettings(**{"num_centers": 60, "num_draws": 99, **changed})


def unmet(users, items, imagined, told):
    wanted = wants(users, imagined, items, told.wanted_share)
    return unmet_demand(wanted, by_ratings(users, imagined), by_ratings(users, items), told)


def draw(seed, num_items=300, num_imagined=600, num_users=40, width=3):
    rng = np.random.default_rng(seed)
    users = rng.normal(size=(num_users, width)) * np.arange(1, width + 1)
    return users, rng.normal(size=(num_items, width)), rng.normal(size=(num_imagined, width))


def test_demand_and_supply_as_worked_by_hand():
    """Two users on a line, who differ in sign only; ten imagined texts at 0..9, four items.

    A user wants the best 3 of 10: the first those from 7 (the 0.7 quantile of 0..9 is 6.3), the second those up to 2.
    So w is 1/2 at 0, 1, 2, 7, 8, 9. The ratings of two texts differ by their distance, for both users. A ball of the
    share 0.3 around 5 reaches to the 0.3 quantile of its distances (0 1 1 2 2 3 3 4 4 5: place 2.7, between 1 and 2):
    1.7, and holds 4, 5, 6, which nobody wants. Around 8: distances 0 1 1 2 3 ... 8, place 2.7: 1.7; it holds 7, 8, 9.
    Demand is 4 * (1/2 + 1/2 + 1/2) / 10 = 0.6. Items at 0, 1, 7.5 and 5: one in the ball, wanted by one of two: 0.5.
    Around 0: distances 0 1 2 3 ..., place 2.7: 2.7; it holds 0, 1, 2: demand 0.6, and the items 0 and 1: 1.
    """
    users = np.array([[1.0], [-1.0]])
    imagined, items = np.arange(10.0)[:, None], np.array([[0.0], [1.0], [7.5], [5.0]])
    wanted = wants(users, imagined, items, 0.3)
    np.testing.assert_allclose(wanted.thresholds, [6.3, -2.7])
    np.testing.assert_allclose(wanted.of_imagined, np.array([1, 1, 1, 0, 0, 0, 0, 1, 1, 1]) / 2)
    np.testing.assert_allclose(wanted.of_items, [0.5, 0.5, 0.5, 0])
    balls = unmet(users, items, imagined, settings(region_share=0.3, wanted_share=0.3))
    assert balls.center.tolist() == list(range(10))
    np.testing.assert_allclose(balls.radius[[5, 8, 0]], [1.7, 1.7, 2.7])
    np.testing.assert_allclose(balls.demand[[5, 8, 0]], [0, 0.6, 0.6], rtol=1e-6)
    np.testing.assert_allclose(balls.supply[[5, 8, 0]], [0, 0.5, 1])
    np.testing.assert_allclose(balls.unmet[[5, 8, 0]], [0, 0.1, -0.4], rtol=1e-5, atol=1e-7)
    assert balls.num_items[[5, 8, 0]].tolist() == [1, 1, 2]


def test_distances_are_those_of_predicted_ratings():
    users, items, imagined = draw(0, num_users=7)
    points, others = by_ratings(users, imagined[:5]), by_ratings(users, items[:4])
    found = distances_between(points, others)
    for i, x in enumerate(imagined[:5]):
        for j, y in enumerate(items[:4]):
            by_user = [float(user @ (x - y)) ** 2 for user in users]
            assert found[i, j] == pytest.approx(np.sqrt(sum(by_user) / len(by_user)), rel=1e-9)


def test_the_imagined_are_drawn_in_to_the_variance_of_predicted_ratings_and_no_other_way():
    users, items, imagined = draw(1)
    wide = 3 + 2 * imagined
    found = as_wide(users, wide, items)
    np.testing.assert_allclose(found.mean(axis=0), wide.mean(axis=0))
    np.testing.assert_allclose(*(np.var(users @ of.T, axis=1).sum() for of in (found, items)), rtol=1e-9)
    ratio = (found - found.mean(axis=0)) / (wide - wide.mean(axis=0))
    np.testing.assert_allclose(ratio, ratio[0, 0])


def test_other_coordinates_of_the_same_predictions_change_nothing():
    """<z_u, x> is all that counts: x -> A x with z_u -> A^-T z_u."""
    users, items, imagined = draw(2)
    change = np.random.default_rng(3).normal(size=(3, 3)) + 2 * np.eye(3)
    there = users @ np.linalg.inv(change), items @ change.T, imagined @ change.T
    ours, theirs = unmet(users, items, imagined, settings()), unmet(*there, settings())
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_complete_catalogue_raises_alarms_as_often_as_said():
    """Of 60 catalogues drawn as the imagined texts are, at level 0.2: 12 expected, 4 to 22 but in 1 of 500 cases."""
    alarms = 0
    for seed in range(60):
        users, items, imagined = draw(seed, num_items=150, num_imagined=400, num_users=20)
        alarms += unmet(users, items, imagined, settings(num_centers=30, num_draws=59)).chance.min() <= 0.2
    assert 4 <= alarms <= 22


def test_what_users_like_best_and_is_not_there_comes_first_and_is_told_apart():
    for seed in range(5):
        users, items, imagined = draw(seed, num_items=600)
        users[:, 0] = abs(users[:, 0]) + 2  # all like what is far along the first axis
        left = items[items[:, 0] < np.quantile(items[:, 0], 0.9)]
        balls = unmet(users, left, imagined, settings())
        points = by_ratings(users, imagined)
        chosen = largest_apart(balls, points, 4)
        assert imagined[balls.center[chosen[0]], 0] > np.quantile(items[:, 0], 0.8)
        assert balls.chance[chosen[0]] <= 0.05 and balls.excess[chosen[0]] == balls.excess.max()
        assert (np.diff(balls.excess[chosen]) <= 0).all() and (balls.unmet[chosen] > 0).all()
        for rank, ball in enumerate(chosen):
            for before in chosen[:rank]:
                gap = np.linalg.norm(points[balls.center[ball]] - points[balls.center[before]])
                assert gap > balls.radius[before]


def test_a_catalogue_with_more_of_everything_lacks_nothing():
    users, _, imagined = draw(4)
    balls = unmet(users, np.repeat(imagined, 2, axis=0), imagined, settings())
    assert (balls.unmet < 1e-3).all() and (balls.chance > 0.05).all()
