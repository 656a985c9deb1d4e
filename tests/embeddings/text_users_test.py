"""Users fitted to what E_D says: against Gaussian conditioning, SciPy's likelihood, and a made world."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from eagle_jax.data.catalogue import RatingTable
from eagle_jax.embeddings.text_users import TasteModel, fit_taste


def made_world(num_users, num_items, per_user, seed=0):
    """Ratings of the model itself: items, table, mu + b_i, the users, S and s^2 they were drawn by."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(num_items, 3)) * [1.0, 3.0, 0.2]
    bias = rng.normal(3.5, 0.3, num_items)
    prior = np.diag([0.2, 0.0, 4.0, 0.1])  # nothing along the second direction
    prior[0, 3] = prior[3, 0] = 0.08
    users = rng.multivariate_normal(np.zeros(4), prior, num_users)
    user = np.repeat(np.arange(num_users), per_user)
    item = np.concatenate([rng.permutation(num_items)[:per_user] for _ in range(num_users)])
    rating = bias[item] + np.sum(np.column_stack([items, np.ones(num_items)])[item] * users[user], axis=1)
    rating += rng.normal(0, 0.6, len(rating))
    shuffled = rng.permutation(len(rating))
    names = tuple(map(str, range(num_users + 1)))  # the last one has rated nothing
    table = RatingTable(
        user_names=names,
        item_names=tuple(map(str, range(num_items))),
        user_index=user[shuffled],
        item_index=item[shuffled],
        rating=rating[shuffled],
    )
    return items, table, bias, users, prior, 0.36


def log_likelihood(model, table):
    """sum_u log N(y_u; 0, X S X' + s^2 I), by SciPy."""
    total = 0.0
    for user in range(table.num_users - 1):
        mine = table.user_index == user
        rows = np.column_stack([model.item_embeddings, np.ones(len(model.item_bias))])[table.item_index[mine]]
        covariance = rows @ model.prior @ rows.T + model.noise * np.eye(len(rows))
        total += multivariate_normal.logpdf(
            table.rating[mine] - model.item_bias[table.item_index[mine]], np.zeros(len(rows)), covariance
        )
    return total


def test_users_are_the_gaussian_conditional_mean():
    items, table, bias, _, prior, noise = made_world(5, 30, 12)
    model = TasteModel(item_embeddings=items, item_bias=bias, prior=prior + 0.01 * np.eye(4), noise=noise)
    embeddings, offsets = model.fold_in(table)
    for user in range(5):
        mine = table.user_index == user
        rows = np.column_stack([items, np.ones(30)])[table.item_index[mine]]
        target = table.rating[mine] - bias[table.item_index[mine]]
        covariance = rows @ model.prior @ rows.T + noise * np.eye(len(rows))
        mean = model.prior @ rows.T @ np.linalg.solve(covariance, target)
        np.testing.assert_allclose(np.append(embeddings[user], offsets[user]), mean, atol=1e-9)
    assert not embeddings[5].any() and offsets[5] == 0


def test_the_likelihood_never_falls():
    items, table, bias, *_ = made_world(40, 50, 10)
    told = [log_likelihood(fit_taste(table, items, bias, count), table) for count in range(1, 8)]
    assert np.diff(told).min() > -1e-6 and told[-1] > told[0] + 10


def test_the_made_worlds_taste_is_found_along_the_directions_that_have_any():
    items, table, bias, users, prior, noise = made_world(600, 200, 40)
    model = fit_taste(table, items, bias, 100)
    # As correlations between coordinates of like scale: 600 users tell a covariance to some 6 %.
    scale = np.sqrt(np.diag(prior) + 0.01)
    np.testing.assert_allclose(model.prior / np.outer(scale, scale), prior / np.outer(scale, scale), atol=0.2)
    assert model.noise == pytest.approx(noise, rel=0.03)
    embeddings, offsets = model.fold_in(table)
    found = np.column_stack([embeddings, offsets])[:-1]
    assert np.corrcoef(found[:, 0], users[:, 0])[0, 1] > 0.9
    assert np.abs(found[:, 1]).max() < 0.1


def test_the_scale_of_the_embeddings_does_not_matter():
    items, table, bias, *_ = made_world(60, 50, 15)
    own = fit_taste(table, items, bias)
    other = fit_taste(table, items * 1e-3, bias)
    for model, of in ((own, items), (other, items * 1e-3)):
        predicted = model.fold_in(table)[0] @ of.T
        np.testing.assert_allclose(predicted, own.fold_in(table)[0] @ items.T, atol=2e-2 * np.abs(predicted).max())
