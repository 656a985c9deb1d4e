"""Projected changes against NumPy's best low-rank approximation."""

import numpy as np
import pytest

from eagle_jax.design.next_embeddings import project_changes


def draw(seed=0, num_rows=20, width=6):
    rng = np.random.default_rng(seed)
    scales = np.logspace(0, -1.5, width)
    return ((rng.normal(size=(num_rows, width)) * scales).astype(np.float32), rng.normal(size=width).astype(np.float32))


def test_inner_products_are_those_of_the_best_rank_r_approximation():
    rows, anchor = draw()
    changes, kept_energy = project_changes(rows, anchor, 2)
    u, s, vt = np.linalg.svd(rows.astype(np.float64) - anchor)
    best = u[:, :2] * s[:2] @ vt[:2]
    assert changes.shape == (20, 2)
    np.testing.assert_allclose(changes @ changes.T, best @ best.T, atol=1e-4)
    assert float(kept_energy) == pytest.approx((s[:2] ** 2).sum() / (s**2).sum(), rel=1e-5)


def test_full_rank_keeps_all_distances_and_moving_everything_changes_nothing():
    rows, anchor = draw(2)
    changes, kept_energy = project_changes(rows, anchor, 6)
    assert float(kept_energy) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(changes[:, None] - changes[None], axis=-1),
        np.linalg.norm(rows[:, None] - rows[None], axis=-1),
        atol=1e-4,
    )
    moved, _ = project_changes(rows + 7.0, anchor + 7.0, 6)
    np.testing.assert_allclose(moved @ moved.T, changes @ changes.T, atol=1e-3)


def test_nothing_moved():
    anchor = np.arange(3, dtype=np.float32)
    changes, kept_energy = project_changes(np.tile(anchor, (4, 1)), anchor, 2)
    np.testing.assert_array_equal(changes, 0.0)
    assert kept_energy == 1.0


@pytest.mark.parametrize("rank", [0, 7])
def test_rank_out_of_range_is_refused(rank):
    with pytest.raises(ValueError, match=f"got {rank}"):
        project_changes(*draw(), rank)


def test_anchor_of_another_width_is_refused():
    with pytest.raises(ValueError, match="anchor_embedding"):
        project_changes(draw()[0], np.zeros(5, np.float32), 2)
