"""Agreement of two halves: against NumPy's correlation, on made signal and noise, and over real fits."""

import dataclasses

import numpy as np
import pytest

from eagle_jax.data.catalogue import RatingTable
from eagle_jax.embeddings.reliability import (
    HalfEncoder,
    HalfSettings,
    UserTerms,
    agreement_of_halves,
    fit_half,
    halves,
    of_both_halves,
    user_terms,
)
from tests import small_world

NUM_USERS = 40
SETTINGS = HalfSettings(
    dataclasses.replace(small_world.WALS, dim=2, num_iterations=8, regularization=1.0, bias_regularization=1.0),
    dataclasses.replace(small_world.RIDGE, penalties=(0.01, 0.1, 1.0)),
    item_bias=True,
    users_from_texts=True,
)


def test_parts_are_the_user_term_and_the_personal_one_has_mean_0():
    rng = np.random.default_rng(0)
    users, texts = rng.normal(1, 1, (7, 3)), rng.normal(size=(5, 3))
    terms = user_terms(users, texts)
    np.testing.assert_allclose(terms.common[None] + terms.personal, users @ texts.T)
    np.testing.assert_allclose(terms.personal.mean(axis=0), 0, atol=1e-12)


def test_agreement_is_the_correlation_within_groups():
    rng = np.random.default_rng(1)
    first, second = (UserTerms(rng.normal(size=6), rng.normal(size=(4, 6))) for _ in range(2))
    groups, users = np.array([9, 9, 9, 2, 2, 2]), np.array([0, 3])
    told = agreement_of_halves(first, second, groups, users)

    def centred(values):
        return np.concatenate([part - part.mean(-1, keepdims=True) for part in np.split(values, 2, axis=-1)], axis=-1)

    def pooled(one, other):
        return np.corrcoef(centred(one).ravel(), centred(other).ravel())[0, 1]

    assert told.common == pytest.approx(pooled(first.common, second.common))
    assert told.personal == pytest.approx(pooled(first.personal[users], second.personal[users]))
    # What differs between groups only is no agreement on what to choose.
    shifted = UserTerms(first.common + np.array([5.0] * 3 + [0.0] * 3), first.personal)
    np.testing.assert_allclose(agreement_of_halves(shifted, second, groups, users), told)
    assert agreement_of_halves(first, first, groups, users)[:2] == pytest.approx((1, 1))
    assert agreement_of_halves(first, UserTerms(first.common * 0, first.personal), groups, users).common == 0
    with pytest.raises(ValueError, match="no two texts"):
        agreement_of_halves(first, second, np.arange(6), users)


def test_spearman_and_brown_of_signal_and_noise():
    """Equal signal and noise: a half has reliability 1/2, the mean of both 2/3."""
    rng = np.random.default_rng(2)
    signal = rng.normal(size=20_000)
    one, other = (signal + rng.normal(size=len(signal)) for _ in range(2))
    half = np.corrcoef(one, other)[0, 1]
    whole = np.corrcoef((one + other) / 2, signal)[0, 1] ** 2
    assert half == pytest.approx(0.5, abs=0.02) and of_both_halves(half) == pytest.approx(whole, abs=0.02)
    assert of_both_halves(-0.2) == 0


@pytest.fixture(scope="module")
def world():
    """Films whose first feature all users like and whose second feature divides them."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(160, 4)).astype(np.float32)
    taste = rng.normal(size=NUM_USERS)
    rating = 3 + 0.5 * features[:, 0] + taste[:, None] * features[:, 1] + 0.5 * rng.normal(size=(NUM_USERS, 160))
    user, item = np.nonzero(rng.random(rating.shape) < 0.5)
    names = tuple(map(str, range(NUM_USERS))), tuple(map(str, range(160)))
    table = RatingTable(
        user_names=names[0], item_names=names[1], user_index=user, item_index=item, rating=rating[user, item]
    )
    return features, table, taste


def test_halves_share_no_film_and_agree_on_what_is_there(world):
    features, table, taste = world
    texts = np.random.default_rng(4).normal(size=(50, 4)).astype(np.float32)
    parts = halves(table, np.arange(150), 0)
    films = [set(part.item_index.tolist()) for part in parts]
    assert not films[0] & films[1] and films[0] | films[1] == set(range(150))
    assert sum(map(len, parts)) == np.sum(table.item_index < 150)
    pair = [fit_half(part, features, SETTINGS, seed) for seed, part in enumerate(parts)]
    terms = [half.terms(texts) for half in pair]
    told = agreement_of_halves(*terms, np.zeros(50), np.arange(NUM_USERS))
    assert told.common > 0.8 and told.personal > 0.8 and 0.05 < told.common_share < 0.6
    assert np.corrcoef(terms[0].common, texts[:, 0])[0, 1] > 0.8
    again = HalfEncoder.from_arrays(pair[0].to_arrays()).terms(texts)
    np.testing.assert_array_equal(again.personal, terms[0].personal)
    # Where the tastes of users are shuffled in one half, what is left is what everybody likes.
    shuffled = np.random.default_rng(5).permutation(NUM_USERS)
    spoilt = dataclasses.replace(pair[1], user_embeddings=pair[1].user_embeddings[shuffled]).terms(texts)
    lost = agreement_of_halves(terms[0], spoilt, np.zeros(50), np.arange(NUM_USERS))
    assert abs(lost.personal) < 0.4 and lost.common == pytest.approx(told.common)
