"""Gamma against a worked example, SciPy and a count by hand; the raters' orderings as read."""

import numpy as np
import pytest
import scipy.stats

from eagle_jax.reports.statistics import BootstrapSettings
from eagle_jax.studies.soft_attributes.measures import RatedPairs, agreement, gamma_interval, mean_gamma, opinion_scores

BOOTSTRAP = BootstrapSettings(num_resamples=300, confidence=0.9, seed=0)


def test_gamma_of_a_worked_example():
    """less: a; about: b, c; more: d. Scores 1, 3, 0, 3.

    b>a yes, c>a no, d>a yes, d>b tied, d>c yes: 3 concordant, 1 discordant, (3 - 1) / 4 = 0.5.
    """
    scores = np.array([1.0, 3.0, 0.0, 3.0])
    pairs = np.array([(1, 0), (2, 0), (3, 0), (3, 1), (3, 2)])
    found = agreement(scores[pairs[:, 0]] - scores[pairs[:, 1]])
    assert found == (3, 1, 1) and found.gamma == 0.5


def test_a_scoring_that_ties_everything_says_nothing():
    assert agreement(np.zeros(3)).gamma is None
    assert gamma_interval(np.zeros(3), np.arange(3), BOOTSTRAP) is None
    with pytest.raises(ValueError, match="1 of 2 margins"):
        agreement(np.array([np.nan, 1.0]))


def graded(seed, num_scores):
    """Places 0, 1, 2 of 12 films and scores with ties; the pairs of different places."""
    rng = np.random.default_rng(seed)
    place, scores = rng.integers(0, 3, 12), rng.integers(0, num_scores, 12).astype(float)
    pairs = np.array([(i, j) for i in range(12) for j in range(12) if place[i] > place[j]])
    return place, scores, pairs


@pytest.mark.parametrize("seed", range(5))
def test_gamma_is_that_of_somers_d_and_kendalls_tau(seed):
    """Somers' D of scores on places is (C - D) / (pairs not tied in places), which is all of ours;
    tau-b is (C - D) / sqrt of both kinds of pairs that are not tied."""
    place, scores, pairs = graded(seed, 6)
    found = agreement(scores[pairs[:, 0]] - scores[pairs[:, 1]])
    difference = found.num_concordant - found.num_discordant
    assert scipy.stats.somersd(place, scores).statistic == pytest.approx(difference / len(pairs))
    untied = sum(scores[i] != scores[j] for i in range(12) for j in range(i))
    tau = scipy.stats.kendalltau(place, scores).statistic
    assert tau == pytest.approx(difference / np.sqrt(len(pairs) * untied))
    assert found.gamma == pytest.approx(difference / (len(pairs) - found.num_tied))


def test_interval_is_around_gamma_and_over_raters():
    rng = np.random.default_rng(0)
    rater = np.repeat(np.arange(40), 6)
    margins = rng.normal(size=240) + np.repeat(rng.normal(size=40), 6) + 0.5
    margins[::10] = 0
    interval = gamma_interval(margins, rater, BOOTSTRAP)
    assert interval.mean == pytest.approx(agreement(margins).gamma)
    assert interval.low < interval.mean < interval.high and interval.num_clusters == 40
    apart = gamma_interval(margins, np.arange(240), BOOTSTRAP)
    assert apart.high - apart.low < interval.high - interval.low  # raters agree with themselves


def test_mean_over_attributes():
    """Three: t, 2 degrees of freedom at 90 %: 0.3 +- 2.920 * 0.2 / sqrt(3). Many: resampled."""
    few = mean_gamma([0.1, 0.5, 0.3], BOOTSTRAP)
    assert few.mean == pytest.approx(0.3)
    assert few.high - few.mean == pytest.approx(2.920 * 0.2 / 3**0.5, abs=1e-4)
    many = mean_gamma([0.1, 0.5] * 10, BOOTSTRAP)
    assert 0.15 < many.low < many.mean < many.high < 0.45


def test_opinion_scores_count_wins():
    pairs = RatedPairs(np.array([0, 0, 1]), np.array([1, 2, 2]), np.array([0, 0, 1]))
    # Wins 2, 1, 0, 0 and losses 0, 1, 2, 0, one more of each.
    np.testing.assert_allclose(opinion_scores(pairs, 4), [3 / 4, 2 / 4, 1 / 4, 1 / 2])
