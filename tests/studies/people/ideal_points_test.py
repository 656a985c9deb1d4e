"""PAL against scikit-learn, SciPy, finite differences and made-up mixtures.

Axis letters: N items, F features, K prototypes, U users, R pairs.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from eagle_jax.studies.people.ideal_points import (
    PalParams,
    PalSettings,
    UserPairs,
    fit_new_users,
    fit_pal,
    ideal_points,
    pal_losses,
    pal_rewards,
)

SETTINGS = PalSettings(
    dim=2,
    hidden_width=0,
    learning_rate=0.05,
    num_steps=250,
    weight_decay=0.0,
    num_starts=1,
    held_out_fraction=0.1,
    new_user_steps=400,
    new_user_learning_rate=0.1,
)


def identity(width):
    """f(x) = x: kernels are divided by the root of their inputs' number."""
    return ((jnp.sqrt(width) * jnp.eye(width), jnp.zeros(width)),)


def draw_pairs(rewards, count, rng):
    """`count` comparisons of every user by Bradley and Terry's model of rewards [U, N]."""
    num_users, num_items = rewards.shape
    user = np.repeat(np.arange(num_users), count)
    first = rng.integers(num_items, size=len(user))
    second = (first + rng.integers(1, num_items, size=len(user))) % num_items
    wins = rng.random(len(user)) < expit(rewards[user, first] - rewards[user, second])
    return UserPairs(user, np.where(wins, first, second), np.where(wins, second, first))


def unit_rows(rng, shape):
    rows = rng.standard_normal(shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def test_rewards_by_hand():
    # a = (0.25 * (0, 0) + 0.75 * (4, 0)) = (3, 0): squared distances 9 + 1 and 1 + 4.
    params = PalParams(identity(2), jnp.array([[0.0, 0.0], [4.0, 0.0]]), jnp.log(jnp.array([[0.25, 0.75]])))
    features = jnp.array([[0.0, 1.0], [2.0, 2.0]])
    np.testing.assert_allclose(pal_rewards(params, features), [[-10.0, -5.0]], rtol=1e-5)
    loss = pal_losses(params, features, UserPairs(*np.array([[0], [0], [1]])))
    np.testing.assert_allclose(loss, [np.log1p(np.exp(5.0))], rtol=1e-5)


def test_one_prototype_in_fixed_features_is_logistic_regression_on_differences():
    """On the sphere |x|^2 cancels: the margin is <2 p, x - y>, so that the coefficients are 2 p."""
    rng = np.random.default_rng(0)
    features = unit_rows(rng, (60, 3))
    pairs = draw_pairs((4.0 * features @ [1.0, -0.5, 0.2])[None], 600, rng)
    differences = features[pairs.chosen] - features[pairs.rejected]
    sign = np.where(rng.random(600) < 0.5, 1, -1)
    peer = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(differences * sign[:, None], sign)

    def mean_loss(prototype):
        params = PalParams(identity(3), prototype[None], jnp.zeros((1, 1)))
        return jnp.mean(pal_losses(params, jnp.asarray(features), pairs))

    at_peer = jnp.asarray(peer.coef_[0] / 2, jnp.float32)
    np.testing.assert_allclose(mean_loss(at_peer), -np.log(expit(differences @ peer.coef_[0])).mean(), rtol=1e-5)
    assert np.linalg.norm(jax.grad(mean_loss)(at_peer)) < 1e-4
    assert np.linalg.norm(jax.grad(mean_loss)(0.5 * at_peer)) > 1e-2  # which tells the two apart
    # What is fitted with a free linear map loses no less than the peer loses in nats: it holds the peer's model.
    fit = fit_pal(jnp.asarray(features), pairs, 1, 1, 0.0, SETTINGS, jax.random.key(0))
    assert np.mean(pal_losses(fit.params, jnp.asarray(features), pairs)) < mean_loss(at_peer) + 0.01


def test_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(1)
    with jax.enable_x64():
        layers = tuple(
            (jnp.asarray(rng.standard_normal(s)), jnp.asarray(rng.standard_normal(s[1]))) for s in ((4, 5), (5, 2))
        )
        params = PalParams(layers, jnp.asarray(rng.standard_normal((3, 4))), jnp.asarray(rng.standard_normal((2, 3))))
        features = jnp.asarray(rng.standard_normal((6, 4)))
        pairs = draw_pairs(rng.standard_normal((2, 6)), 5, rng)
        flat, unravel = jax.flatten_util.ravel_pytree(params)

        @jax.jit
        def loss(values):
            return jnp.mean(pal_losses(unravel(values), features, pairs))

        gradient = np.asarray(jax.grad(loss)(flat))
        for place in range(len(flat)):
            step = np.zeros(len(flat))
            step[place] = 1e-5
            assert gradient[place] == pytest.approx(float(loss(flat + step) - loss(flat - step)) / 2e-5, abs=1e-7)


def test_prototypes_of_a_made_up_mixture_are_found():
    """Two thirds of the users are of one prototype each, the others mixtures; f was a turn."""
    rng = np.random.default_rng(2)
    features = rng.standard_normal((80, 2)).astype(np.float32)
    prototypes = 1.5 * np.array([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]])
    weights = np.concatenate([np.repeat(np.eye(3), 10, axis=0), rng.dirichlet(np.ones(3), 15)])
    points = weights @ prototypes
    rewards = -np.sum((features[None] - points[:, None]) ** 2, axis=2)
    fit = fit_pal(jnp.asarray(features), draw_pairs(rewards, 150, rng), 45, 3, 0.0, SETTINGS, jax.random.key(1))
    # Prototypes may lie outside of the users' hull, with weights that are less extreme: points are what is told.
    found = np.asarray(jax.nn.softmax(fit.params.logits)) @ np.asarray(fit.params.prototypes)
    assert np.abs(found - points).mean() < 0.15
    largest = np.asarray(fit.params.logits)[:30].argmax(axis=1).reshape(3, 10)
    assert (largest == largest[:, :1]).all() and sorted(largest[:, 0]) == [0, 1, 2]  # up to a permutation
    # Each user ranks the items as the true reward does.
    told = np.asarray(pal_rewards(fit.params, jnp.asarray(features)))
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(told, rewards, strict=True)]) > 0.97


@pytest.fixture(scope="module")
def known():
    rng = np.random.default_rng(3)
    params = PalParams(
        identity(2), jnp.asarray(2.0 * rng.standard_normal((3, 2)), jnp.float32),
        jnp.asarray(rng.standard_normal((9, 3)), jnp.float32),
    )  # fmt: skip
    features = jnp.asarray(rng.standard_normal((40, 2)), jnp.float32)
    new = params._replace(logits=jnp.asarray(rng.standard_normal((4, 3)), jnp.float32))
    return params, features, draw_pairs(np.asarray(pal_rewards(new, features)), 30, rng)


def test_new_weights_are_the_constrained_minimum(known):
    """Without a penalty the problem is convex in w: SciPy's SLSQP on the simplex finds the same loss."""
    params, features, pairs = known
    fitted = fit_new_users(params, features, pairs, np.ones(120, bool), 4, 0.0, SETTINGS)
    losses = np.asarray(pal_losses(fitted, features, pairs)).reshape(4, -1).mean(axis=1)
    items, prototypes = np.asarray(features, np.float64), np.asarray(params.prototypes, np.float64)
    for user in range(4):
        own = pairs.take(pairs.user == user)

        def loss(weights, own=own):
            rewards = -np.sum((items - weights @ prototypes) ** 2, axis=1)
            return np.logaddexp(0, rewards[own.rejected] - rewards[own.chosen]).mean()

        simplex = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
        peer = minimize(loss, np.full(3, 1 / 3), method="SLSQP", bounds=[(0, 1)] * 3, constraints=simplex)
        assert losses[user] == pytest.approx(peer.fun, abs=2e-4)


def test_new_users_leave_the_rest_and_each_other_alone(known):
    params, features, pairs = known
    everything = np.ones(120, bool)
    together = fit_new_users(params, features, pairs, everything, 5, 0.3, SETTINGS)
    np.testing.assert_array_equal(together.prototypes, params.prototypes)
    np.testing.assert_allclose(together.logits[4], np.mean(params.logits, axis=0), rtol=1e-5)  # who said nothing
    alone = fit_new_users(params, features, pairs, pairs.user == 2, 5, 0.3, SETTINGS)
    np.testing.assert_allclose(alone.logits[2], together.logits[2], atol=1e-3)
    held = fit_new_users(params, features, pairs, everything, 5, 1e4, SETTINGS)
    np.testing.assert_allclose(ideal_points(held)[:4], np.tile(ideal_points(held)[4], (4, 1)), atol=0.02)
    # At the minimum of a user's own objective its gradient vanishes, penalty included.
    mean = np.asarray(params.logits).mean(axis=0)

    def objective(logits):
        points = softmax(logits) @ np.asarray(params.prototypes, np.float64)
        rewards = -np.sum((np.asarray(features, np.float64) - points) ** 2, axis=1)
        own = pairs.take(pairs.user == 2)
        return np.logaddexp(0, rewards[own.rejected] - rewards[own.chosen]).sum() + 0.3 * np.sum((logits - mean) ** 2)

    starts = [mean, *np.random.default_rng(4).standard_normal((6, 3))]  # it has more than one minimum
    peer = min((minimize(objective, start) for start in starts), key=lambda found: found.fun)
    assert objective(np.asarray(together.logits[2], np.float64)) == pytest.approx(peer.fun, abs=1e-3)
