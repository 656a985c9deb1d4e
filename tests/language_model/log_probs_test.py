"""Scores of tokens against SciPy, worked arithmetic and finite differences; blocks in float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from eagle_jax.language_model import log_probs
from eagle_jax.language_model.decoder.transformer import forward, init_params
from eagle_jax.language_model.log_probs import LastStates, read_text, score_tokens
from eagle_jax.learning.losses import next_token_loss
from tests.language_model.small_checkpoints import config_of


def given(logits):
    """Texts of which the logits [B, T, V] are known."""
    return LastStates(jnp.asarray(logits), lambda states: states)


def exact_kl(policy, reference, mask, temperature):
    """Summed over the tokens of the mask [B, T] -> [B]."""
    tokens = jnp.zeros(mask.shape, jnp.int32)
    divergence = score_tokens(given(policy), tokens, temperature, given(reference)).divergence
    return jnp.sum(jnp.where(mask, divergence, 0.0), axis=1)


class TestKL:
    def draw(self, seed=0):
        rng = np.random.default_rng(seed)
        mask = np.arange(4)[None] < np.array([4, 2, 0])[:, None]
        return 2 * rng.normal(size=(3, 4, 6)), 2 * rng.normal(size=(3, 4, 6)), mask

    def test_worked_example(self):
        # One token, two words, policy (3/4, 1/4), reference (1/2, 1/2):
        #   3/4 log(3/2) + 1/4 log(1/2) = 0.130812
        policy = jnp.log(jnp.array([[[0.75, 0.25]]]))
        divergence = exact_kl(policy, jnp.zeros((1, 1, 2)), jnp.ones((1, 1), bool), 1.0)
        np.testing.assert_allclose(divergence, [0.130812], atol=1e-6)
        # At temperature 1/2 the policy is (9/10, 1/10): 0.9 log 1.8 + 0.1 log 0.2 = 0.368064
        divergence = exact_kl(policy, jnp.zeros((1, 1, 2)), jnp.ones((1, 1), bool), 0.5)
        np.testing.assert_allclose(divergence, [0.368064], atol=1e-6)

    def test_agrees_with_scipy(self):
        policy, reference, mask = self.draw()
        divergence = exact_kl(jnp.array(policy), jnp.array(reference), mask, 0.7)
        per_token = scipy.special.rel_entr(
            scipy.special.softmax(policy / 0.7, axis=-1), scipy.special.softmax(reference / 0.7, axis=-1)
        ).sum(axis=-1)
        np.testing.assert_allclose(divergence, (per_token * mask).sum(axis=1), rtol=1e-4)

    def test_zero_with_zero_gradient_at_equality_and_positive_elsewhere(self):
        policy, reference, mask = (jnp.array(part) for part in self.draw(1))

        def total(logits):
            return exact_kl(logits, reference, mask, 0.5).sum()

        value, gradient = jax.value_and_grad(total)(reference)
        assert float(value) == pytest.approx(0.0, abs=1e-6)
        np.testing.assert_allclose(gradient, 0.0, atol=1e-6)
        assert (exact_kl(policy, reference, mask, 0.5)[:2] > 0.1).all()

    def test_gradient_is_that_of_finite_differences_and_none_for_the_reference(self):
        policy, reference, mask = (jnp.array(part) for part in self.draw(2))

        def total(policy, reference):
            return exact_kl(policy, reference, mask, 0.5).sum()

        jax.test_util.check_grads(
            lambda logits: total(logits, reference), (policy,), order=1, modes=["rev"], atol=2e-2, rtol=2e-2
        )
        np.testing.assert_array_equal(jax.grad(total, argnums=1)(policy, reference), 0.0)
        masked = np.asarray(jax.grad(total)(policy, reference))[~np.asarray(mask)]
        np.testing.assert_array_equal(masked, 0.0)


def test_log_probs_and_entropy_agree_with_scipy():
    rng = np.random.default_rng(4)
    logits, tokens = 5 * rng.normal(size=(2, 3, 7)) + 100, rng.integers(7, size=(2, 3))
    scores = score_tokens(given(logits), jnp.asarray(tokens), 0.7)
    expected = scipy.special.log_softmax(np.float32(logits).astype(float) / 0.7, axis=-1)
    drawn = np.take_along_axis(expected, tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(scores.log_probs, drawn, rtol=1e-5, atol=1e-5)
    entropy = scipy.special.entr(np.exp(expected)).sum(axis=-1)
    np.testing.assert_allclose(scores.entropy, entropy, rtol=1e-4, atol=1e-6)
    assert scores.divergence is None


@pytest.mark.parametrize("family", ["gemma2", "phi"])  # capped and tied, with bias
def test_a_decoder_is_read_as_it_reads_itself_in_blocks_too(monkeypatch, family):
    config = config_of(family)
    params = init_params(config, jax.random.key(0))
    tokens = np.random.default_rng(0).integers(2, config.vocab_size, (2, 6))
    mask = np.arange(6)[None] < np.array([6, 4])[:, None]

    def of_forward(params):
        log_probs = jax.nn.log_softmax(forward(config, params, tokens, mask).logits)
        return -jnp.take_along_axis(log_probs[:, :-1], tokens[:, 1:, None], axis=-1).mean()

    def in_blocks(params):
        return next_token_loss(read_text(config, params, tokens, mask), tokens, np.ones((2, 6)))

    expected = jax.jit(jax.value_and_grad(of_forward))(params)
    monkeypatch.setattr(log_probs, "_MANY", 2 * 2 * config.vocab_size)
    found = jax.jit(jax.value_and_grad(in_blocks))(params)
    chex.assert_trees_all_close(found, expected, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_in_blocks_values_and_gradients_are_those_of_the_whole(monkeypatch, size):
    rng = np.random.default_rng(6)
    shapes = {"states": (3, 7, 4), "table": (11, 4), "other": (3, 7, 4)}
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}
        tokens = jnp.asarray(rng.integers(11, size=(3, 7)))
        weights = jnp.asarray(rng.normal(size=(3, 3, 7)))

        def total(arrays):
            def unembed(states):
                return 30.0 * jnp.tanh(states @ arrays["table"].T / 30.0)

            scores = score_tokens(
                LastStates(arrays["states"], unembed), tokens, 0.7, LastStates(arrays["other"], unembed)
            )
            return jnp.sum(weights * jnp.stack(scores)), scores

        value_and_gradient = jax.value_and_grad(total, has_aux=True)
        (_, whole), expected = value_and_gradient(arrays)
        monkeypatch.setattr(log_probs, "_MANY", size * 3 * 11)
        (_, blocks), gradient = jax.jit(value_and_gradient)(arrays)
        assert expected["table"].dtype == jnp.float64
        for one, other in zip(jax.tree.leaves((whole, expected)), jax.tree.leaves((blocks, gradient)), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(gradient["other"], 0.0)
