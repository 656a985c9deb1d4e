"""Each kind of reference distribution by its definition, its factors recomputed in float64."""

import dataclasses

import jax
import numpy as np
import pytest

from eagle_jax.design import design_problem, kept_subset, reference_distribution
from eagle_jax.design.g_optimal import GOptimalSettings
from eagle_jax.design.reference_distribution import DesignNotConvergedError, ReferenceDistributionSettings, choose

SETTINGS = ReferenceDistributionSettings(
    rank=4,
    num_best=1,
    subsample_factor=1.0,
    max_draws=50,
    solver=GOptimalSettings(max_approximation_factor=1.01, rank_tolerance=1e-4),
)
K, D = 40, 6


def draw(seed=0, width=D):
    rng = np.random.default_rng(seed)
    anchor = rng.normal(size=width).astype(np.float32)
    steps = rng.normal(size=(K, width)) * np.logspace(0, -1, width)
    return (anchor + steps).astype(np.float32), anchor, rng.normal(size=K).astype(np.float32)


def run(kind, data=None, is_valid=None, num_kept=6, settings=SETTINGS, seed=0):
    data = draw() if data is None else data
    is_valid = np.ones(K, bool) if is_valid is None else is_valid
    return choose(kind, *data, is_valid, num_kept=num_kept, settings=settings, key=jax.random.key(seed))


def projected(data, rank=4):
    changes = data[0].astype(np.float64) - data[1]
    return changes @ np.linalg.svd(changes)[2][:rank].T


def true_factor(rows, weights):
    moment = rows.T @ (np.asarray(weights, np.float64)[:, None] * rows)
    return np.einsum("ki,ij,kj->k", rows, np.linalg.inv(moment), rows).max() / rows.shape[1]


def on(indices):
    weights = np.zeros(K)
    weights[indices] = 1 / len(indices)
    return weights


def test_uniform_is_all_valid_candidates():
    is_valid = np.arange(K) % 4 != 0
    data = draw()
    data[0][0] = np.nan  # what is not valid may hold anything
    chosen = run("uniform", data, is_valid)
    np.testing.assert_array_equal(chosen.indices, np.flatnonzero(is_valid))
    np.testing.assert_allclose(chosen.design_weights, on(chosen.indices), rtol=1e-6)
    valid = tuple(part[is_valid] if len(part) == K else part for part in data)
    rows = projected(valid)
    expected = true_factor(rows, np.full(len(rows), 1 / len(rows)))
    assert chosen.approximation_factor == pytest.approx(expected, rel=1e-3)
    assert chosen.kept_approximation_factor == chosen.approximation_factor


def test_best_next_step_is_the_best_utility_and_covers_one_direction():
    data = draw()
    is_valid = np.ones(K, bool)
    is_valid[np.argmax(data[2])] = False
    chosen = run("best_next_step", data, is_valid)
    assert list(chosen.indices) == [np.argsort(data[2])[-2]]
    assert chosen.approximation_factor == np.inf
    three = run("best_next_step", data, settings=dataclasses.replace(SETTINGS, num_best=3))
    assert set(three.indices) == set(np.argsort(data[2])[-3:])


def test_random_subset_is_uniform_over_valid_candidates():
    data, is_valid = draw(), np.arange(K) < 12
    counts = np.zeros(K)
    for seed in range(200):
        indices = run("random_subset", data, is_valid, seed=seed).indices
        assert len(set(indices)) == 6
        counts[indices] += 1
    assert (counts[12:] == 0).all()
    # Each valid one with probability 6 / 12: 100 of 200, standard deviation 7.
    assert (np.abs(counts[:12] - 100) < 30).all()


def test_random_kinds_follow_the_key():
    for kind in ("random_subset", "g_optimal_subsample"):
        first, again, other = run(kind, seed=1), run(kind, seed=1), run(kind, seed=2)
        np.testing.assert_array_equal(first.indices, again.indices)
        assert list(first.indices) != list(other.indices)


def test_g_optimal_factors_are_what_float64_finds():
    data = draw(1)
    chosen = run("g_optimal", data)
    rows = projected(data)
    assert chosen.rank == 4 and len(chosen.indices) == 6
    assert chosen.approximation_factor <= 1.01
    found = true_factor(rows, chosen.design_weights)
    assert found == pytest.approx(chosen.approximation_factor, rel=1e-3)
    kept = true_factor(rows, on(chosen.indices))
    assert kept == pytest.approx(chosen.kept_approximation_factor, rel=1e-3)
    energy = np.linalg.svd(data[0] - data[1], compute_uv=False) ** 2
    assert chosen.kept_energy == pytest.approx(energy[:4].sum() / energy.sum(), rel=1e-5)


def test_g_optimal_keeps_a_far_better_subset_than_chance():
    factors = {
        kind: np.median([run(kind, draw(seed), seed=seed).kept_approximation_factor for seed in range(12)])
        for kind in ("g_optimal", "random_subset")
    }
    assert factors["g_optimal"] < 3.0
    assert factors["random_subset"] > 3 * factors["g_optimal"]


def leverages_among(rows):
    rows = rows.astype(np.float64)
    pseudo_inverse = np.linalg.pinv(rows.T @ rows / len(rows), rcond=1e-9)
    return np.einsum("ki,ij,kj->k", rows, pseudo_inverse, rows)


def test_the_papers_rule_takes_the_first_draw_when_sigma_is_singular():
    # num_kept 6 < d 10: leverages of 6 independent rows are all 6 <= C d: every draw passes.
    chosen = run("g_optimal_subsample", draw(2, width=10))
    assert chosen.accepted and chosen.num_draws == 1
    np.testing.assert_allclose(leverages_among(draw(2, width=10)[0][chosen.indices]), 6, rtol=1e-5)


def test_the_papers_rule_never_passes_when_sigma_is_invertible():
    # num_kept 10 > d 6: the mean leverage is 6, so a maximum of 6 would need all to be equal.
    chosen = run("g_optimal_subsample", draw(3), num_kept=10)
    assert not chosen.accepted and chosen.num_draws == SETTINGS.max_draws
    assert leverages_among(draw(3)[0][chosen.indices]).max() > 6


def test_the_papers_rule_with_a_looser_constant_keeps_what_satisfies_it():
    loose = dataclasses.replace(SETTINGS, subsample_factor=1.45)
    draws = []
    for seed in range(8):
        chosen = run("g_optimal_subsample", draw(3), num_kept=10, settings=loose, seed=seed)
        maximum = leverages_among(draw(3)[0][chosen.indices]).max()
        assert chosen.accepted == (maximum <= 1.45 * 6 * (1 + 1e-3))
        draws.append(chosen.num_draws)
    assert max(draws) > 1


def test_nothing_moves():
    _, anchor, utilities = draw()
    is_valid = np.arange(K) > 2
    chosen = run("g_optimal", (np.tile(anchor, (K, 1)), anchor, utilities), is_valid)
    assert chosen.rank == 0 and chosen.approximation_factor == 1.0
    assert len(chosen.indices) == 6 and chosen.indices.min() > 2
    assert (chosen.design_weights[:3] == 0).all()


def test_one_compilation_for_all_entities(monkeypatch):
    traces = []
    prepare = design_problem.prepare

    def counted(rows, settings):
        traces.append(rows.shape)
        return prepare(rows, settings)

    for module in (design_problem, kept_subset, reference_distribution):
        monkeypatch.setattr(module, "prepare", counted)
    # Settings that no other test has compiled: the solver, the exchange and the judge, once each.
    unseen = dataclasses.replace(SETTINGS, solver=dataclasses.replace(SETTINGS.solver, max_approximation_factor=1.0123))
    for seed in range(4):
        run("g_optimal", draw(seed), np.arange(K) != seed, seed=seed, settings=unseen)
    assert traces == [(K, 4)] * 3


def test_an_unfinished_design_is_an_error():
    hasty = dataclasses.replace(SETTINGS, solver=dataclasses.replace(SETTINGS.solver, max_iterations=1))
    with pytest.raises(DesignNotConvergedError, match="1 iterations"):
        run("g_optimal", settings=hasty)


def test_bad_arguments_are_refused():
    embeddings, anchor, utilities = draw()
    with pytest.raises(ValueError, match="optimistic.*best_next_step"):
        run("optimistic")
    with pytest.raises(ValueError, match="only 5 are valid"):
        run("g_optimal", is_valid=np.arange(K) < 5)
    with pytest.raises(ValueError, match="cannot span"):
        run("g_optimal", num_kept=3)
    with pytest.raises(ValueError, match="same K"):
        run("uniform", (embeddings, anchor, utilities[:-1]))
    embeddings[1, 1] = np.nan
    with pytest.raises(ValueError, match="next_embeddings.*finite"):
        run("uniform", (embeddings, anchor, utilities))
