"""CAVs against scikit-learn, a float64 SciPy solution, and the laws of a direction."""

import dataclasses

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from eagle_jax.base.errors import UserError
from eagle_jax.embeddings.concept_activation import CAVSettings, Comparisons, extrapolate, fit_cavs, fit_ranking_cavs

SETTINGS = CAVSettings(
    penalties=(0.03, 0.3, 3.0), num_folds=3, min_positives=6, tolerance=1e-5, max_iterations=40, seed=0
)
N, D = 240, 5


@pytest.fixture(scope="module")
def embeddings():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, D)) * np.linspace(2, 0.3, D) + 1.5


@pytest.fixture(scope="module")
def tags(embeddings):
    """Two noisy directions: a tag of 30 rows, one of 12."""
    rng = np.random.default_rng(1)
    scores = embeddings @ rng.normal(size=(D, 2)) + rng.normal(size=(N, 2))
    return {"wide": scores[:, 0] > np.sort(scores[:, 0])[-31], "rare": scores[:, 1] > np.sort(scores[:, 1])[-13]}


@pytest.fixture(scope="module")
def pairs(embeddings):
    rng = np.random.default_rng(2)
    scores = embeddings @ rng.normal(size=D) + rng.normal(size=N)
    rows = rng.integers(0, N, (2, 900))
    rows = rows[:, rows[0] != rows[1]]
    is_first = scores[rows[0]] > scores[rows[1]]
    return Comparisons(np.where(is_first, *rows), np.where(is_first, *rows[::-1]), rng.uniform(0.5, 2, len(rows.T)))


@pytest.fixture(scope="module")
def linear(embeddings, tags):
    return fit_cavs(embeddings, tags, SETTINGS).found


def ranked(embeddings, pairs, settings=SETTINGS):
    return fit_ranking_cavs(embeddings, {"concept": pairs}, settings).found["concept"]


@pytest.fixture(scope="module")
def ranking(embeddings, pairs):
    return ranked(embeddings, pairs)


def variance(embeddings):
    return np.mean((embeddings - embeddings.mean(axis=0)) ** 2)


@pytest.mark.parametrize("tag", ["wide", "rare"])
def test_direction_and_bias_are_scikit_learns(embeddings, tags, linear, tag):
    linear_model = pytest.importorskip("sklearn.linear_model")
    cav = linear[tag]
    # It minimises C * sum of losses with weights N / (2 n_class), N in all, + |w|^2 / 2.
    fitted = linear_model.LogisticRegression(
        C=1 / (cav.penalty * variance(embeddings) * N), class_weight="balanced", tol=1e-10, max_iter=10_000
    ).fit(embeddings, tags[tag])
    norm = np.linalg.norm(fitted.coef_)
    np.testing.assert_allclose(cav.direction, fitted.coef_[0] / norm, atol=1e-4)
    assert cav.bias == pytest.approx(fitted.intercept_[0] / norm, abs=1e-3)


def pairwise_objective(slope, embeddings, pairs, penalty):
    """J of the module docstring in float64, with its gradient."""
    differences = embeddings[pairs.higher] - embeddings[pairs.lower]
    margins, weight = differences @ slope, pairs.weight / pairs.weight.sum()
    value = weight @ np.logaddexp(0, -margins)
    gradient = -differences.T @ (weight * scipy.special.expit(-margins))
    shrink = penalty * variance(embeddings)
    return value + shrink / 2 * slope @ slope, gradient + shrink * slope


def test_ranking_is_scipys_pairwise_solution(embeddings, pairs, ranking):
    found = scipy.optimize.minimize(
        pairwise_objective,
        np.zeros(D),
        (embeddings, pairs, ranking.penalty),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-10},
    )
    np.testing.assert_allclose(ranking.direction, found.x / np.linalg.norm(found.x), atol=1e-4)


def test_gradient_vanishes_at_some_length_along_the_direction(embeddings, pairs, ranking):
    """Recomputed in float64; the returned direction has lost the length of w, which is sought."""

    def gradient(length):
        return pairwise_objective(length * ranking.direction, embeddings, pairs, ranking.penalty)[1]

    length = scipy.optimize.brentq(lambda x: gradient(x) @ ranking.direction, 0, 1e3)
    assert np.linalg.norm(gradient(length)) < 1e-4 * np.linalg.norm(gradient(0.0))
    assert ranking.gradient_norm < SETTINGS.tolerance


def test_scale_and_shift_change_no_direction(embeddings, tags, linear):
    moved = fit_cavs(1000 * embeddings - 7, tags, SETTINGS).found
    for tag, cav in linear.items():
        np.testing.assert_allclose(moved[tag].direction, cav.direction, atol=1e-4)
        assert moved[tag].spread == pytest.approx(1000 * cav.spread, rel=1e-4)
        assert moved[tag].quality == cav.quality


def test_a_rotation_rotates_directions(embeddings, tags, pairs, linear, ranking):
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(D, D)))[0]
    turned = embeddings @ rotation
    for tag, cav in fit_cavs(turned, tags, SETTINGS).found.items():
        np.testing.assert_allclose(cav.direction, linear[tag].direction @ rotation, atol=1e-4)
    cav = ranked(turned, pairs)
    np.testing.assert_allclose(cav.direction, ranking.direction @ rotation, atol=1e-4)


def test_swapped_labels_and_swapped_pairs_give_the_opposite(embeddings, tags, pairs, ranking):
    """With one penalty for both: their folds differ. (Three times: the shape is compiled.)"""
    settings = dataclasses.replace(SETTINGS, penalties=(ranking.penalty,) * 3)
    both = {"has": tags["wide"], "has not": ~tags["wide"]}
    found = fit_cavs(embeddings, both, settings).found
    np.testing.assert_allclose(found["has"].direction, -found["has not"].direction, atol=1e-5)
    swapped = Comparisons(pairs.lower, pairs.higher, pairs.weight)
    opposite = ranked(embeddings, swapped, settings)
    np.testing.assert_allclose(opposite.direction, -ranking.direction, atol=1e-5)


def test_a_tag_is_fitted_as_if_alone(embeddings, tags, linear):
    alone = fit_cavs(embeddings, {"rare": tags["rare"]}, SETTINGS).found["rare"]
    np.testing.assert_allclose(alone.direction, linear["rare"].direction, atol=1e-5)


def test_extrapolation_moves_the_score_by_spreads(embeddings, linear):
    cav = linear["wide"]
    assert np.linalg.norm(cav.direction) == pytest.approx(1)
    steps = np.array([-2.0, 0.0, 0.5, 3.0])
    scores = np.array([cav.scores(extrapolate(embeddings[0], cav, step)) for step in steps])
    np.testing.assert_allclose(scores - scores[1], steps * np.std(cav.scores(embeddings)))
    sideways = extrapolate(embeddings, cav, 1.0) - embeddings
    np.testing.assert_allclose(sideways - sideways @ np.outer(cav.direction, cav.direction), 0, atol=1e-12)


def test_quality_is_held_out_and_finds_no_concept_in_noise(embeddings, linear):
    labels = np.random.default_rng(5).permutation(np.arange(N) < 60)
    noise = fit_cavs(embeddings, {"noise": labels}, SETTINGS).found["noise"]
    assert linear["wide"].quality > 0.8 > 0.65 > noise.quality


def test_degenerate_tags_are_refused_with_the_reason(embeddings, tags, pairs):
    few, every = np.arange(N) < 3, np.ones(N, bool)
    fitted = fit_cavs(embeddings, {"few": few, "all": every, **tags}, SETTINGS)
    assert set(fitted.found) == set(tags)
    assert fitted.refused["few"].startswith("3 rows have it")
    assert fitted.refused["all"].startswith(f"all but 0 of {N}")
    none = Comparisons(*(np.array([], int),) * 2, np.array([]))
    fitted = fit_ranking_cavs(embeddings, {"none": none, "some": pairs}, SETTINGS)
    assert set(fitted.found) == {"some"} and fitted.refused["none"].startswith("0 rows")


def test_comparisons_that_cancel_show_no_direction(embeddings, pairs):
    """Each pair with its opposite, in the compiled shape: half of the pairs, twice."""
    half = Comparisons(*(column[: len(column) // 2] for column in pairs))
    both = Comparisons(
        np.append(half.higher, half.lower), np.append(half.lower, half.higher), np.append(half.weight, half.weight)
    )
    refused = fit_ranking_cavs(embeddings, {"concept": both}, SETTINGS).refused
    assert "cancel each other" in refused["concept"]


def test_pairs_that_all_touch_one_fold_are_refused(embeddings):
    """Six rows above one and the same row."""
    star = Comparisons(np.arange(1, 7), np.zeros(6, int), np.ones(6))
    refused = fit_ranking_cavs(embeddings, {"concept": star}, SETTINGS).refused
    assert "all of 6 pairs touch one fold" in refused["concept"]


@pytest.mark.parametrize(("value", "message"), [(np.nan, "row 7 is not finite"), (0.0, "row 7 is all zeros")])
def test_bad_rows_are_named(embeddings, tags, value, message):
    bad = embeddings.copy()
    bad[7] = value
    with pytest.raises(UserError, match=message):
        fit_cavs(bad, tags, SETTINGS)


def test_equal_rows_wrong_lengths_and_strange_pairs_are_refused(embeddings, tags):
    with pytest.raises(UserError, match="are equal"):
        fit_cavs(np.ones((N, D)), tags, SETTINGS)
    with pytest.raises(UserError, match="'wide'.*labels for"):
        fit_cavs(embeddings[:-1], tags, SETTINGS)
    for higher, lower, weight, message in (
        ([0], [N], [1.0], "pairs name rows"),
        ([2], [2], [1.0], "with itself"),
        ([0], [1], [0.0], "must be positive"),
    ):
        with pytest.raises(UserError, match=message):
            ranked(embeddings, Comparisons(*map(np.array, (higher, lower, weight))))


def test_what_did_not_converge_is_an_error(embeddings, tags):
    hasty = dataclasses.replace(SETTINGS, max_iterations=1)
    with pytest.raises(UserError, match="did not converge"):
        fit_cavs(embeddings, tags, hasty)
