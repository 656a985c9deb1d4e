"""Subsets whose leverages, factors and spread can be worked out by hand; and the paper's rule."""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.design.design_problem import GOptimalSettings
from eagle_jax.design.kept_subset import top_k_subset
from eagle_jax.reports.statistics import BootstrapSettings
from eagle_jax.studies.design_study.measures import (
    ALL,
    DELTAS,
    EMBEDDINGS,
    EXCHANGE,
    RANDOM,
    TOP_K,
    SubsetStudySettings,
    leading_directions,
    make_problem,
    measure_subsets,
    study_problems,
    subsample_rule,
)

_TOLERANCE = 1e-4
_SOLVER = GOptimalSettings(rank_tolerance=_TOLERANCE, max_approximation_factor=1.001)


_SETTINGS = SubsetStudySettings(
    subset_sizes=(4, 10),
    subsample_factors=(1.0, 1.5),
    num_draws=40,
    solver=_SOLVER,
    bootstrap=BootstrapSettings(num_resamples=100, confidence=0.95, seed=0),
)


def _problem(rows, gains=None, anchor=0.0, footing=EMBEDDINGS, rank=8):
    rows = np.asarray(rows, np.float64)
    return make_problem(
        rows, np.full(rows.shape[1], anchor), gains, footing=footing, rank=rank, rank_tolerance=_TOLERANCE
    )


def _gaussian(num_problems=3, num_candidates=30, width=6):
    rows = np.random.default_rng(0).normal(size=(num_problems, num_candidates, width))
    return rows.astype(np.float32).astype(np.float64)


def test_leverages_and_factor_by_hand():
    # Rows e1, 2 e1, e2, e1 + e2.
    problem = _problem([[1, 0], [2, 0], [0, 1], [1, 1]])
    assert problem.rank == 2
    values = measure_subsets(problem, np.array([[0, 2], [0, 1], [1, 2]]), _TOLERANCE)
    # {e1, e2}: Sigma = I / 2, leverages 2, 8, 2, 4: over the kept 2, over all 8, factor 8 / 2.
    # {e1, 2 e1}: Sigma = (1 + 4) / 2 on e1, leverages 0.4, 1.6, 0, 0.4; e2 is missed.
    # {2 e1, e2}: Sigma = diag(2, 1/2), leverages 1/2, 2, 2, 5/2.
    np.testing.assert_allclose(values["largest_kept_leverage"], [2, 1.6, 2])
    np.testing.assert_allclose(values["largest_leverage"], [8, 1.6, 2.5])
    np.testing.assert_allclose(values["factor"], [4, np.inf, 1.25])
    np.testing.assert_allclose(values["rank_share"], [1, 0.5, 1])


def test_spread_and_utility_by_hand():
    # A square about the anchor (1, 1) and two users' gains.
    corners = [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    gains = np.array([[0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 7.0]])
    rows = np.add(corners, 1.0)
    problem = _problem(rows, gains, anchor=1.0)
    values = measure_subsets(problem, np.array([[0, 1], [0, 3], [0, 1]]), _TOLERANCE)
    # Six pairs of all: four sides of 2, two diagonals of sqrt(8); kept: a side, a diagonal.
    mean_distance = (4 * 2 + 2 * 8**0.5) / 6
    np.testing.assert_allclose(values["distance"], np.array([2, 8**0.5, 2]) / mean_distance, rtol=1e-12)
    # The changes' second moment is I for all and for a side, rank one on a diagonal.
    np.testing.assert_allclose(values["volume"], [1, 0, 1], atol=1e-9)
    np.testing.assert_allclose(values["weakest_direction"], [1, 0, 1], atol=1e-9)
    # Kept {0, 1}: users 0, 1 and 5, 5; kept {0, 3}: 0, 3 and 5, 7.
    np.testing.assert_allclose(values["utility_deviation"], [0.25, 1.25, 0.25])
    np.testing.assert_allclose(values["utility_range"], [0.5, 2.5, 0.5])
    np.testing.assert_allclose(values["best_gain"], [(1 + 5) / 2, (3 + 7) / 2, 3])


def test_repetitions_count():
    # {e1, e1, e2}: Sigma = diag(2, 1) / 3, leverages 1.5 and 3.
    values = measure_subsets(_problem(np.eye(2)), np.array([[0, 0, 1]]), _TOLERANCE)
    np.testing.assert_allclose(values["largest_leverage"], [3.0])
    np.testing.assert_allclose(values["factor"], [1.5])
    # Of n orthogonal directions each twice, k = 2 n: equal leverages pass C = 1 with k > n.
    copies = _problem(np.concatenate([np.eye(3), -np.eye(3)]))
    np.testing.assert_allclose(measure_subsets(copies, np.arange(6)[None], _TOLERANCE)["largest_kept_leverage"], 3.0)


@pytest.mark.parametrize("num_kept", [2, 4, 6])
def test_k_independent_rows_have_leverage_k_each(num_kept):
    """So with k <= n every draw passes at C = 1, and with k < n every draw misses a direction."""
    problem = _problem(_gaussian()[0])
    subsets = np.array(list(itertools.islice(itertools.combinations(range(30), num_kept), 100)))
    values = measure_subsets(problem, subsets, _TOLERANCE)
    np.testing.assert_allclose(values["largest_kept_leverage"], num_kept, rtol=1e-8)
    assert np.isinf(values["factor"]).all() == (num_kept < 6)


def test_measures_do_not_depend_on_the_basis():
    rows, rng = _gaussian()[0], np.random.default_rng(1)
    subsets = rng.random((20, 30)).argsort(axis=1)[:, :10]
    before = measure_subsets(_problem(rows), subsets, _TOLERANCE)
    mixed = _problem(rows @ rng.normal(size=(6, 6)))
    after = measure_subsets(mixed, subsets, _TOLERANCE)
    for name in ("largest_kept_leverage", "factor", "volume", "weakest_direction"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-7)


def test_factor_is_that_of_the_design_package():
    rows, rng = _gaussian()[0], np.random.default_rng(2)
    for num_kept in (4, 8, 15):
        subset = rng.permutation(30)[:num_kept]
        ours = measure_subsets(_problem(rows), subset[None], _TOLERANCE)["factor"][0]
        weights = np.zeros(30, np.float32)
        weights[subset] = 1.0 / num_kept
        theirs = top_k_subset(jnp.float32(rows), weights, num_kept, settings=_SOLVER)
        np.testing.assert_allclose(theirs.approximation_factor, ours, rtol=1e-4)


@pytest.fixture(scope="module")
def cells():
    problems = [_problem(rows, rows[:, :2].T) for rows in _gaussian()]
    return {c["num_kept"]: c for c in study_problems(problems, _SETTINGS, np.random.default_rng(5))}


def test_with_k_at_most_n_the_rule_accepts_every_draw(cells):
    cell = cells[4]
    assert [row["accepted"] for row in cell["paper"]] == [1.0, 1.0]
    assert cell["paper"][0]["num_given_up"] == 0
    rule, random = cell["rules"][subsample_rule(1.0)], cell["rules"][RANDOM]
    assert rule == random and rule["missed_share"] == 1.0 and rule["median_factor"] is None
    np.testing.assert_allclose(rule["rank_share"], 4 / 6)
    assert rule["measures"]["volume"]["mean"] == 0.0
    leverage = cell["largest_kept_leverage_over_n"]
    np.testing.assert_allclose([leverage["smallest"], leverage["largest"]], 4 / 6)


def test_with_k_above_n_the_rule_accepts_no_draw(cells):
    cell = cells[10]
    assert cell["paper"][0]["accepted"] == 0.0 and cell["paper"][0]["num_given_up"] == 3
    assert cell["largest_kept_leverage_over_n"]["smallest"] > 1.0
    # 10 > 1.5 * 6: some pass, and then they are others than all draws.
    assert 0.0 < cell["paper"][1]["accepted"] < 1.0
    assert cell["rules"][subsample_rule(1.5)] != cell["rules"][RANDOM]


def test_designed_subsets_cover_more_than_random_ones(cells):
    rules = cells[10]["rules"]
    for rule in (TOP_K, EXCHANGE):
        assert rules[rule]["missed_share"] == 0.0
        assert rules[rule]["median_factor"] < rules[RANDOM]["median_factor"]
        assert rules[rule]["against_random"]["volume"]["low"] > 0
    everything = rules[ALL]["measures"]
    for name in ("distance", "volume", "weakest_direction"):
        np.testing.assert_allclose(everything[name]["mean"], 1.0)


def test_changes_are_projected_on_their_own_leading_directions():
    rng = np.random.default_rng(3)
    changes = rng.normal(size=(40, 5)) * (10.0, 5.0, 2.0, 0.1, 0.1)
    projected = leading_directions(changes, 3)
    expected = np.sort(np.linalg.eigvalsh(changes.T @ changes))[-3:]
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(projected.T @ projected)), expected)
    problem = _problem(changes + 7.0, anchor=7.0, footing=DELTAS, rank=3)
    np.testing.assert_allclose(np.abs(problem.rows), np.abs(projected), atol=1e-9)
    assert problem.rank == 3


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"begin with 1, the paper's, got \(1\.5,\)"):
        dataclasses.replace(_SETTINGS, subsample_factors=(1.5,))
