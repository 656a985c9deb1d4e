"""Predicted ratings and their intervals, and who has left an anchor, on the built-in world."""

import math

import jax
import numpy as np
import pytest
from scipy import stats

from eagle_jax.base.settings import to_settings
from eagle_jax.data.minilens.grammar import GrammarOracle
from eagle_jax.data.sources import load_catalogue
from eagle_jax.data.splits import split_catalogue
from eagle_jax.eagle.serving.faithfulness import QUANTILE, nearer_shares
from eagle_jax.eagle.serving.rating_intervals import conformal_quantile, fit_rating_predictor
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.embeddings.wals import fit_wals
from experiments.configs.eagle_minilens import get_config

EXPERIMENT = to_settings(EagleExperiment, get_config("quick"))


@pytest.fixture(scope="module")
def films():
    """The quick experiment's world, and what is held out of it."""
    catalogue, _ = load_catalogue(EXPERIMENT.catalogue)
    return catalogue, split_catalogue(catalogue, EXPERIMENT.split)


@pytest.fixture(scope="module")
def wals(films):
    return fit_wals(films[1].train, EXPERIMENT.wals, jax.random.key(0))


@pytest.fixture(scope="module")
def embedded(films, wals):
    """E_D and the catalogue by it: a ridge on words, fitted as the real ones to texts not held out."""
    catalogue, split = films
    vocabulary = sorted({word for text in catalogue.descriptions for word in text.split()})

    def count(texts):
        return np.array([[text.split().count(word) for word in vocabulary] for text in texts], float)

    held_out = np.concatenate([split.entities["validation"], split.entities["test"]])
    known = np.setdiff1d(np.arange(len(catalogue.entities)), held_out)
    counts = count(catalogue.descriptions)
    inner = counts[known].T @ counts[known] + np.eye(len(vocabulary))
    weights = np.linalg.solve(inner, counts[known].T @ np.asarray(wals.item_embeddings)[known])
    return lambda texts: count(texts) @ weights, counts @ weights


def test_eighty_percent_intervals_cover_eighty_percent_of_held_out_ratings(films, wals, embedded):
    split = films[1]
    embeddings = embedded[1]
    predictor, facts = fit_rating_predictor(wals, embeddings, split)

    covered, errors, baseline = [], [], []
    for user, item, rating in zip(split.test.user_index, split.test.item_index, split.test.rating, strict=True):
        if item in set(split.entities["test"]):
            told, low, high = predictor.predict(
                embeddings[[item]], np.asarray(wals.user_embeddings)[[user]], np.asarray(wals.user_bias)[[user]]
            )
            assert 0.5 <= low[0] <= told[0] <= high[0] <= 5.0
            covered.append(low[0] <= rating <= high[0])
            errors.append((told[0] - rating) ** 2)
            baseline.append((float(wals.global_bias) + float(wals.user_bias[user]) - rating) ** 2)
    assert len(covered) == facts["num_test_ratings"] > 1000 and facts["num_calibration_ratings"] > 400
    assert facts["test_coverage"] == pytest.approx(np.mean(covered))
    assert 0.75 <= np.mean(covered) <= 0.85
    assert np.mean(errors) < 0.75 * np.mean(baseline)  # it predicts something, so that it covers by knowing
    assert facts["half_width"] == predictor.half_width < 1.0


def test_the_quantile_is_that_of_the_order_statistic():
    """n = 9, c = 0.8: ceil(10 * 0.8) = 8, the eighth of nine; of three there is no fourth."""
    errors = np.array([0.9, 0.1, 0.5, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6])
    assert conformal_quantile(errors, 0.8) == 0.8
    assert conformal_quantile(errors[:4], 0.8) == 0.9  # ceil(5 * 0.8) = 4, the largest
    assert conformal_quantile(errors[:3], 0.8) == conformal_quantile(errors[:0], 0.8) == math.inf
    # Over many draws, the coverage is between c and c + 1 / (n + 1).
    rng = np.random.default_rng(0)
    shares = [stats.norm.cdf(q) for q in (conformal_quantile(rng.normal(size=39), 0.8) for _ in range(4000))]
    assert 0.8 - 0.005 <= np.mean(shares) <= 0.8 + 1 / 40 + 0.005


def test_edits_stay_with_their_anchor_and_strangers_are_anywhere(films, embedded):
    """The world's own edits, five in a row at most, are about the same film; another film is not."""
    catalogue, split = films
    embed, embeddings = embedded
    rng = np.random.default_rng(1)
    oracle = GrammarOracle()
    anchors = split.entities["test"][:100]
    texts = [catalogue.descriptions[item] for item in anchors]
    left = []
    for _ in range(5):
        choices = [oracle.single_edits(text) for text in texts]
        texts = [of_text[int(rng.integers(len(of_text)))] for of_text in choices]
        shares, distances = nearer_shares(embed(texts), embeddings[anchors], embeddings, anchors)
        left.append(np.mean(shares > QUANTILE))
    np.testing.assert_allclose(distances, np.linalg.norm(embed(texts) - embeddings[anchors], axis=1))
    assert left[0] <= 0.02 and left[4] <= 0.2 and left[0] <= left[4]
    strangers = [catalogue.descriptions[int(item)] for item in rng.permutation(len(catalogue.entities))[:100]]
    shares, _ = nearer_shares(embed(strangers), embeddings[anchors], embeddings, anchors)
    assert stats.kstest(shares, "uniform").pvalue > 0.01  # their places are anywhere
    same, _ = nearer_shares(embeddings[anchors], embeddings[anchors], embeddings, anchors)
    assert not same.any()


def test_the_share_counts_other_items_only():
    """Items at 0, 1, 2, 3 on a line; the anchor is at 0, the text at 2.5: nearer are 1 and 2, of three."""
    catalogue = np.array([[0.0], [1.0], [2.0], [3.0]])
    shares, distances = nearer_shares(np.array([[2.5]] * 2), np.zeros((2, 1)), catalogue, [0, None])
    np.testing.assert_allclose(shares, [2 / 3, 3 / 4])  # a new item at 0 has the old one as another
    np.testing.assert_allclose(distances, 2.5)
