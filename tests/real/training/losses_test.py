"""Losses of preference optimisation: worked values, laws, and EM on labels with known errors.

Against TRL's own code they are held in trl_test.py.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from scipy.special import expit, log_expit

from eagle_jax.real.training.losses import (
    PairValues,
    dpo_loss,
    em_loss,
    error_posterior,
    implicit_rewards,
    ipo_loss,
    reward_margins,
    reward_metrics,
)

MARGINS = np.array([-30.0, -2.0, -0.3, 0.0, 0.7, 4.0, 200.0], np.float32)


def draw_pair(seed, count=5):
    rng = np.random.default_rng(seed)
    return PairValues(*rng.normal(-20.0, 4.0, (2, count)).astype(np.float32))


def test_worked_values():
    # Log-ratios 2 and -1: rewards 0.2 and -0.1, margin 0.3.
    policy = PairValues(np.array([-3.0]), np.array([-8.0]))
    reference = PairValues(np.array([-5.0]), np.array([-7.0]))
    np.testing.assert_allclose(implicit_rewards(policy.chosen, reference.chosen, 0.1), [0.2], rtol=1e-6)
    margins = jnp.asarray(reward_margins(policy, reference, 0.1))
    np.testing.assert_allclose(margins, [0.3], rtol=1e-6)
    # -log(1 / (1 + exp(-0.3))) = 0.554355; the other way round 0.854355.
    np.testing.assert_allclose(dpo_loss(margins, 0.0), [0.554355], rtol=1e-5)
    np.testing.assert_allclose(dpo_loss(margins, 0.2), [0.8 * 0.554355 + 0.2 * 0.854355], rtol=1e-5)
    # Means per token 2/4 and -1/2: h = 1, less 1 / 0.2 = 5.
    counts = PairValues(np.array([4]), np.array([2]))
    np.testing.assert_allclose(ipo_loss(policy, reference, counts, 0.1), [16.0], rtol=1e-5)


def test_at_the_reference_every_loss_is_that_of_a_coin():
    pair = draw_pair(0)
    margins = reward_margins(pair, pair, 0.1)
    for loss_fn, of_labels in ((dpo_loss, 0.0), (dpo_loss, 0.3), (em_loss, 0.2)):
        loss = loss_fn(margins, of_labels)
        np.testing.assert_allclose(loss, np.log(2.0), rtol=1e-6)
    counts = PairValues(np.full(5, 3), np.full(5, 7))
    np.testing.assert_allclose(ipo_loss(pair, pair, counts, 0.25), 4.0)
    np.testing.assert_allclose(error_posterior(margins, 0.2), 0.2, rtol=1e-6)


def test_gradients_are_the_papers_formula():
    """Rafailov et al., section 4: -beta sigmoid(-m) (grad log pi(y_w) - grad log pi(y_l))."""
    policy, reference, beta = draw_pair(3), draw_pair(4), 0.2

    def total(policy):
        return jnp.sum(dpo_loss(reward_margins(policy, reference, beta), 0.0))

    gradient = jax.grad(total)(PairValues(*map(jnp.asarray, policy)))
    m = np.float64(reward_margins(policy, reference, beta))
    np.testing.assert_allclose(gradient.chosen, -beta * expit(-m), rtol=1e-5)
    np.testing.assert_allclose(gradient.rejected, beta * expit(-m), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.01, 0.2, 0.45])
def test_smoothing_bounds_the_loss_by_its_entropy(smoothing):
    entropy = -smoothing * np.log(smoothing) - (1 - smoothing) * np.log(1 - smoothing)
    losses = dpo_loss(jnp.asarray(MARGINS), smoothing)
    assert (losses >= entropy - 1e-6).all() and np.isfinite(losses).all()
    at = jnp.asarray([np.log((1 - smoothing) / smoothing)], jnp.float32)  # sigmoid(at) = 1 - s
    np.testing.assert_allclose(dpo_loss(at, smoothing), entropy, rtol=1e-5)
    slope = jax.grad(lambda m, smoothing: dpo_loss(m, smoothing).sum())
    np.testing.assert_allclose(slope(at, smoothing), 0.0, atol=1e-6)
    slope = slope(jnp.asarray(MARGINS), 0.5)
    assert slope[3] == 0.0  # nothing is said about a pair whose label is a coin
    np.testing.assert_allclose(slope, expit(np.float64(MARGINS)) - 0.5, atol=1e-6)


def test_posteriors_are_bayes_rule_and_carry_no_gradient():
    m, rate = np.float64(MARGINS), 0.2
    wrong, right = rate * expit(-m), (1 - rate) * expit(m)
    posterior = error_posterior(jnp.asarray(MARGINS), rate)
    np.testing.assert_allclose(posterior, wrong / (wrong + right), rtol=1e-5, atol=1e-30)

    def total(margins, rate):
        return jnp.sum(em_loss(margins, rate))

    by_margin, by_rate = jax.grad(total, argnums=(0, 1))(jnp.asarray(MARGINS), rate)
    assert by_rate == 0.0
    # That of label smoothing with q held, and of -log p(label) (Fisher's identity).
    np.testing.assert_allclose(by_margin, -(1 - posterior) * expit(-m) + posterior * expit(m), rtol=1e-4, atol=1e-7)
    slope = (2 * rate - 1) * expit(m) * expit(-m) / (right + wrong)
    np.testing.assert_allclose(by_margin, slope, rtol=1e-4, atol=1e-6)


def test_em_without_errors_is_dpo():
    margins = jnp.asarray(MARGINS)
    found, wanted = (
        jax.vmap(jax.value_and_grad(lambda m, f=f: f(m[None], 0.0)[0]))(margins) for f in (em_loss, dpo_loss)
    )
    chex.assert_trees_all_equal(found, wanted)


def test_metrics_are_means_over_pairs_only():
    policy, reference = draw_pair(5), draw_pair(6)
    spoilt = PairValues(*(np.append(side, 1e6).astype(np.float32) for side in policy))
    zero = PairValues(*(np.append(side, 0.0).astype(np.float32) for side in reference))
    weights = jnp.asarray([1.0] * 5 + [0.0])
    found = reward_metrics(spoilt, zero, 0.5, weights)
    rewards = [0.5 * np.float64(p - r) for p, r in zip(policy, reference, strict=True)]
    wanted = {
        "rewards/chosen": rewards[0].mean(),
        "rewards/rejected": rewards[1].mean(),
        "rewards/margin": (rewards[0] - rewards[1]).mean(),
        "rewards/accuracy": (rewards[0] > rewards[1]).mean(),
        "logps/chosen": policy.chosen.mean(),
        "logps/rejected": policy.rejected.mean(),
    }
    chex.assert_trees_all_close(found, wanted, rtol=1e-5)
    tie = reward_metrics(policy, policy, 0.5, jnp.ones(5))
    assert tie["rewards/accuracy"] == tie["rewards/margin"] == 0.0


@pytest.mark.parametrize("flipped", [0.0, 0.25])
def test_em_finds_the_share_of_wrong_labels(flipped):
    """Linear rewards in float64: EM's steps never raise -log p(label), and end where a general
    optimiser of rewards and error rate together does, near the truth."""
    rng = np.random.default_rng(7)
    features = rng.normal(size=(4000, 3))  # of the first response, less those of the second
    truth = np.array([3.0, -2.0, 1.5])
    first_is_better = rng.random(4000) < expit(features @ truth)
    is_flipped = rng.random(4000) < flipped
    chosen_less_rejected = features * np.where(first_is_better ^ is_flipped, 1.0, -1.0)[:, None]

    def negative_log_likelihood(weights, rate):
        margins = chosen_less_rejected @ weights
        right = log_expit(margins) + np.log1p(-rate)
        return -np.mean(np.logaddexp(right, log_expit(-margins) + np.log(rate)))

    def weighted(weights, posterior):
        return jnp.mean(dpo_loss(jnp.asarray(chosen_less_rejected) @ weights, posterior))

    with jax.enable_x64(True):
        m_step = jax.jit(jax.value_and_grad(weighted))
        weights, rate, values = np.zeros(3), 0.3, []
        for _ in range(100):
            posterior = error_posterior(jnp.asarray(chosen_less_rejected @ weights), rate)
            found = scipy.optimize.minimize(m_step, weights, posterior, jac=True, method="BFGS")
            weights, rate = found.x, float(jnp.mean(posterior))
            values.append(negative_log_likelihood(weights, rate))
    assert (np.diff(values) <= 1e-12).all() and values[0] - values[-1] > 1e-3
    direct = scipy.optimize.minimize(
        lambda x: negative_log_likelihood(x[:3], x[3]),
        np.array([*truth, 0.2]),
        bounds=[(None, None)] * 3 + [(1e-9, 0.49)],
    )
    assert values[-1] <= direct.fun + 1e-5
    np.testing.assert_allclose(weights, direct.x[:3], atol=0.05)
    np.testing.assert_allclose(rate, direct.x[3], atol=0.002)
    np.testing.assert_allclose(rate, is_flipped.mean(), atol=0.02)
    if flipped:
        posterior = error_posterior(jnp.asarray(chosen_less_rejected @ weights, jnp.float32), rate)
        assert posterior[is_flipped].mean() > 2 * flipped > posterior[~is_flipped].mean()
