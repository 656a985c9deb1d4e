"""The spanner by its law, recomputed in float64 from the raw rows."""

import jax
import numpy as np
import pytest

from eagle_jax.design.barycentric_spanner import barycentric_spanner
from eagle_jax.design.g_optimal import GOptimalSettings

SETTINGS = GOptimalSettings(rank_tolerance=1e-4)


def gaussian(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def coefficients(rows, counts):
    """[K, rank], least squares of every row in the taken ones, and what is left of the rows."""
    rows = rows.astype(np.float64)
    basis = rows[np.flatnonzero(counts)]
    found = np.linalg.lstsq(basis.T, rows.T, rcond=1e-6)[0]
    return found.T, np.abs(rows - found.T @ basis).max()


@pytest.mark.parametrize("bound", [2.0, 1.01])
@pytest.mark.parametrize("shape", ["generic", "skewed", "dependent", "wide", "duplicates"])
def test_every_row_is_a_bounded_combination_of_the_taken_ones(shape, bound):
    rows, rank = gaussian(0, 12, 40, 6), 6
    if shape == "skewed":
        rows = rows * np.exp(2 * gaussian(1, 12, 40, 1)) * np.logspace(0, -2, 6, dtype=np.float32)
    elif shape == "dependent":
        rows, rank = rows[..., :3] @ gaussian(2, 3, 6), 3
    elif shape == "wide":
        rows, rank = gaussian(0, 12, 8, 20), 8
    elif shape == "duplicates":
        rows[:, 20:] = rows[:, :20]
    spanner = barycentric_spanner(rows, settings=SETTINGS, coefficient_bound=bound)
    assert (spanner.counts.sum(axis=1) == rank).all() and spanner.counts.max() == 1
    for problem, counts, factor in zip(rows, *spanner, strict=True):
        found, rest = coefficients(problem, counts)
        assert rest < 1e-4 * np.abs(problem).max()
        assert np.abs(found).max() <= bound + 1e-4
        # Leverage under equal weights 1 / r on the basis: r times the sum of squared coordinates.
        assert factor == pytest.approx((found**2).sum(axis=1).max(), rel=1e-3)
        assert factor <= bound**2 * rank


def test_two_directions_by_hand():
    # Of (1, 0), (0, 1), (3, 1): any pair spans; only with C = 3 or more may the first two stay.
    rows = np.array([[1, 0], [0, 1], [3, 1]], np.float32)
    spanner = barycentric_spanner(rows, settings=SETTINGS)
    # The pairs' largest coordinates: 3 for the first two; (1, 0) = ((3, 1) - (0, 1)) / 3 and
    # (0, 1) = (3, 1) - 3 (1, 0), so the last pair, factor 1 + 0 or 1/9 + 1/9 over all rows.
    np.testing.assert_array_equal(spanner.counts, [0, 1, 1])
    assert spanner.approximation_factor == pytest.approx(1.0)


def test_batch_outer_jit_and_broken_problems():
    rows = gaussian(3, 2, 2, 15, 4)
    rows[1, 1, 0, 0] = np.nan
    batched = barycentric_spanner(rows, settings=SETTINGS)
    jitted = jax.jit(lambda z: barycentric_spanner(z, settings=SETTINGS))(rows)
    jax.tree.map(np.testing.assert_array_equal, batched, jitted)
    single = barycentric_spanner(rows[0, 1], settings=SETTINGS)
    np.testing.assert_array_equal(single.counts, batched.counts[0, 1])
    assert np.isnan(batched.approximation_factor[1, 1]) and (batched.counts[1, 1] == 0).all()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="above 1, got 1"):
        barycentric_spanner(gaussian(4, 5, 2), settings=SETTINGS, coefficient_bound=1.0)
    with pytest.raises(ValueError, match="ridge"):
        barycentric_spanner(gaussian(4, 5, 2), settings=GOptimalSettings(ridge=0.1))
    with pytest.raises(ValueError, match="non-empty"):
        barycentric_spanner(gaussian(4, 5), settings=SETTINGS)
