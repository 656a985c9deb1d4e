"""The table of film rewards on a made world: who is held out, what is measured, what is printed."""

import jax
import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from benchmarks import film_rewards
from benchmarks.film_rows import MEASURES, Row, cells, folds, measured, predicted, wals_settings
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.embeddings.wals import fit_wals, rating_embeddings

NUM_FILMS, NUM_USERS = 120, 50


@pytest.fixture(scope="module")
def world():
    """Features that decide taste and bias, and ratings by them."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(NUM_FILMS, 6)).astype(np.float32)
    users = rng.normal(size=(NUM_USERS, 2))
    score = 3 + 0.5 * features[:, 2] + users @ features[:, :2].T + 0.3 * rng.normal(size=(NUM_USERS, NUM_FILMS))
    user, item = np.nonzero(rng.random(score.shape) < 0.6)
    table = RatingTable(
        user_names=tuple(map(str, range(NUM_USERS))),
        item_names=tuple(map(str, range(NUM_FILMS))),
        user_index=user,
        item_index=item,
        rating=score[user, item].astype(np.float32),
    )
    fold = folds(NUM_FILMS, 0)
    is_training = fold[item] != 0
    wals = fit_wals(table.take(np.flatnonzero(is_training)), wals_settings(4), jax.random.key(0))
    weights = np.bincount(item[is_training], minlength=NUM_FILMS).astype(np.float32)
    return features, table, fold, is_training, wals, weights


@pytest.mark.parametrize("head", ["ridge", "mlp"])  # boosting is scikit-learn's own, and slow
def test_unseen_films_are_ordered_and_the_held_out_have_no_say(world, head):
    features, table, fold, is_training, wals, weights = world
    targets = np.array(rating_embeddings(wals)[1])
    embeddings = predicted(head, features, targets, weights, 0)
    targets[fold == 0] = 1e6
    np.testing.assert_array_equal(predicted(head, features, targets, weights, 0), embeddings)
    found = measured(table, is_training, wals, embeddings)
    assert tuple(found) == MEASURES
    means = {name: np.mean(list(of_users.values())) for name, of_users in found.items()}
    assert means["both"] > 0.6 and means["taste"] > 0.4 and means["bias"] > 0.05
    assert means["both"] > means["bias"]


def test_a_measure_is_scipys_of_a_prediction_by_hand(world):
    features, table, fold, is_training, wals, _ = world
    users, items = map(np.asarray, rating_embeddings(wals))
    known = fold != 0
    embeddings = Ridge(1.0).fit(features[known], items[known]).predict(features)
    found = measured(table, is_training, wals, embeddings)["both of WALS' users"]
    for user in (0, 7, 33):
        mine = ~is_training & (table.user_index == user)
        by_hand = embeddings[table.item_index[mine]] @ users[user]
        assert found[user] == pytest.approx(spearmanr(by_hand, table.rating[mine]).statistic)


def test_users_are_resampled_with_all_their_folds():
    of_folds = [{"both": {1: 0.2, 2: 0.4}}, {"both": {1: 0.2, 3: 0.8}}]
    told = cells(of_folds)["both"]
    assert told["mean"] == pytest.approx(0.4) and told["num_users"] == 3
    assert told["by_fold"] == pytest.approx([0.3, 0.5])
    assert 0.2 <= told["low"] < 0.4 < told["high"] <= 0.8 + 1e-9


@pytest.mark.parametrize(
    ("low", "mean", "said"), [(0.24, 0.25, "reached by"), (0.2, 0.24, "in the mean"), (0.1, 0.2, "missed")]
)
def test_the_page_says_whether_the_goal_is_reached_and_by_what(low, mean, said):
    cell = {"mean": mean, "low": low, "high": mean + 0.1, "num_users": 9, "by_fold": [mean] * 5}
    best = {**vars(Row(fields="plot", features="MiniLM")), "cells": dict.fromkeys(MEASURES, cell)}
    worse = {**vars(Row(fields="genres", features="none")), "cells": dict.fromkeys(MEASURES, cell | {"mean": 0.0})}
    page = film_rewards.page({"commit": "c"}, ["a note"], [worse, best], 12)
    (line,) = [line for line in page.splitlines() if "Goal" in line]
    assert said in line and "plot with MiniLM, ridge, width 16" in line and "12 films, 9 users" in line
    assert page.count("| plot | MiniLM | ridge | 16 |") == 1 and "a note" in page
