"""The nearest rows against a float64 loop over all of them, with ties, rounding that hides them, and NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.embeddings import nearest
from eagle_jax.embeddings.nearest import find_nearest, nearest_rows

COUNT = 3


@pytest.fixture(autouse=True)
def large_from_500_rows_on(monkeypatch):
    monkeypatch.setattr(nearest, "_SMALL", 500)
    monkeypatch.setattr(nearest, "_POINTS", 16)  # several parts of points


def by_loop(points, rows, count=COUNT):
    found, distances = [], []
    for point in np.float64(points):
        to_all = np.sqrt(((np.float64(rows) - point) ** 2).sum(axis=1))
        found.append(np.argsort(to_all, kind="stable")[:count])
        distances.append(to_all[found[-1]])
    return np.array(found), np.array(distances)


def spread_out():
    """Points and rows at random, of which ten are the same."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9001, 5)).astype(np.float32)
    return np.concatenate([rng.normal(size=(40, 5)), rows[:10]]).astype(np.float32), rows


def many_equal():
    """Each row is there thirty times: more than groups, or rows, are looked at beyond those asked for."""
    rng = np.random.default_rng(1)
    rows = rng.permutation(np.repeat(rng.normal(size=(300, 4)), 30, axis=0)).astype(np.float32)
    return np.concatenate([rng.normal(size=(5, 4)), rows[:5]]).astype(np.float32), rows


def far_from_zero():
    """Distances of 0.01 at 1000 from the origin: the product of float32 does not tell them."""
    rng = np.random.default_rng(2)
    rows = (1000 + 0.01 * rng.normal(size=(5003, 3))).astype(np.float32)
    return (1000 + 0.01 * rng.normal(size=(6, 3))).astype(np.float32), rows


@pytest.mark.parametrize(("case", "is_certain"), [(spread_out, True), (many_equal, False), (far_from_zero, False)])
def test_they_are_those_of_a_float64_loop(case, is_certain):
    points, rows = case()
    found, distances = find_nearest(points, rows, COUNT)
    expected, far = by_loop(points, rows)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(distances, far, rtol=1e-12)
    squared, in_float32 = jax.jit(nearest_rows, static_argnames="count")(points, rows, COUNT)
    np.testing.assert_array_equal(in_float32, expected)
    np.testing.assert_allclose(squared, far**2, rtol=1e-5)
    # Both ways to them are taken by these cases.
    padded = np.pad(rows, ((0, -len(rows) % nearest._BLOCK), (0, 0)))
    squares = np.where(np.arange(len(padded)) < len(rows), (padded**2).sum(axis=1), np.inf).astype(np.float32)
    largest = np.float32(np.sqrt(squares[: len(rows)].max()))
    certain = nearest._by_groups(jnp.asarray(points), padded, squares, largest, len(rows), COUNT)[1]
    assert bool(np.all(certain)) == is_certain


def test_a_small_table_gives_the_same():
    points, rows = spread_out()
    found, distances = find_nearest(points, rows[:400], COUNT)
    np.testing.assert_array_equal(found, by_loop(points, rows[:400])[0])
    np.testing.assert_allclose(nearest_rows(points, rows[:400], COUNT)[0], distances**2, rtol=1e-5)


def test_float64_tells_apart_what_float32_does_not():
    rows = 1 + np.arange(700)[:, None] * 1e-9
    found, _ = find_nearest(np.array([[1.0], [1 + 350.4e-9]]), rows, COUNT)
    assert found.tolist() == [[0, 1, 2], [350, 351, 349]]


def test_a_distance_that_is_nan_is_not_hidden():
    points, rows = spread_out()
    points[3, 1] = np.nan
    squared = np.asarray(nearest_rows(points, rows, COUNT)[0])
    assert np.isnan(squared[3]).all() and not np.isnan(np.delete(squared, 3, axis=0)).any()
    rows[7000, 0] = -np.nan
    assert np.isnan(nearest_rows(points, rows, COUNT)[0]).all()


def test_gradients_are_those_of_the_distances_to_the_nearest():
    points, rows = spread_out()
    gradient = jax.jit(jax.grad(lambda points: jnp.sum(nearest_rows(points, rows, COUNT)[0])))(points)
    found, _ = by_loop(points, rows)
    np.testing.assert_allclose(gradient, 2 * (points[:, None] - rows[found]).sum(axis=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [0, 10])
def test_more_than_there_are_is_refused(count):
    rows = np.zeros((9, 2), np.float32)
    for function in (nearest_rows, find_nearest):
        with pytest.raises(ValueError, match=f"{count} nearest rows asked for of 9"):
            function(rows, rows, count)
