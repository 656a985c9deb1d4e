"""Two clusters against scikit-learn's k-means, and against every division of few points."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.real.selection.two_means import two_means


@pytest.fixture(scope="module")
def cluster():
    """(points [N, K, D], is_valid [N, K]) -> TwoMeans of them."""

    @jax.jit
    def run(points, is_valid):
        differences = points[:, :, None] - points[:, None]
        return jax.vmap(two_means)(jnp.sum(differences**2, axis=-1), is_valid)

    return lambda points, is_valid: jax.device_get(run(points.astype(np.float32), is_valid))


def inertia_of(points, is_first):
    """In float64, from the points themselves."""
    sides = (points[is_first], points[~is_first])
    return sum(np.sum((side - side.mean(axis=0)) ** 2) for side in sides)


def clustered(rng, num_problems, num_points, width):
    """Two groups, of random sizes and distances."""
    points = rng.normal(size=(num_problems, num_points, width))
    is_apart = rng.random((num_problems, num_points, 1)) < rng.uniform(0.1, 0.9, (num_problems, 1, 1))
    step = rng.normal(size=(num_problems, 1, width)) * rng.uniform(0, 3, (num_problems, 1, 1))
    return (points + is_apart * step).astype(np.float32)


@pytest.mark.parametrize("num_points", [3, 8])
def test_nearly_always_the_best_of_all_divisions(cluster, num_points):
    rng = np.random.default_rng(num_points)
    points = clustered(rng, 300, num_points, 5)
    found = cluster(points, np.ones(points.shape[:2], bool))
    divisions = [np.array(rest + (False,)) for rest in itertools.product((True, False), repeat=num_points - 1)][:-1]
    excess = []
    for own, is_first, inertia in zip(points.astype(float), found.is_first, found.inertia, strict=True):
        best = min(inertia_of(own, division) for division in divisions)
        mine = inertia_of(own, is_first)
        np.testing.assert_allclose(inertia, mine, rtol=1e-4, atol=1e-4)
        excess.append(mine / best - 1.0)
    excess = np.array(excess)
    assert np.mean(excess < 1e-5) >= 0.98 and np.max(excess) < 0.15


@pytest.mark.parametrize("num_points,width", [(64, 24), (20, 3)])
def test_not_above_scikit_learn(cluster, num_points, width):
    library = pytest.importorskip("sklearn.cluster")
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    points = clustered(np.random.default_rng(1), 50, num_points, width)
    found = cluster(points, np.ones(points.shape[:2], bool))
    num_above = num_equal = 0
    for own, is_first in zip(points.astype(float), found.is_first, strict=True):
        with limits(1):  # for so few points threads wait for each other most of the time
            theirs = library.KMeans(n_clusters=2, n_init=8, random_state=0).fit(own)
        mine = inertia_of(own, is_first)
        num_above += mine > theirs.inertia_ * (1.0 + 1e-6)
        if abs(mine / theirs.inertia_ - 1.0) < 1e-9:
            num_equal += 1
            same = theirs.labels_ == theirs.labels_[np.argmax(is_first)]
            np.testing.assert_array_equal(is_first, same)
    assert num_above <= 1 and num_equal >= 17


def test_no_single_move_lowers_the_inertia(cluster):
    """The search has come to its end: recomputed in float64."""
    points = clustered(np.random.default_rng(2), 40, 12, 4)
    found = cluster(points, np.ones(points.shape[:2], bool))
    for own, is_first in zip(points.astype(float), found.is_first, strict=True):
        mine = inertia_of(own, is_first)
        for place in range(12):
            moved = is_first.copy()
            moved[place] ^= True
            if 0 < moved.sum() < 12:
                assert inertia_of(own, moved) >= mine * (1.0 - 1e-5)
        # Lloyd's algorithm would change nothing either.
        to_first = np.sum((own - own[is_first].mean(axis=0)) ** 2, axis=1)
        to_second = np.sum((own - own[~is_first].mean(axis=0)) ** 2, axis=1)
        assert np.all(np.where(is_first, to_first - to_second, to_second - to_first) < 1e-4)


def test_distances_to_the_own_centre(cluster):
    points = clustered(np.random.default_rng(3), 40, 12, 4)
    is_valid = np.random.default_rng(4).random((40, 12)) < 0.7
    is_valid[:, :2] = True
    found = cluster(points, is_valid)
    assert np.all(found.is_first ^ found.is_second == is_valid)
    assert np.all(found.is_first.any(axis=1) & found.is_second.any(axis=1))
    assert np.all(np.isinf(found.centre_distances) == ~is_valid)
    for row in range(40):
        for members in (found.is_first[row], found.is_second[row]):
            own = points[row, members].astype(float)
            expected = np.sum((own - own.mean(axis=0)) ** 2, axis=1)
            np.testing.assert_allclose(found.centre_distances[row, members], expected, rtol=1e-4, atol=1e-4)


def test_points_that_coincide(cluster):
    same = np.full((1, 4, 3), 0.1)
    found = cluster(same, np.array([[False, True, True, True]]))
    np.testing.assert_array_equal(found.is_first, [[False, True, False, False]])
    np.testing.assert_array_equal(found.is_second, [[False, False, True, True]])
    assert found.inertia[0] == 0.0
    # Three at one place, one elsewhere: two clusters, whose points are where their centres are.
    apart = np.array([[[1.0, 2.0, 3.0]] * 3 + [[1.0, 2.0, 5.0]]])
    found = cluster(apart, np.ones((1, 4), bool))
    np.testing.assert_array_equal(found.is_first, [[True, True, True, False]])
    np.testing.assert_allclose(found.inertia, 0.0, atol=1e-5)
