"""WALS against dense float64 solves; its laws; and held-out error on MovieLens."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.bad_rows import BadRows
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.data.ratings import split_ratings
from eagle_jax.data.readers.rating_files import read_ratings
from eagle_jax.embeddings import wals
from eagle_jax.embeddings.wals import (
    WALSOutput,
    WALSSettings,
    fit_wals,
    fold_in_users,
    predict_ratings,
    rating_embeddings,
)
from eagle_jax.embeddings.wals_solver import rating_blocks
from tests.embeddings.wals_mesh_program import uneven_ratings

SETTINGS = WALSSettings(
    dim=4,
    num_iterations=6,
    bias="user_item",
    observed_weight=1.5,
    unobserved_weight=0.05,
    regularization=0.3,
    regularization_scaling=0.5,
    bias_regularization=0.7,
)
VARIANTS = [
    SETTINGS,
    dataclasses.replace(SETTINGS, bias="global", unobserved_weight=0.0),
    dataclasses.replace(SETTINGS, bias="none", unobserved_weight=0.3, regularization_scaling=1.0),
    dataclasses.replace(SETTINGS, bias="user_item", unobserved_weight=0.0, dim=0),
]


def _dense(table):
    rated = np.zeros((table.num_users, table.num_items))
    ratings = np.zeros((table.num_users, table.num_items))
    rated[table.user_index, table.item_index] = 1
    ratings[table.user_index, table.item_index] = table.rating
    return rated, ratings


def _scale(rated, settings):
    total = (settings.observed_weight * rated + settings.unobserved_weight * (1 - rated)).sum(1)
    return np.where(total > 0, total, 1.0) ** settings.regularization_scaling


def _solve_rows(rated, ratings, mean, other, other_bias, settings):
    """Every row by stacking all its cells and its penalties as weighted least squares, in float64."""
    num_rows, d = len(rated), other.shape[1]
    has_bias = settings.bias == "user_item"
    embeddings, bias = np.zeros((num_rows, d)), np.zeros(num_rows)
    for row, scale in enumerate(_scale(rated, settings)):
        is_rated = rated[row] == 1
        weight = np.sqrt(np.where(is_rated, settings.observed_weight, settings.unobserved_weight))
        cells = weight[:, None] * np.hstack([other, is_rated[:, None]])
        penalty = [scale * settings.regularization] * d + [settings.bias_regularization]
        design = np.vstack([cells, np.diag(np.sqrt(penalty))])[:, : d + has_bias]
        target = np.append(weight * is_rated * (ratings[row] - mean - other_bias), np.zeros(d + 1))
        solution = np.linalg.lstsq(design, target)[0]
        embeddings[row] = solution[:d]
        bias[row] = solution[d] if has_bias else 0
    return embeddings, bias


def _dense_objective(rated, ratings, mean, users, user_bias, items, item_bias, settings):
    inner = users @ items.T
    residual = ratings - mean - user_bias[:, None] - item_bias[None] - inner
    value = settings.observed_weight * (rated * residual**2).sum()
    value += settings.unobserved_weight * ((1 - rated) * inner**2).sum()
    for cells, embeddings in ((rated, users), (rated.T, items)):
        squared_norms = (embeddings**2).sum(1)
        value += settings.regularization * (_scale(cells, settings) * squared_norms).sum()
    return value + settings.bias_regularization * ((user_bias**2).sum() + (item_bias**2).sum())


@pytest.mark.parametrize("settings", VARIANTS)
def test_every_half_step_and_the_alternation_match_dense_float64_solves(settings):
    table = uneven_ratings(0)
    rated, ratings = _dense(table)
    mean = 0.0 if settings.bias == "none" else table.rating.astype(np.float64).mean()
    first = fit_wals(table, dataclasses.replace(settings, num_iterations=1), jax.random.key(3))
    last = fit_wals(table, settings, jax.random.key(3))

    def items_given(users, user_bias):
        return _solve_rows(rated.T, ratings.T, mean, users, user_bias, settings)

    items = np.asarray(first.item_embeddings, np.float64), np.asarray(first.item_bias, np.float64)
    expected = items_given(np.asarray(first.user_embeddings), np.asarray(first.user_bias))
    chex.assert_trees_all_close(items, expected, atol=2e-5)
    for _ in range(settings.num_iterations - 1):
        users = _solve_rows(rated, ratings, mean, *items, settings)
        items = items_given(*users)
    found = last.user_embeddings, last.user_bias, last.item_embeddings, last.item_bias
    chex.assert_trees_all_close(found, (*users, *items), atol=2e-4)
    objective = _dense_objective(rated, ratings, mean, *users, *items, settings)
    np.testing.assert_allclose(last.objective[-1], objective, rtol=1e-5)
    predicted = predict_ratings(last, table.user_index, table.item_index)
    everything = mean + users[1][:, None] + items[1][None] + users[0] @ items[0].T
    np.testing.assert_allclose(predicted, everything[rated == 1], atol=5e-4)


@pytest.mark.parametrize("settings", VARIANTS)
def test_the_objective_never_increases(settings):
    settings = dataclasses.replace(settings, num_iterations=40)
    objective = np.asarray(fit_wals(uneven_ratings(0), settings, jax.random.key(0)).objective, np.float64)
    assert objective.shape == (41,)
    assert np.all(np.diff(objective) <= 2e-6 * objective[:-1])  # float32 resolution is 1.2e-7
    assert objective[-1] < 0.9 * objective[0]


def test_blocks_smaller_than_the_data_change_nothing(monkeypatch):
    table, settings = uneven_ratings(0), dataclasses.replace(SETTINGS, num_iterations=1)
    whole = fit_wals(table, settings, jax.random.key(0))
    monkeypatch.setattr(rating_blocks, "_BLOCK_ELEMENTS", 200)
    sizes = table.num_users, table.num_items
    sides = [(table.user_index, table.item_index + table.num_users)]
    assert rating_blocks.pack_ratings(sides, table.rating, sizes, 8)[0].row.shape[0] > 3
    pieces = fit_wals(table, settings, jax.random.key(0))
    chex.assert_trees_all_close(pieces, whole, atol=1e-5, rtol=1e-5)


def test_order_of_ratings_and_of_users_does_not_matter():
    table = uneven_ratings(0)
    rng = np.random.default_rng(0)
    shuffled = table.take(rng.permutation(len(table)))
    new_index = rng.permutation(table.num_users)
    permuted = dataclasses.replace(shuffled, user_index=new_index[shuffled.user_index])
    expected = fit_wals(table, SETTINGS, jax.random.key(0))
    output = fit_wals(permuted, SETTINGS, jax.random.key(0))
    back = output._replace(user_embeddings=output.user_embeddings[new_index], user_bias=output.user_bias[new_index])
    chex.assert_trees_all_close(back, expected, atol=1e-4, rtol=1e-5)


def test_rating_embeddings_give_the_rating_less_the_users_level_and_nothing_rated_is_zero():
    table = uneven_ratings(0)
    output = fit_wals(table, SETTINGS, jax.random.key(0))
    assert not np.any(output.user_embeddings[0]) and not np.any(output.item_embeddings[1])
    assert float(output.user_bias[0]) == float(output.item_bias[1]) == 0.0
    users, items = rating_embeddings(output)
    chex.assert_shape([users, items], [(23, 5), (31, 5)])
    inner = np.sum(np.asarray(users)[table.user_index] * np.asarray(items)[table.item_index], 1)
    level = float(output.global_bias) + np.asarray(output.user_bias)[table.user_index]
    predicted = predict_ratings(output, table.user_index, table.item_index)
    np.testing.assert_allclose(inner + level, predicted, rtol=1e-5)


def test_a_sweep_over_weights_compiles_once(monkeypatch):
    table = uneven_ratings(1, num_users=19)
    once = chex.assert_max_traces(wals.alternate_half_steps.__wrapped__, n=1)
    static = ("mesh", "problem", "num_iterations", "by_ratings")
    monkeypatch.setattr(wals, "alternate_half_steps", jax.jit(once, static_argnames=static))
    for regularization in (0.1, 0.2, 0.4):
        settings = dataclasses.replace(SETTINGS, regularization=regularization)
        fit_wals(table, settings, jax.random.key(0))
    with pytest.raises(AssertionError, match="traced > 1 times"):
        fit_wals(table, dataclasses.replace(SETTINGS, num_iterations=2), jax.random.key(0))


def test_nothing_to_fit_is_refused():
    with pytest.raises(ValueError, match="dim is 0"):
        dataclasses.replace(SETTINGS, dim=0, bias="global")


def test_held_out_error_on_movielens_beats_the_biases(eagle_data):
    folder = eagle_data / "ml-latest-small"
    lines = (folder / "movies.csv").read_text(encoding="utf-8").splitlines()[1:]
    bad_rows, films = BadRows(), [line.partition(",")[0] for line in lines]
    table = read_ratings(folder / "ratings.csv", known_items=films, bad_rows=bad_rows, doubtful=BadRows())
    assert (len(table), table.num_users, table.num_items) == (100836, 610, 9742) and not bad_rows
    split = split_ratings(table, held_out_fraction=0.1, seed=0)

    def held_out_error(settings):
        output = fit_wals(split.train, settings, jax.random.key(0))
        predicted = predict_ratings(output, split.test.user_index, split.test.item_index)
        clipped = np.clip(np.asarray(predicted), 0.5, 5.0)
        return np.sqrt(np.mean((clipped - split.test.rating) ** 2))

    settings = dataclasses.replace(
        SETTINGS,
        dim=8,
        num_iterations=20,
        observed_weight=1.0,
        unobserved_weight=0.0,
        regularization=1.4,
        bias_regularization=2.0,
    )
    error = held_out_error(settings)
    assert error <= 0.88
    assert error < held_out_error(dataclasses.replace(settings, dim=0)) - 0.005


@pytest.mark.parametrize("settings", VARIANTS)
def test_users_folded_in_alone_get_the_half_step_of_the_solver(settings):
    """One iteration more solves all users upon the items that there are: nobody's row needs another's."""
    table = uneven_ratings(0)
    one_more = dataclasses.replace(settings, num_iterations=settings.num_iterations + 1)
    fitted, more = (fit_wals(table, of, jax.random.key(0)) for of in (settings, one_more))
    expected = _solve_rows(
        *_dense(table),
        np.float64(fitted.global_bias),
        *(np.float64(part) for part in (fitted.item_embeddings, fitted.item_bias)),
        settings,
    )
    for user in (2, 5, 22):
        rows = np.flatnonzero(table.user_index == user)
        alone = dataclasses.replace(table.take(rows), user_names=("new",), user_index=np.zeros(len(rows), np.int32))
        embedding, bias = fold_in_users(fitted, alone, settings)
        np.testing.assert_allclose(embedding[0], more.user_embeddings[user], rtol=0, atol=1e-6)
        np.testing.assert_allclose(bias[0], more.user_bias[user], rtol=0, atol=1e-6)
        np.testing.assert_allclose(embedding[0], expected[0][user], rtol=0, atol=3e-6)
        np.testing.assert_allclose(bias[0], expected[1][user], rtol=0, atol=3e-6)


def _few_ratings():
    """60 users of about 15 ratings of 60 items: fewer than the unknowns of 32 dimensions."""
    rng = np.random.default_rng(1)
    user_index, item_index = np.nonzero(rng.random((60, 60)) < 0.25)
    taste, quality = rng.normal(size=(2, 60, 4))
    rating = 3.5 + (taste[user_index] * quality[item_index]).sum(1) / 2
    return RatingTable(
        user_names=tuple(map(str, range(60))),
        item_names=tuple(map(str, range(60))),
        user_index=user_index.astype(np.int32),
        item_index=item_index.astype(np.int32),
        rating=np.clip(np.round(2 * rating) / 2, 0.5, 5).astype(np.float32),
    )


def _small(regularization):
    changes = {"dim": 32, "num_iterations": 20, "bias": "global", "observed_weight": 1.0, "unobserved_weight": 0.0}
    return dataclasses.replace(SETTINGS, **changes, regularization=regularization, regularization_scaling=0.0)


@pytest.mark.parametrize("regularization", [1e-3, 1e-5])
def test_little_regularization_is_solved_from_the_ratings(regularization):
    """Float32's matrices do not hold it (Cholesky factors of them were NaN); float64 alternation says what is right."""
    table, settings = _few_ratings(), _small(regularization)
    rated, ratings = _dense(table)
    output = fit_wals(table, settings, jax.random.key(0))
    mean, none = table.rating.astype(np.float64).mean(), np.zeros(60)
    items = np.float64(jax.random.normal(jax.random.key(0), (60, 32)) * 0.1)
    for _ in range(settings.num_iterations):
        users = _solve_rows(rated, ratings, mean, items, none, settings)[0]
        items = _solve_rows(rated.T, ratings.T, mean, users, none, settings)[0]
    right = _dense_objective(rated, ratings, mean, users, none, items, none, settings)
    found = [np.float64(part) for part in (output.user_embeddings, output.user_bias)]
    found += [np.float64(part) for part in (output.item_embeddings, output.item_bias)]
    assert all(np.all(np.isfinite(part)) for part in found)
    value = _dense_objective(rated, ratings, mean, *found, settings)
    np.testing.assert_allclose(output.objective[-1], value, rtol=1e-2)
    assert value <= 1.01 * right
    if regularization == 1e-3:
        np.testing.assert_allclose(value, right, rtol=1e-2)


def test_regularization_that_float32_cannot_hold_is_refused():
    with pytest.raises(UserError, match=r"wals\.regularization = 1e-09"):
        fit_wals(_few_ratings(), _small(1e-9), jax.random.key(0))


def test_new_users_whose_ratings_float32_cannot_hold_are_refused():
    """Of items of this size the unknowns of a few ratings came out with J of 686,000, where zeros have 137."""
    rng = np.random.default_rng(0)
    settings = dataclasses.replace(_small(1e-30), bias="user_item", bias_regularization=1e-30)
    items = rng.normal(size=(60, 32)).astype(np.float32)
    output = WALSOutput(np.zeros((0, 32)), items, np.zeros(0), np.zeros(60), np.float32(0), np.zeros(2))
    with pytest.raises(UserError, match=r"of 60 new users with wals\.regularization = 1e-30"):
        fold_in_users(output, _few_ratings(), settings)
    level = dataclasses.replace(_few_ratings(), rating=np.full(len(_few_ratings()), 4.0, np.float32))
    same = output._replace(global_bias=np.float32(4.0))
    embeddings, bias = fold_in_users(same, level, _small(1.0))
    np.testing.assert_array_equal([np.abs(embeddings).max(), np.abs(bias).max()], 0)
