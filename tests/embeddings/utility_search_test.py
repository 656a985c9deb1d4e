"""The search against closed forms, a dense grid and SciPy, in float64."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize

from eagle_jax.embeddings.utility import UtilitySettings
from eagle_jax.embeddings.utility_search import FoundPoints, UtilitySearchSettings, certify, search_balls

SETTINGS = UtilitySearchSettings(num_starts=6, num_steps=60, last_step=1e-3)
WEIGHT, NEIGHBORS, RADIUS = 0.3, 3, 0.8
UTILITY = UtilitySettings(neighbor_weight=WEIGHT, num_neighbors=NEIGHBORS)
P, C, N, D = 4, 2, 30, 3


@pytest.fixture(scope="module")
def problem():
    """Centers in the catalogue, metrics of condition number about 20, users, the catalogue."""
    rng = np.random.default_rng(0)
    catalogue = rng.normal(size=(N, D)).astype(np.float32)
    centers = catalogue[rng.integers(N, size=(P, C))]
    factors = rng.normal(size=(P, C, D, D))
    metrics = factors @ factors.swapaxes(2, 3) + 0.3 * np.eye(D)
    users = rng.normal(size=(P, D)).astype(np.float32)
    return centers, metrics.astype(np.float32), users, catalogue


def find(problem, weight=WEIGHT, radius=RADIUS, settings=SETTINGS):
    centers, metrics, users, catalogue = problem
    utility = UtilitySettings(neighbor_weight=weight, num_neighbors=NEIGHBORS)
    arguments = centers, metrics, np.float32(radius), users, catalogue
    found = search_balls(*arguments, jax.random.key(0), utility, settings)
    return found, certify(found, *arguments, utility)


def utility_of(point, user, catalogue):
    """The formula once more, one point in float64."""
    distances = np.sort([np.sqrt(np.sum((point - other) ** 2)) for other in np.float64(catalogue)])
    return float(np.float64(user) @ point + WEIGHT * sum(distances[:NEIGHBORS]))


def test_certificate_is_the_utility_and_the_place_in_the_ball(problem):
    found, exact = find(problem)
    centers, metrics, users, catalogue = problem
    for row, point in enumerate(np.asarray(found.points, np.float64)):
        assert utility_of(point, users[row], catalogue) == pytest.approx(exact.utilities[row])
        chosen = int(found.centers[row])
        moved = point - centers[row, chosen]
        square = moved @ metrics[row, chosen] @ moved / RADIUS**2
        assert square - 1 == pytest.approx(exact.excess[row], abs=1e-6)
    np.testing.assert_allclose(found.utilities, exact.utilities, rtol=1e-5)
    assert exact.excess.max() < 1e-5


def test_certificate_tells_a_point_outside_and_another_utility(problem):
    centers, metrics, users, catalogue = problem
    found, exact = find(problem)
    moved = np.asarray(found.points) + 0.1 * users
    off = FoundPoints(moved, found.centers, found.utilities)
    told = certify(off, centers, metrics, RADIUS, users, catalogue, UTILITY)
    assert told.excess.min() > 0.01
    assert np.abs(told.utilities - exact.utilities).min() > 0.01


def test_where_utility_is_linear_the_closed_form_is_found(problem):
    """max z_u'z over (z - c)'G(z - c) <= r^2 is z_u'c + r sqrt(z_u'G^-1 z_u)."""
    centers, metrics, users, _ = map(np.float64, problem)
    _, exact = find(problem, weight=0.0)
    spread = np.einsum("pd,pcde,pe->pc", users, np.linalg.inv(metrics), users)
    best = np.einsum("pcd,pd->pc", centers, users) + RADIUS * np.sqrt(spread)
    np.testing.assert_allclose(exact.utilities, best.max(axis=1), rtol=1e-5)


def test_a_ball_of_radius_zero_is_its_center(problem):
    centers, _, users, catalogue = problem
    found, exact = find(problem, radius=0.0)
    of_centers = [
        [utility_of(np.float64(center), user, catalogue) for center in own]
        for own, user in zip(centers, users, strict=True)
    ]
    np.testing.assert_allclose(exact.utilities, np.max(of_centers, axis=1), rtol=1e-6)
    np.testing.assert_array_equal(found.points, centers[np.arange(P), found.centers])
    assert exact.excess.max() == 0


def test_it_is_no_worse_than_slsqp_from_many_starts(problem):
    centers, metrics, users, catalogue = problem
    _, exact = find(problem)
    rng = np.random.default_rng(1)
    for row in range(P):
        theirs = []
        for center, metric in zip(np.float64(centers[row]), np.float64(metrics[row]), strict=True):
            inside = {"type": "ineq", "fun": lambda z, c=center, g=metric: RADIUS**2 - (z - c) @ g @ (z - c)}
            for start in center + 0.3 * RADIUS * rng.normal(size=(12, D)):
                solved = minimize(
                    lambda z, row=row: -utility_of(z, users[row], catalogue),
                    start,
                    method="SLSQP",
                    constraints=[inside],
                    options={"maxiter": 60},
                )
                if inside["fun"](solved.x) > -1e-6:
                    theirs.append(-solved.fun)
        assert exact.utilities[row] >= max(theirs) - 2e-3
        assert exact.utilities[row] <= max(theirs) + 0.1  # SLSQP stops at some of the kinks


def test_it_finds_the_best_point_of_a_dense_grid_between_neighbors():
    """The best point may lie inside: far from all texts in a ball that is full of them."""
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles), np.zeros(12)], axis=1)
    catalogue = np.concatenate([ring, 1.6 * ring, np.full((N - 24, D), 9.0)]).astype(np.float32)
    centers = np.broadcast_to(np.float32([1, 0, 0]), (P, C, D))
    disc = np.broadcast_to(np.diag(np.float32([1, 1, 1e4])), (P, C, D, D))  # a ball that is flat
    users = np.full((P, D), 0.01, np.float32)
    found, exact = find((centers, disc, users, catalogue), radius=1.1)
    ticks = np.linspace(-1.1, 1.1, 221)
    grid = np.stack(np.meshgrid(ticks, ticks, [0.0]), axis=-1).reshape(-1, D)
    grid = grid[np.linalg.norm(grid, axis=1) <= 1.1] + centers[0, 0]
    distances = np.sort(np.linalg.norm(grid[:, None] - catalogue[None], axis=2), axis=1)
    best = (grid @ users[0] + WEIGHT * distances[:, :NEIGHBORS].sum(axis=1)).max()
    # The middle of the ring is just in the ball: not where the user's term leads.
    assert np.linalg.norm(found.points, axis=1).max() < 0.2
    np.testing.assert_allclose(exact.utilities, best, atol=0.02)
    assert exact.utilities.min() >= best - 2e-3


def test_another_seed_finds_the_same_utility_and_the_same_seed_the_same_point(problem):
    centers, metrics, users, catalogue = problem
    arguments = centers, metrics, np.float32(RADIUS), users, catalogue
    one, same, other = (search_balls(*arguments, jax.random.key(seed), UTILITY, SETTINGS) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.points, same.points)
    np.testing.assert_allclose(one.utilities, other.utilities, atol=5e-3)
