"""RLAIF's losses on a language of 15 texts, against dynamic programming over it in float64.

Texts have at most three of the tokens a (0), b (1) and END (2). The states are the seven beginnings
that do not end in END, numbered as in `STATES`.
"""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from absl.testing import parameterized

from eagle_jax.elm.rlaif import losses

both_ways = chex.variants(with_jit=True, without_jit=True)
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
    return jnp.asarray(table)[VISITED, DRAWN]


def at_texts(table):
    """[7, ...] -> [B, T, ...]."""
    return jnp.asarray(table)[VISITED]


def descend(gradient_fn, params, num_steps=1500, learning_rate=0.03):
    """Adam from `params`, its rate going to 0, until nothing moves."""
    optimizer = optax.adam(optax.linear_schedule(learning_rate, 0.0, num_steps))

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(gradient_fn(params), state)
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


class TestReinforce(chex.TestCase):
    @both_ways
    def test_worked_example(self):
        # Divergences 0.5, 0.2, 0.1 and reward 2 with alpha 2: returns less those that follow are
        # 2 - 2 (0.2 + 0.1) = 1.4, 2 - 2 0.1 = 1.8 and 2.
        mask = jnp.ones((1, 3), bool)
        divergence = jnp.array([[0.5, 0.2, 0.1]])
        returns = self.variant(losses.returns_to_go)(jnp.array([2.0]), divergence, mask, 2.0)
        np.testing.assert_allclose(returns, [[1.4, 1.8, 2.0]], rtol=1e-6)
        # Baseline 1, log-probs -1, -2, -3: 0.4 1 + 0.8 2 + 1 3 = 5, and 2 (0.5 + 0.2 + 0.1) = 1.6.
        loss = self.variant(losses.regularized_reinforce_loss)(
            jnp.array([[-1.0, -2.0, -3.0]]), divergence, returns, jnp.ones((1, 3)), mask, 2.0
        )
        assert float(loss) == pytest.approx(6.6)

    @parameterized.parameters(0.0, 1.0)
    def test_expected_gradient_is_that_of_the_objective(self, baseline):
        """All texts, weighted by their probabilities; finite differences of equation 1."""
        baselines = baseline * RNG.normal(size=7)
        weights = jnp.asarray(text_probabilities(POLICY))

        def expected_loss(logits):
            log_policy = jax.nn.log_softmax(logits)

            def of_text(visited, drawn, mask, reward):
                rows, mask = log_policy[visited][None], mask[None]
                reference = jnp.asarray(REFERENCE)[visited][None]
                divergence = losses.token_divergence(rows, reference, mask)
                returns = losses.returns_to_go(reward[None], divergence, mask, ALPHA)
                return losses.regularized_reinforce_loss(
                    rows[:, jnp.arange(3), drawn],
                    divergence,
                    returns,
                    jnp.asarray(baselines)[visited][None],
                    mask,
                    ALPHA,
                )

            return weights @ jax.vmap(of_text)(VISITED, DRAWN, jnp.asarray(MASK), REWARDS)

        gradient = jax.jit(jax.grad(expected_loss))(jnp.asarray(POLICY))
        exact, h = np.zeros((7, 3)), 1e-6
        for place in np.ndindex(7, 3):
            moved = [POLICY.copy() for _ in range(2)]
            moved[0][place] += h
            moved[1][place] -= h
            up, down = (objective(scipy.special.log_softmax(m, axis=1)) for m in moved)
            exact[place] = (up - down) / (2 * h)
        assert np.abs(exact).max() > 0.1
        np.testing.assert_allclose(gradient, -exact, atol=1e-5)

    def test_returns_are_samples_of_the_soft_critic(self):
        """E[G_n | s_n, a_n] = Q_n(s_n, a_n) of the policy, by dynamic programming."""
        divergence = losses.token_divergence(at_texts(POLICY), at_texts(REFERENCE), MASK)
        returns = losses.returns_to_go(jnp.asarray(REWARDS), divergence, MASK, ALPHA)
        expected, weights = np.zeros((7, 3)), np.zeros((7, 3))
        np.add.at(weights, (VISITED, DRAWN), MASK * text_probabilities(POLICY)[:, None])
        weighted = MASK * text_probabilities(POLICY)[:, None] * np.asarray(returns)
        np.add.at(expected, (VISITED, DRAWN), weighted)
        critic = solve(soft_value_of(POLICY))
        np.testing.assert_allclose(expected / weights, critic, atol=1e-5)


class TestBellman(chex.TestCase):
    @both_ways
    def test_targets_worked_example(self):
        # The second text has two tokens; the state before the first token is no part of either.
        values = jnp.array([[7.0, 1.0, 2.0, 3.0], [7.0, 4.0, 5.0, 6.0]])
        mask = jnp.array([[False, True, True, True], [False, True, True, False]])
        targets = self.variant(losses.bellman_targets)(values, jnp.array([10.0, 20.0]), mask)
        np.testing.assert_allclose(np.where(mask, targets, 0), [[0, 2, 3, 10], [0, 5, 20, 0]])
        # ((2-1)^2 + (3-1)^2 + (10-1)^2 + (5-1)^2 + (20-1)^2) / 2
        assert self.variant(losses.bellman_residual)(jnp.ones((2, 4)), targets, mask) == 231.5

    @both_ways
    def test_targets_get_no_gradient(self):
        def loss(values, rewards):
            targets = losses.bellman_targets(values, rewards, MASK)
            return losses.bellman_residual(jnp.zeros(MASK.shape), targets, MASK)

        arguments = (jnp.ones(MASK.shape), jnp.asarray(REWARDS))
        for gradient in self.variant(jax.grad(loss, argnums=(0, 1)))(*arguments):
            np.testing.assert_array_equal(gradient, 0.0)
        of_residual = self.variant(jax.grad(losses.bellman_residual))
        np.testing.assert_array_equal(of_residual(*[jnp.zeros(MASK.shape)] * 2, MASK), 0.0)
        gradient = of_residual(jnp.ones(MASK.shape), 0 * VISITED + 3.0, MASK)
        np.testing.assert_allclose(gradient, np.where(MASK, -4 / 15, 0), rtol=1e-6)

    def test_critic_of_the_closed_form_is_found_by_its_residual(self):
        """Equations 5 and 6 from tables of zeros; data of any distribution over all texts."""

        def gradient_fn(critic):
            def loss(critic):
                next_values = losses.optimal_values(at_texts(REFERENCE), at_texts(critic), ALPHA)
                targets = losses.bellman_targets(next_values, jnp.asarray(REWARDS), MASK)
                return losses.bellman_residual(of_drawn(critic), targets, MASK)

            return jax.grad(loss)(critic)

        critic = descend(gradient_fn, jnp.zeros((7, 3)))
        np.testing.assert_allclose(critic, OPTIMAL_CRITIC, atol=1e-3)


class TestSoftActorCritic(chex.TestCase):
    @both_ways
    def test_worked_example(self):
        # pi = (3/4, 1/4), p_pre = (1/2, 1/2), Q = (1, 3), alpha = 2:
        #   3/4 (1 - 2 log 3/2) + 1/4 (3 - 2 log 1/2) = 1.5 - 2 0.130812 = 1.238376
        policy, reference = jnp.log(jnp.array([[[0.75, 0.25]], [[0.5, 0.5]]]))[:, None]
        critic = jnp.array([[[1.0, 3.0]]])
        value = self.variant(losses.soft_values)(policy, reference, critic, 2.0)
        np.testing.assert_allclose(value, [[1.238376]], rtol=1e-6)
        mask = jnp.ones((1, 1), bool)
        loss = self.variant(losses.actor_loss)(policy, reference, critic, mask, 2.0)
        assert float(loss) == pytest.approx(-1.238376)

    def test_its_fixed_point_is_the_soft_optimal_policy(self):
        """Critic, value and actor together, from zeros and the pretrained policy."""

        def gradient_fn(tables):
            def loss(tables):
                log_policy = jax.nn.log_softmax(at_texts(tables["policy"]))
                reference, rewards = at_texts(REFERENCE), jnp.asarray(REWARDS)
                critic, values = at_texts(tables["critic"]), at_texts(tables["value"])
                targets = losses.bellman_targets(values, rewards, MASK)
                soft = losses.soft_values(log_policy, reference, critic, ALPHA)
                return (
                    losses.bellman_residual(of_drawn(tables["critic"]), targets, MASK)
                    + losses.bellman_residual(values, soft, MASK)
                    + losses.actor_loss(log_policy, reference, critic, MASK, ALPHA)
                )

            return jax.grad(loss)(tables)

        start = {"critic": jnp.zeros((7, 3)), "value": jnp.zeros(7)}
        start |= {"policy": jnp.asarray(REFERENCE)}
        tables = descend(gradient_fn, start)
        found = jax.nn.log_softmax(tables["policy"])
        np.testing.assert_allclose(np.exp(found), np.exp(OPTIMAL_POLICY), atol=2e-3)
        np.testing.assert_allclose(tables["critic"], OPTIMAL_CRITIC, atol=1e-2)
        np.testing.assert_allclose(tables["value"][0], objective(OPTIMAL_POLICY), atol=1e-2)

    def test_only_the_policy_gets_a_gradient_and_it_is_that_of_distillation_times_alpha(self):
        def of_actor(policy, reference, critic):
            rows = (at_texts(table) for table in (policy, reference, critic))
            return losses.actor_loss(*rows, MASK, ALPHA)

        def of_distillation(policy):
            optimal = losses.optimal_log_policy(at_texts(REFERENCE), at_texts(OPTIMAL_CRITIC), ALPHA)
            return losses.distillation_loss(jax.nn.log_softmax(at_texts(policy)), optimal, MASK)

        tables = [jnp.asarray(table) for table in (POLICY, REFERENCE, OPTIMAL_CRITIC)]
        for gradient in jax.grad(of_actor, argnums=(1, 2))(*tables):
            np.testing.assert_array_equal(gradient, 0.0)
        of_logits = jax.grad(lambda logits: of_actor(jax.nn.log_softmax(logits), *tables[1:]))
        wanted = ALPHA * jax.grad(of_distillation)(tables[0])
        assert np.abs(wanted).max() > 0.01
        np.testing.assert_allclose(of_logits(tables[0]), wanted, atol=1e-6)


class TestClosedForm(chex.TestCase):
    @both_ways
    def test_worked_example(self):
        # p_pre = (1/2, 1/2), Q = (0, 2 log 3), alpha = 2: E exp(Q / 2) = (1 + 3) / 2 = 2, so
        # V* = 2 log 2 and mu* = (1/4, 3/4).
        reference = jnp.log(jnp.full((1, 1, 2), 0.5))
        critic = jnp.array([[[0.0, 2 * np.log(3)]]])
        value = self.variant(losses.optimal_values)(reference, critic, 2.0)
        np.testing.assert_allclose(value, [[2 * np.log(2)]], rtol=1e-6)
        optimal = self.variant(losses.optimal_log_policy)(reference, critic, 2.0)
        np.testing.assert_allclose(np.exp(optimal), [[[0.25, 0.75]]], rtol=1e-6)
        # KL((1/2, 1/2) || mu*) = (log 2 + log 2/3) / 2 = 0.143841
        mask = jnp.ones((1, 1), bool)
        loss = self.variant(losses.distillation_loss)(reference, optimal, mask)
        assert float(loss) == pytest.approx(0.143841, abs=1e-6)

    @both_ways
    def test_gradient_is_equation_8(self):
        """By a loop in float64: sum_a pi (log(pi / p_pre) - Q / alpha) grad log pi."""
        wanted = np.zeros((7, 3))
        for row, n in zip(*np.nonzero(MASK), strict=True):
            state = VISITED[row, n]
            weights = POLICY[state] - REFERENCE[state] - OPTIMAL_CRITIC[state] / ALPHA
            probabilities = np.exp(POLICY[state])
            for token in range(3):
                score = np.eye(3)[token] - probabilities
                wanted[state] += probabilities[token] * weights[token] * score / len(TEXTS)

        def loss(logits):
            optimal = losses.optimal_log_policy(at_texts(REFERENCE), at_texts(OPTIMAL_CRITIC), ALPHA)
            return losses.distillation_loss(jax.nn.log_softmax(at_texts(logits)), optimal, MASK)

        gradient = self.variant(jax.grad(loss))(jnp.asarray(POLICY))
        np.testing.assert_allclose(gradient, wanted, atol=1e-5)

    def test_the_minimum_of_distillation_is_the_optimal_policy(self):
        optimal = losses.optimal_log_policy(at_texts(REFERENCE), at_texts(OPTIMAL_CRITIC), ALPHA)
        found = descend(
            jax.grad(lambda logits: losses.distillation_loss(jax.nn.log_softmax(at_texts(logits)), optimal, MASK)),
            jnp.asarray(REFERENCE),
            num_steps=3000,
        )
        np.testing.assert_allclose(jax.nn.softmax(found), np.exp(OPTIMAL_POLICY), atol=1e-3)


class TestLaws(chex.TestCase):
    @both_ways
    def test_optimal_value_is_the_largest_soft_value(self):
        reference, critic = jnp.asarray(REFERENCE)[None], jnp.asarray(OPTIMAL_CRITIC)[None]
        best = self.variant(losses.optimal_values)(reference, critic, ALPHA)
        optimal = self.variant(losses.optimal_log_policy)(reference, critic, ALPHA)
        soft_values = self.variant(losses.soft_values)
        reached = soft_values(optimal, reference, critic, ALPHA)
        np.testing.assert_allclose(reached, best, atol=1e-5)
        other = soft_values(jnp.asarray(POLICY)[None], reference, critic, ALPHA)
        assert (other < best - 1e-4).all()

    def test_divergence_is_zero_at_the_pretrained_policy_where_its_value_is_the_mean_of_q(self):
        reference = at_texts(REFERENCE)
        divergence = losses.token_divergence(reference, reference, MASK)
        np.testing.assert_allclose(divergence, 0.0, atol=1e-6)
        other = losses.token_divergence(at_texts(POLICY), reference, MASK)
        by_state = scipy.special.rel_entr(np.exp(POLICY), np.exp(REFERENCE)).sum(axis=1)
        np.testing.assert_allclose(other, np.where(MASK, by_state[VISITED], 0.0), atol=1e-6)
        values = losses.soft_values(reference, reference, at_texts(OPTIMAL_CRITIC), ALPHA)
        means = (np.exp(REFERENCE) * OPTIMAL_CRITIC).sum(axis=1)
        np.testing.assert_allclose(values, means[VISITED], atol=1e-6)

    def test_a_large_coefficient_gives_the_pretrained_policy_a_small_one_the_best_token(self):
        reference, critic = jnp.asarray(REFERENCE)[None], jnp.asarray(OPTIMAL_CRITIC)[None]
        near = losses.optimal_log_policy(reference, critic, 1e5)
        np.testing.assert_allclose(near[0], REFERENCE, atol=1e-4)
        means = (np.exp(REFERENCE) * OPTIMAL_CRITIC).sum(axis=1)
        # Of which the last digits are lost: alpha times a number near 0.
        large = losses.optimal_values(reference, critic, 1e3)
        np.testing.assert_allclose(large[0], means, atol=2e-3)
        greedy = losses.optimal_log_policy(reference, critic, 1e-3)
        best = np.argmax(OPTIMAL_CRITIC, axis=1)
        np.testing.assert_allclose(np.exp(greedy[0])[np.arange(7), best], 1.0, atol=1e-6)
        small = losses.optimal_values(reference, critic, 1e-3)
        np.testing.assert_allclose(small[0], OPTIMAL_CRITIC.max(axis=1), atol=5e-3)
