"""Users and items of U: the same predictions with the bias inside, and users fitted again to texts."""

import dataclasses

import jax
import numpy as np
import pytest

from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.encoder_stage import run_encoder_stage
from eagle_jax.eagle.settings import UserSpaceSettings
from eagle_jax.eagle.user_space import films_apart, fitted_to_texts, known_items, make_user_space
from eagle_jax.embeddings.scorer import HELD_OUT, INDEPENDENT, TRAIN
from eagle_jax.embeddings.text_users import fit_taste
from eagle_jax.embeddings.wals import fit_wals, predict_ratings
from tests import small_world

WALS = dataclasses.replace(small_world.WALS, dim=3, num_iterations=8, regularization=2.0, bias_regularization=2.0)


@pytest.fixture(scope="module")
def fitted(world):
    return fit_wals(world.split.train, WALS, jax.random.key(0))


def space_of(fitted, **settings):
    return make_user_space(fitted, WALS, UserSpaceSettings(**settings, halves=False))


@pytest.mark.parametrize("item_bias", [False, True])
def test_predictions_are_those_of_wals_and_known_users_fold_in_where_they_are(world, fitted, item_bias):
    space, train = space_of(fitted, item_bias=item_bias, users="ratings"), world.split.train
    pairs = train.user_index, train.item_index
    np.testing.assert_allclose(predict_ratings(space.wals, *pairs), predict_ratings(fitted, *pairs), atol=1e-4)
    embeddings, bias = space.fold_in(train)
    assert embeddings.shape == (60, 3 + item_bias) and embeddings.dtype == bias.dtype == np.float32
    if item_bias:
        assert (embeddings[:, 3] == 1).all() and not np.asarray(space.wals.item_bias).any()
    # One more half step of a fit that has nearly converged.
    assert np.corrcoef(embeddings[:, 0], np.asarray(space.wals.user_embeddings)[:, 0])[0, 1] > 0.95


@pytest.mark.parametrize("item_bias", [False, True])
def test_users_are_fitted_to_the_texts_once_and_read_back(world, fitted, item_bias, tmp_path):
    train, rng = world.split.train, np.random.default_rng(0)
    space = space_of(fitted, item_bias=item_bias, users="texts")
    items = np.asarray(space.wals.item_embeddings)
    embedded = 0.4 * items + 0.1 * rng.normal(size=items.shape).astype(np.float32)  # what texts say of them
    told = fitted_to_texts(StageFolder(tmp_path / "encoders", {}), space, train, embedded)
    by_hand = fit_taste(train, embedded[:, :3], float(fitted.global_bias) + np.asarray(fitted.item_bias, np.float64))
    users = np.asarray(told.wals.user_embeddings)
    np.testing.assert_allclose(users[:, :3], by_hand.fold_in(train)[0], atol=1e-4)
    assert (users[:, 3:] == 1).all()
    np.testing.assert_array_equal(told.fold_in(train)[0], users)
    assert np.asarray(told.wals.item_embeddings).shape == items.shape  # what E_D is fitted to stays

    def error(users, bias):
        taste = np.sum(users[train.user_index, :3] * embedded[train.item_index, :3], axis=1)
        level = float(fitted.global_bias) + np.asarray(fitted.item_bias)[train.item_index]
        return np.mean((train.rating - level - bias[train.user_index] - taste) ** 2)

    assert error(users, np.asarray(told.wals.user_bias)) < error(
        np.asarray(fitted.user_embeddings), np.asarray(fitted.user_bias)
    )


def test_the_encoder_stage_gives_both_scorers_the_users_that_were_asked_for(world, fitted, tmp_path):
    def made(users):
        space = space_of(fitted, item_bias=True, users=users)
        return run_encoder_stage(
            StageFolder(tmp_path / users, {}),
            world.catalogue,
            world.split,
            space,
            dict.fromkeys((TRAIN, HELD_OUT), small_world.count_letters),
            dict.fromkeys((TRAIN, HELD_OUT), small_world.RIDGE),
            world.scorer.settings,
            UserSpaceSettings(item_bias=True, users=users, halves=users == "texts"),
            0,
        )

    of_wals, _ = made("ratings")
    np.testing.assert_array_equal(of_wals[TRAIN].user_embeddings[:, :3], fitted.user_embeddings)
    scorers, space = made("texts")
    again, _ = made("texts")  # read back
    for name, scorer in scorers.items():
        np.testing.assert_array_equal(scorer.user_embeddings, space.wals.user_embeddings)
        np.testing.assert_array_equal(scorer.user_embeddings, again[name].user_embeddings)
        np.testing.assert_array_equal(scorer.catalogue_embeddings, of_wals[name].catalogue_embeddings)
    assert np.abs(scorers[TRAIN].user_embeddings - of_wals[TRAIN].user_embeddings).max() > 0.01


def test_films_set_apart_share_neither_film_nor_rating_with_the_run(world, fitted, tmp_path):
    own, apart = films_apart(world.split, 3)
    assert not set(own.train.item_index) & set(apart.item_index)
    assert len(own.train) + len(apart) == len(world.split.train)
    known, half = len(known_items(world.split)), len(np.unique(apart.item_index))
    assert half in (known // 2, known - known // 2)
    held_out = np.concatenate([own.entities["validation"], own.entities["test"]])
    assert not set(held_out) & set(apart.item_index)

    def judged(ratings, folder):
        scorers, _ = run_encoder_stage(
            StageFolder(tmp_path / folder, {}),
            world.catalogue,
            own,
            space_of(fitted, item_bias=True, users="ratings"),
            dict.fromkeys((TRAIN, HELD_OUT), small_world.count_letters),
            dict.fromkeys((TRAIN, HELD_OUT), small_world.RIDGE),
            world.scorer.settings,
            UserSpaceSettings(item_bias=True, users="ratings", independent=True),
            0,
            ratings,
        )
        return scorers

    scorers = judged(apart, "apart")
    assert set(scorers) == {TRAIN, HELD_OUT, INDEPENDENT}
    # Other ratings apart: the judge is another one, what rewards is the same.
    others = judged(dataclasses.replace(apart, rating=apart.rating[::-1].copy()), "others")
    texts = world.catalogue.descriptions[:5]
    np.testing.assert_array_equal(scorers[TRAIN].embed(texts), others[TRAIN].embed(texts))
    assert np.abs(scorers[INDEPENDENT].embed(texts) - others[INDEPENDENT].embed(texts)).max() > 1e-3
    assert np.abs(scorers[INDEPENDENT].user_embeddings - others[INDEPENDENT].user_embeddings).max() > 1e-3
