"""RLAIF's losses on a language of 15 texts, against dynamic programming over it in float64.

Texts have at most three of the tokens a (0), b (1) and END (2). The states are the seven beginnings
that do not end in END, numbered as in `STATES`.
"""

import inspect
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from eagle_jax.elm.rlaif import losses as rlaif_losses

# Each compiled as a whole: operation by operation takes longer.
losses = types.SimpleNamespace(
    **{name: jax.jit(fn) for name, fn in vars(rlaif_losses).items() if inspect.isfunction(fn)}
)

END, HORIZON, ALPHA = 2, 3, 0.4
STATES = [begin for length in range(HORIZON) for begin in itertools.product((0, 1), repeat=length)]
TEXTS = [begin + (token,) for begin in STATES for token in range(3) if token == END or len(begin) == HORIZON - 1]
RNG = np.random.default_rng(0)
REFERENCE = scipy.special.log_softmax(RNG.normal(size=(7, 3)), axis=1)  # log p_pre, by state
POLICY = scipy.special.log_softmax(RNG.normal(size=(7, 3)), axis=1)  # another one
REWARDS = RNG.normal(size=len(TEXTS))
MASK = np.array([[n < len(text) for n in range(HORIZON)] for text in TEXTS])
# [B, T]: the state in which each token was written, and the token; padding is state 0, token 0.
VISITED = np.array([[STATES.index(t[:n]) if n < len(t) else 0 for n in range(3)] for t in TEXTS])
DRAWN = np.array([[text[n] if n < len(text) else 0 for n in range(3)] for text in TEXTS])


def solve(value_of):
    """Q [7, 3] by going backwards; value_of(state's number, its Q [3]) is V of a state."""
    critic = np.zeros((7, 3))
    for state, token in itertools.product(reversed(range(7)), range(3)):
        text = STATES[state] + (token,)
        following = STATES.index(text) if text in STATES else None
        critic[state, token] = (
            REWARDS[TEXTS.index(text)] if following is None else value_of(following, critic[following])
        )
    return critic


def soft_value_of(log_policy):
    return lambda s, q: np.exp(log_policy[s]) @ (q - ALPHA * (log_policy[s] - REFERENCE[s]))


OPTIMAL_CRITIC = solve(lambda s, q: ALPHA * scipy.special.logsumexp(q / ALPHA, b=np.exp(REFERENCE[s])))
OPTIMAL_POLICY = scipy.special.log_softmax(REFERENCE + OPTIMAL_CRITIC / ALPHA, axis=1)


def text_probabilities(log_policy):
    return np.exp((log_policy[VISITED, DRAWN] * MASK).sum(axis=1))


def objective(log_policy):
    """Equation 1, over all texts."""
    ratios = ((log_policy - REFERENCE)[VISITED, DRAWN] * MASK).sum(axis=1)
    return text_probabilities(log_policy) @ (REWARDS - ALPHA * ratios)


def of_drawn(table):
    """[7, 3] -> [B, T] at the tokens of the texts."""
    return table[VISITED, DRAWN]


def at_texts(table):
    """[7, ...] -> [B, T, ...]."""
    return table[VISITED]


def descend(loss, params, num_steps=1500):
    """Adam from `params`, its rate going to 0, until nothing moves."""
    optimizer = optax.adam(optax.linear_schedule(0.03, 0.0, num_steps))

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        carry = (params, optimizer.init(params))
        return jax.lax.scan(step, carry, length=num_steps)[0][0]

    return run(params)


def test_the_oracle_is_an_optimum():
    """No policy is worth more than V*(s_0): not the reference, another one, or small changes."""
    assert len(TEXTS) == 15
    np.testing.assert_allclose(text_probabilities(POLICY).sum(), 1.0)
    best = objective(OPTIMAL_POLICY)
    start = scipy.special.logsumexp(OPTIMAL_CRITIC[0] / ALPHA, b=np.exp(REFERENCE[0]))
    np.testing.assert_allclose(best, ALPHA * start)
    others = [REFERENCE, POLICY]
    for change in 0.3 * np.random.default_rng(1).normal(size=(20, 7, 3)):
        others.append(scipy.special.log_softmax(OPTIMAL_POLICY + change, axis=1))
    assert max(map(objective, others)) < best - 1e-3
    # The texts' distribution is p_pre exp(r / alpha), as of any problem with KL.
    tilted = text_probabilities(REFERENCE) * np.exp(REWARDS / ALPHA)
    np.testing.assert_allclose(text_probabilities(OPTIMAL_POLICY), tilted / tilted.sum())


def test_reinforce_by_hand():
    # Divergences 0.5, 0.2, 0.1 and reward 2 with alpha 2: returns less those that follow are
    # 2 - 2 (0.2 + 0.1) = 1.4, 2 - 2 0.1 = 1.8 and 2.
    mask = jnp.ones((1, 3), bool)
    divergence = jnp.array([[0.5, 0.2, 0.1]])
    returns = losses.returns_to_go(jnp.array([2.0]), divergence, mask, 2.0)
    np.testing.assert_allclose(returns, [[1.4, 1.8, 2.0]], rtol=1e-6)
    # Baseline 1, log-probs -1, -2, -3: 0.4 1 + 0.8 2 + 1 3 = 5, and 2 (0.5 + 0.2 + 0.1) = 1.6.
    log_probs = jnp.array([[-1.0, -2.0, -3.0]])
    loss = losses.regularized_reinforce_loss(log_probs, divergence, returns, jnp.ones((1, 3)), mask, 2.0)
    assert float(loss) == pytest.approx(6.6)


@pytest.mark.parametrize("baseline", [0.0, 1.0])
def test_reinforce_s_expected_gradient_is_that_of_the_objective(baseline):
    """All texts, weighted by their probabilities; finite differences of equation 1."""
    baselines = jnp.asarray(baseline * RNG.normal(size=7))
    weights = jnp.asarray(text_probabilities(POLICY))

    def expected_loss(logits):
        log_policy = jax.nn.log_softmax(logits)

        def of_text(visited, drawn, mask, reward):
            rows, mask = log_policy[visited][None], mask[None]
            divergence = losses.token_divergence(rows, jnp.asarray(REFERENCE)[visited][None], mask)
            returns = losses.returns_to_go(reward[None], divergence, mask, ALPHA)
            log_probs = rows[:, jnp.arange(3), drawn]
            of_states = baselines[visited][None]
            return losses.regularized_reinforce_loss(log_probs, divergence, returns, of_states, mask, ALPHA)

        return weights @ jax.vmap(of_text)(VISITED, DRAWN, jnp.asarray(MASK), REWARDS)

    gradient = jax.jit(jax.grad(expected_loss))(jnp.asarray(POLICY))
    exact, h = np.zeros((7, 3)), 1e-6
    for place in np.ndindex(7, 3):
        change = np.zeros((7, 3))
        change[place] = h
        up, down = (objective(scipy.special.log_softmax(POLICY + side * change, axis=1)) for side in (1, -1))
        exact[place] = (up - down) / (2 * h)
    assert np.abs(exact).max() > 0.1
    np.testing.assert_allclose(gradient, -exact, atol=1e-5)


def test_returns_are_samples_of_the_soft_critic():
    """E[G_n | s_n, a_n] = Q_n(s_n, a_n) of the policy, by dynamic programming."""
    divergence = losses.token_divergence(at_texts(POLICY), at_texts(REFERENCE), MASK)
    returns = losses.returns_to_go(jnp.asarray(REWARDS), divergence, MASK, ALPHA)
    expected, weights = np.zeros((7, 3)), np.zeros((7, 3))
    of_tokens = MASK * text_probabilities(POLICY)[:, None]
    np.add.at(weights, (VISITED, DRAWN), of_tokens)
    np.add.at(expected, (VISITED, DRAWN), of_tokens * np.asarray(returns))
    np.testing.assert_allclose(expected / weights, solve(soft_value_of(POLICY)), atol=1e-5)


def test_bellman_targets_by_hand():
    # The second text has two tokens; the state before the first token is no part of either.
    values = jnp.array([[7.0, 1.0, 2.0, 3.0], [7.0, 4.0, 5.0, 6.0]])
    mask = jnp.array([[False, True, True, True], [False, True, True, False]])
    targets = losses.bellman_targets(values, jnp.array([10.0, 20.0]), mask)
    np.testing.assert_allclose(np.where(mask, targets, 0), [[0, 2, 3, 10], [0, 5, 20, 0]])
    # ((2-1)^2 + (3-1)^2 + (10-1)^2 + (5-1)^2 + (20-1)^2) / 2
    assert losses.bellman_residual(jnp.ones((2, 4)), targets, mask) == 231.5


def test_bellman_targets_get_no_gradient():
    def loss(values, rewards):
        targets = losses.bellman_targets(values, rewards, MASK)
        return losses.bellman_residual(jnp.zeros(MASK.shape), targets, MASK)

    for gradient in jax.grad(loss, argnums=(0, 1))(jnp.ones(MASK.shape), jnp.asarray(REWARDS)):
        np.testing.assert_array_equal(gradient, 0.0)
    gradient = jax.grad(losses.bellman_residual)(jnp.ones(MASK.shape), 0 * VISITED + 3.0, MASK)
    np.testing.assert_allclose(gradient, np.where(MASK, -4 / 15, 0), rtol=1e-6)


def test_critic_of_the_closed_form_is_found_by_its_residual():
    """Equations 5 and 6 from tables of zeros; data of any distribution over all texts."""

    def loss(critic):
        next_values = losses.optimal_values(at_texts(REFERENCE), at_texts(critic), ALPHA)
        targets = losses.bellman_targets(next_values, jnp.asarray(REWARDS), MASK)
        return losses.bellman_residual(of_drawn(critic), targets, MASK)

    np.testing.assert_allclose(descend(loss, jnp.zeros((7, 3))), OPTIMAL_CRITIC, atol=1e-3)


def test_soft_actor_critic_by_hand():
    # pi = (3/4, 1/4), p_pre = (1/2, 1/2), Q = (1, 3), alpha = 2:
    #   3/4 (1 - 2 log 3/2) + 1/4 (3 - 2 log 1/2) = 1.5 - 2 0.130812 = 1.238376
    policy, reference = jnp.log(jnp.array([[[0.75, 0.25]], [[0.5, 0.5]]]))[:, None]
    critic = jnp.array([[[1.0, 3.0]]])
    np.testing.assert_allclose(losses.soft_values(policy, reference, critic, 2.0), [[1.238376]], rtol=1e-6)
    loss = losses.actor_loss(policy, reference, critic, jnp.ones((1, 1), bool), 2.0)
    assert float(loss) == pytest.approx(-1.238376)


def test_soft_actor_critic_s_fixed_point_is_the_soft_optimal_policy():
    """Critic, value and actor together, from zeros and the pretrained policy."""

    def loss(tables):
        log_policy = jax.nn.log_softmax(at_texts(tables["policy"]))
        reference, critic, values = at_texts(REFERENCE), at_texts(tables["critic"]), at_texts(tables["value"])
        targets = losses.bellman_targets(values, jnp.asarray(REWARDS), MASK)
        soft = losses.soft_values(log_policy, reference, critic, ALPHA)
        return (
            losses.bellman_residual(of_drawn(tables["critic"]), targets, MASK)
            + losses.bellman_residual(values, soft, MASK)
            + losses.actor_loss(log_policy, reference, critic, MASK, ALPHA)
        )

    start = {"critic": jnp.zeros((7, 3)), "value": jnp.zeros(7), "policy": jnp.asarray(REFERENCE)}
    tables = descend(loss, start)
    np.testing.assert_allclose(jax.nn.softmax(tables["policy"]), np.exp(OPTIMAL_POLICY), atol=2e-3)
    np.testing.assert_allclose(tables["critic"], OPTIMAL_CRITIC, atol=1e-2)
    np.testing.assert_allclose(tables["value"][0], objective(OPTIMAL_POLICY), atol=1e-2)


def distillation(logits):
    """Of a policy towards the optimal one, over all texts."""
    optimal = losses.optimal_log_policy(at_texts(REFERENCE), at_texts(OPTIMAL_CRITIC), ALPHA)
    return losses.distillation_loss(jax.nn.log_softmax(at_texts(logits)), optimal, MASK)


def test_the_actor_s_gradient_is_that_of_distillation_times_alpha_and_the_policy_s_alone():
    def of_actor(policy, reference, critic):
        return losses.actor_loss(*map(at_texts, (policy, reference, critic)), MASK, ALPHA)

    tables = [jnp.asarray(table) for table in (POLICY, REFERENCE, OPTIMAL_CRITIC)]
    for gradient in jax.grad(of_actor, argnums=(1, 2))(*tables):
        np.testing.assert_array_equal(gradient, 0.0)
    of_logits = jax.grad(lambda logits: of_actor(jax.nn.log_softmax(logits), *tables[1:]))
    np.testing.assert_allclose(of_logits(tables[0]), ALPHA * jax.grad(distillation)(tables[0]), atol=1e-6)


def test_closed_form_by_hand():
    # p_pre = (1/2, 1/2), Q = (0, 2 log 3), alpha = 2: E exp(Q / 2) = (1 + 3) / 2 = 2, so
    # V* = 2 log 2 and mu* = (1/4, 3/4).
    reference = jnp.log(jnp.full((1, 1, 2), 0.5))
    critic = jnp.array([[[0.0, 2 * np.log(3)]]])
    np.testing.assert_allclose(losses.optimal_values(reference, critic, 2.0), [[2 * np.log(2)]], rtol=1e-6)
    optimal = losses.optimal_log_policy(reference, critic, 2.0)
    np.testing.assert_allclose(np.exp(optimal), [[[0.25, 0.75]]], rtol=1e-6)
    # KL((1/2, 1/2) || mu*) = (log 2 + log 2/3) / 2 = 0.143841
    loss = losses.distillation_loss(reference, optimal, jnp.ones((1, 1), bool))
    assert float(loss) == pytest.approx(0.143841, abs=1e-6)


def test_gradient_of_distillation_is_equation_8():
    """By a loop in float64: sum_a pi (log(pi / p_pre) - Q / alpha) grad log pi."""
    wanted = np.zeros((7, 3))
    for row, n in zip(*np.nonzero(MASK), strict=True):
        state = VISITED[row, n]
        weights = POLICY[state] - REFERENCE[state] - OPTIMAL_CRITIC[state] / ALPHA
        probabilities = np.exp(POLICY[state])
        for token in range(3):
            score = np.eye(3)[token] - probabilities
            wanted[state] += probabilities[token] * weights[token] * score / len(TEXTS)
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(jax.grad(distillation)(jnp.asarray(POLICY)), wanted, atol=1e-5)


def test_divergence_is_scipy_s_and_0_at_the_pretrained_policy_whose_value_is_the_mean_of_q():
    reference = at_texts(REFERENCE)
    np.testing.assert_allclose(losses.token_divergence(reference, reference, MASK), 0.0, atol=1e-6)
    by_state = scipy.special.rel_entr(np.exp(POLICY), np.exp(REFERENCE)).sum(axis=1)
    other = losses.token_divergence(at_texts(POLICY), reference, MASK)
    np.testing.assert_allclose(other, np.where(MASK, by_state[VISITED], 0.0), atol=1e-6)
    values = losses.soft_values(reference, reference, at_texts(OPTIMAL_CRITIC), ALPHA)
    np.testing.assert_allclose(values, (np.exp(REFERENCE) * OPTIMAL_CRITIC).sum(axis=1)[VISITED], atol=1e-6)
