"""Losses against worked arithmetic, float64 loops, exact enumeration and finite differences."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from eagle_jax.language_model.log_probs import LastStates
from eagle_jax.learning import losses


def next_token_loss(logits, tokens, weights):
    """Of texts of which the logits [B, T, V] are known."""
    return losses.next_token_loss(LastStates(logits, jax.tree_util.Partial(lambda states: states)), tokens, weights)


def test_advantages_of_a_worked_example():
    # discount 0.5, lambda 0.5, V = 1, 2, 3, 0 and r = 0, 0, 8:
    #   deltas: 0 + 0.5 * 2 - 1 = 0;  0 + 0.5 * 3 - 2 = -0.5;  8 + 0 - 3 = 5
    #   A_2 = 5;  A_1 = -0.5 + 0.25 * 5 = 0.75;  A_0 = 0 + 0.25 * 0.75 = 0.1875
    advantages, returns = jax.jit(losses.generalized_advantage)(
        jnp.array([[0.0, 0.0, 8.0]]), jnp.array([[1.0, 2.0, 3.0, 0.0]]), 0.5, 0.5
    )
    np.testing.assert_allclose(advantages, [[0.1875, 0.75, 5.0]])
    np.testing.assert_allclose(returns, [[1.1875, 2.75, 8.0]])


@pytest.mark.parametrize(
    ("discount", "gae_lambda"), [(1.0, 0.95), (0.9, 0.3), (1.0, 1.0), (0.9, 0.0)]
)  # return less value; one step
def test_advantages_agree_with_a_float64_double_loop(discount, gae_lambda):
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(4, 7)), rng.normal(size=(4, 8))
    expected = np.zeros((4, 7))
    for b, t in itertools.product(range(4), range(7)):
        for future in range(t, 7):
            delta = rewards[b, future] + discount * values[b, future + 1] - values[b, future]
            expected[b, t] += (discount * gae_lambda) ** (future - t) * delta
    advantages, returns = jax.jit(losses.generalized_advantage)(
        jnp.array(rewards), jnp.array(values), discount, gae_lambda
    )
    np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(returns, expected + values[:, :-1], rtol=1e-4, atol=1e-5)


def test_values_get_no_gradient():
    gradient = jax.grad(
        lambda values: sum(part.sum() for part in losses.generalized_advantage(jnp.ones((2, 3)), values, 0.9, 0.9))
    )(jnp.ones((2, 4)))
    np.testing.assert_array_equal(gradient, 0.0)


def test_reinforce_of_a_worked_example():
    # -(2 * -1 + -3 * -0.5) / 2 = 0.25; gradient -advantage / B = (-1, 1.5)
    log_probs, advantages = jnp.array([-1.0, -0.5]), jnp.array([2.0, -3.0])
    loss, gradient = jax.jit(jax.value_and_grad(losses.reinforce_loss))(log_probs, advantages)
    assert loss == pytest.approx(0.25)
    np.testing.assert_allclose(gradient, [-1.0, 1.5])


def test_advantages_get_no_gradient():
    gradient = jax.grad(losses.reinforce_loss, argnums=1)(jnp.ones(3), jnp.ones(3))
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_expected_gradient_on_a_bandit_is_that_of_expected_reward(baseline):
    logits, rewards = jnp.array([0.3, -0.4]), np.array([1.0, 0.2])

    # Both arms, enumerated, weighted by the probability of pulling them.
    probabilities = np.asarray(jax.nn.softmax(logits))
    gradient = sum(
        probabilities[arm]
        * jax.grad(
            lambda logits, arm=arm: losses.reinforce_loss(
                jax.nn.log_softmax(logits)[arm][None], jnp.array([rewards[arm] - baseline])
            )
        )(logits)
        for arm in range(2)
    )

    def expected_reward(logits):
        return scipy.special.softmax(logits) @ rewards

    start, h = np.array([0.3, -0.4]), 1e-6
    difference = [(expected_reward(start + h * e) - expected_reward(start - h * e)) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(gradient, -np.array(difference), atol=1e-6)


def test_action_log_probs_sum_the_marked_tokens_only():
    token_log_probs = jnp.array([[-1.0, -2.0, -jnp.inf], [-0.5, -4.0, -8.0]])
    mask = jnp.array([[True, True, False], [True, False, False]])
    total = jax.jit(losses.sum_over_action)
    np.testing.assert_allclose(total(token_log_probs, mask), [-3.0, -0.5])
    gradient = jax.grad(lambda x: total(x, mask).sum())(token_log_probs)
    np.testing.assert_array_equal(gradient, mask)


def test_value_loss_worked_example_and_gradients():
    # ((1 - 3)^2 + (2 - 2)^2) / 2 / 2 = 1; gradient (V - R) / 2 = (-1, 0)
    values, returns = jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 2.0]])
    value, gradients = jax.value_and_grad(losses.value_loss, argnums=(0, 1))(values, returns)
    assert value == 1.0
    np.testing.assert_allclose(gradients[0], [[-1.0, 0.0]])
    np.testing.assert_array_equal(gradients[1], 0.0)


def test_next_token_loss_of_a_worked_example():
    # Two words; logits at 0 say (1/4, 3/4) for token 1, at 1 say (1/2, 1/2) for token 2.
    # tokens 0, 1, 0: -(log 3/4 + log 1/2) / 2 = 0.490415
    logits = jnp.log(jnp.array([[[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]]]))
    tokens = jnp.array([[0, 1, 0]])
    loss = jax.jit(next_token_loss)(logits, tokens, jnp.ones((1, 3), bool))
    assert float(loss) == pytest.approx(0.490415, abs=1e-6)


def test_next_token_loss_agrees_with_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(3, 5, 7)).astype(np.float32)
    tokens, mask = rng.integers(7, size=(3, 5)), rng.random((3, 5)) < 0.6
    targets = np.where(mask, tokens, -100)[:, 1:].reshape(-1)
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits[:, :-1].reshape(-1, 7)), torch.tensor(targets))
    loss = jax.jit(next_token_loss)(logits, tokens, mask)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_weights_count_tokens_more_or_less():
    # As above with weights 3 and 1: -(3 log 3/4 + log 1/2) / 4 = 0.389048
    logits = jnp.log(jnp.array([[[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]]]))
    weights = jnp.array([[7.0, 3.0, 1.0]])
    loss = jax.jit(next_token_loss)(logits, jnp.array([[0, 1, 0]]), weights)
    assert float(loss) == pytest.approx(0.389048, abs=1e-6)


def test_only_logits_before_marked_tokens_get_gradient():
    logits = jnp.array(np.random.default_rng(5).normal(size=(1, 4, 3)))
    mask = jnp.array([[False, False, True, False]])
    tokens = jnp.array([[0, 1, 2, 0]])
    gradient = jax.jit(jax.grad(next_token_loss))(logits, tokens, mask)
    assert (np.abs(gradient[0, 1]) > 1e-3).all()
    np.testing.assert_array_equal(np.delete(gradient[0], 1, axis=0), 0.0)


def test_nothing_marked_is_zero():
    tokens = jnp.zeros((2, 3), jnp.int32)
    loss = jax.jit(next_token_loss)(jnp.zeros((2, 3, 4)), tokens, tokens)
    assert loss == 0.0


def test_a_batch_over_eight_devices_has_the_loss_and_gradient_of_one():
    rng = np.random.default_rng(6)
    logits = rng.normal(size=(16, 5, 7)).astype(np.float32)
    batch = logits, rng.integers(7, size=(16, 5)), rng.random((16, 5)) < 0.6
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    shared = jax.device_put(batch, jax.NamedSharding(mesh, jax.P("data")))
    loss = jax.jit(jax.value_and_grad(next_token_loss))
    found = loss(*shared)
    assert len(found[1].sharding.device_set) == 8
    chex.assert_trees_all_close(found, loss(*batch), atol=1e-7)
