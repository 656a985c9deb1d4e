"""Measures of pairs, labels and opponents by hand; stability against SciPy and the selection."""

from collections import Counter

import jax
import numpy as np
import pytest
import scipy.stats

from eagle_jax.real.annotators import Answers
from eagle_jax.real.evaluation.measures import (
    STABILITY_PERCENTS,
    easy_overlap,
    mean_rewards,
    rater_win_rate,
    stability,
    utility_win_rate,
)
from eagle_jax.real.selection.pair_selection import select_across, select_within
from eagle_jax.real.training.losses import PairValues


def log_probs(chosen, rejected):
    return PairValues(np.array(chosen, np.float64), np.array(rejected, np.float64))


def test_rewards_by_hand():
    policy = log_probs([-1.0, -5.0, -2.0], [-3.0, -1.0, -6.0])
    reference = log_probs([-2.0, -4.0, -3.0], [-2.0, -3.0, -7.0])
    # Differences 1, -1, 1 and -1, 2, 1: margins 2, -3, 0, of which one wins, one ties.
    assert mean_rewards(policy, reference, 0.1) == pytest.approx(
        {"rewards/chosen": 0.1 / 3, "rewards/rejected": 0.2 / 3, "rewards/margin": -0.1 / 3, "rewards/accuracy": 0.5}
    )


def test_bad_rewards_are_refused():
    fine, broken = log_probs([0.0, 1.0], [0.0, 1.0]), log_probs([0.0, 1.0], [0.0, np.nan])
    for name, pairs in (("policy", (broken, fine)), ("reference", (fine, broken))):
        with pytest.raises(ValueError, match=f"rejected response under the {name}, pair 1 is nan"):
            mean_rewards(*pairs, 0.1)
    with pytest.raises(ValueError, match="there is no log-prob"):
        mean_rewards(log_probs([], []), log_probs([], []), 0.1)
    for beta in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="beta must be above 0"):
            mean_rewards(fine, fine, beta)


def test_win_rates_count_ties_half():
    assert utility_win_rate(np.array([1.0, 2.0, 3.0, 0.0]), np.array([0.0, 2.0, 1.0, 4.0])) == 2.5 / 4
    assert utility_win_rate(np.ones(3), np.ones(3)) == 0.5
    with pytest.raises(ValueError, match="utility of their response 0 is nan"):
        utility_win_rate(np.ones(1), np.array([np.nan]))


def test_a_raters_contradictions_are_ties_and_malformed_answers_are_left_out():
    # Ours first: win, loss, contradiction, contradiction, malformed once, malformed twice, win.
    answers = Answers(
        as_given=np.array([0, 1, 0, 1, -1, -1, 0]),
        swapped=np.array([0, 1, 1, 0, 0, -1, 0]),
        malformed=Counter(length=3),
    )
    assert rater_win_rate(answers, num_identical=3) == (2 + 5 / 2) / 8  # 2 wins, 5 ties, 1 loss
    nothing = Answers(np.array([-1]), np.array([0]), Counter(length=1))
    assert rater_win_rate(nothing, num_identical=0) is None


def test_stability_agrees_with_scipy():
    rng = np.random.default_rng(2)
    start = rng.normal(size=200).round(1)  # ties
    now = start + 0.5 * rng.normal(size=200)
    values = stability(now, start, None, "here")
    assert values["rank_correlation"] == pytest.approx(scipy.stats.spearmanr(start, now).statistic)
    peer = scipy.stats.mstats.mquantiles(now, [0.05, 0.25, 0.5, 0.75, 0.95], alphap=1, betap=1)
    np.testing.assert_allclose([values[f"similarity_{percent}"] for percent in STABILITY_PERCENTS], peer)
    assert 0.5 < values["easy_overlap"] < 1.0
    for changed, correlation, overlap in ((start, 1.0, 1.0), (-start, -1.0, 0.02)):
        values = stability(changed, start, None, "here")
        assert values["rank_correlation"] == pytest.approx(correlation)
        assert values["easy_overlap"] == pytest.approx(overlap, abs=0.05)


def test_overlap_by_hand():
    then, now = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([0.1, 0.5, 0.2, 0.6, 0.3])
    # Three of five: {0, 1, 2} then, {0, 2, 4} now.
    assert easy_overlap(then, now, None) == pytest.approx(2 / 3)
    # Prompt 7 has pairs 0, 3, 4 (0, then 0), prompt 2 pairs 1, 2 (1, then 2).
    assert easy_overlap(then, now, np.array([7, 2, 2, 7, 7])) == 0.5
    # A prompt with one pair has no choice.
    assert easy_overlap(then, now, np.array([7, 2, 2, 3, 4])) == 0.0
    assert easy_overlap(then, now, np.arange(5)) is None
    assert "easy_overlap" not in stability(now, then, np.arange(5), "here")
    assert easy_overlap(then, then, np.array([7, 2, 2, 7, 7])) == 1.0


def test_overlap_is_that_of_the_selection_itself():
    """Ten prompts with four responses, embeddings then and now, by `pair_selection`."""
    rng = np.random.default_rng(4)
    then = rng.normal(size=(10, 4, 6)).astype(np.float32)
    now = then + 0.7 * rng.normal(size=then.shape).astype(np.float32)
    first, second = np.triu_indices(4, 1)
    similarities, selected, kept = [], [], []
    for embeddings in (then, now):
        unit = embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)
        flat = np.sum(unit[:, first] * unit[:, second], axis=-1).ravel()
        pairs = select_within("easy", embeddings, np.ones((10, 4), bool), None, metric="cosine", key=jax.random.key(0))
        rows = select_across("easy", flat, None, 30, key=jax.random.key(0), is_valid=np.ones(60, bool))
        similarities.append(flat)
        selected.append(np.stack([pairs.first, pairs.second]))
        kept.append(set(np.asarray(rows).tolist()))
    within = np.mean((selected[0] == selected[1]).all(axis=0))
    assert 0 < within < 1
    assert easy_overlap(*similarities, np.repeat(np.arange(10), 6)) == pytest.approx(within)
    across = len(kept[0] & kept[1]) / 30
    assert easy_overlap(*similarities, None) == pytest.approx(across)


def test_a_similarity_that_is_not_finite_is_named():
    good, bad = np.zeros(3), np.array([0.0, np.inf, 0.0])
    for similarities, when in (((bad, good), "now"), ((good, bad), "at the start")):
        with pytest.raises(ValueError, match=f"seed 2, step 10: similarity {when} of pair 1 is inf"):
            stability(*similarities, None, "seed 2, step 10")
