"""Logits and hidden states against PyTorch and NumPy; the laws a causal decoder obeys."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.language_model.decoder.attention import window_mask
from eagle_jax.language_model.decoder.transformer import SoftEmbeddings, forward, init_params
from tests.language_model.small_checkpoints import config_of, tiny_config


def small_decoder():
    config = tiny_config("qwen3", vocab_size=20, num_key_value_heads=1, head_dim=8, initializer_range=0.3)
    return config, init_params(config, jax.random.key(0))


def test_logits_and_hidden_states_are_those_of_transformers(family_checkpoint):
    import torch

    folder, theirs = family_checkpoint
    ours = load_language_model(folder)
    tokens = np.random.default_rng(0).integers(4, 94, (5, 11))
    place, length = np.arange(11)[None], np.array([[11], [7], [4], [7], [4]])
    # Padded on the right, on the left, or not at all.
    mask = np.where(np.arange(5)[:, None] < 3, place < length, place >= 11 - length)
    output = forward(ours.config, ours.params, tokens, mask)
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(tokens),
            attention_mask=torch.tensor(mask.astype(int)),
            position_ids=torch.tensor(np.maximum(np.cumsum(mask, axis=1) - 1, 0)),
            output_hidden_states=True,
        )
    assert expected.logits.std() > 0.5  # the tolerance below is small against the values
    np.testing.assert_allclose(np.asarray(output.logits)[mask], expected.logits.numpy()[mask], atol=1e-4)
    assert output.hidden_states.shape[0] == len(expected.hidden_states) == 3
    for state, their_state in zip(output.hidden_states, expected.hidden_states, strict=True):
        np.testing.assert_allclose(np.asarray(state)[mask], their_state.numpy()[mask], atol=1e-4)


def test_no_logit_depends_on_a_later_token():
    config, params = small_decoder()
    tokens, mask = jnp.arange(8)[None], jnp.ones((1, 8), bool)

    def early_logits(embedding):
        # Row 7 of the embedding is the last token and no other: it may only reach the last logit.
        changed = params | {"token_embedding": embedding, "unembedding": params["unembedding"]}
        return jnp.sum(forward(config, changed, tokens, mask).logits[0, :7] ** 2)

    gradient = jax.grad(early_logits)(params["token_embedding"])
    assert jnp.all(gradient[7] == 0)
    assert jnp.all(jnp.any(gradient[:7] != 0, axis=-1))


def test_every_parameter_gets_a_finite_gradient_with_padding():
    config, params = small_decoder()
    tokens = jnp.arange(20).reshape(2, 10)
    mask = jnp.array([[False] * 4 + [True] * 6, [True] * 10])

    def loss(params):
        logits = forward(config, params, tokens, mask).logits
        return jnp.sum(jnp.where(mask[..., None], jax.nn.log_softmax(logits)[..., :1], 0.0))

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.grad(loss)(params)):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.any(gradient != 0), path


@pytest.mark.parametrize("name", ["gemma3", "gpt2"])
def test_scanned_and_recomputed_layers_change_nothing(name):
    plain = config_of(name)
    params = init_params(plain, jax.random.key(1))
    tokens = np.random.default_rng(2).integers(0, 100, (2, 9))
    mask = np.ones((2, 9), bool)
    mask[0, :4] = False

    def loss_and_gradient(config):
        def loss(params):
            log_probs = jax.nn.log_softmax(forward(config, params, tokens, mask).logits)
            return jnp.sum(jnp.where(mask[..., None], log_probs[..., :3], 0.0))

        return jax.value_and_grad(loss)(params)

    expected, expected_gradient = loss_and_gradient(plain)
    changed = dataclasses.replace(plain, scan_layers=True, remat=True)
    value, gradient = loss_and_gradient(changed)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * float(jnp.abs(theirs).max()) + 1e-6)


def test_a_window_counts_real_tokens():
    allowed = np.tril(np.ones((6, 6), bool)) & np.array([0, 0, 1, 1, 1, 1], bool)
    seen = np.asarray(window_mask(jnp.asarray(allowed)[None], 2)[0])
    expected = [[], [], [2], [2, 3], [3, 4], [4, 5]]
    assert [list(np.flatnonzero(row)) for row in seen] == expected


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_tokens_own_embedding_spliced_in_changes_nothing(name):
    config = config_of(name)
    params = init_params(config, jax.random.key(1))
    tokens, mask = jnp.arange(10, 18)[None], jnp.ones((1, 8), bool)
    is_soft = jnp.arange(8)[None] == 3
    vectors = jnp.where(is_soft[..., None], params["token_embedding"][13], jnp.nan)
    soft = SoftEmbeddings(vectors, is_soft)
    hidden_token = tokens.at[0, 3].set(99)  # what stands below a soft embedding does not count
    plain = forward(config, params, tokens, mask)
    spliced = forward(config, params, hidden_token, mask, soft)
    np.testing.assert_array_equal(spliced.logits, plain.logits)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_bfloat16_keeps_norms_softmax_and_logits_exact(name):
    config = config_of(name)
    params = init_params(config, jax.random.key(1))
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded)
    tokens = np.random.default_rng(3).integers(0, 100, (2, 20))
    mask = np.ones((2, 20), bool)
    output = forward(config, rounded, tokens, mask)
    expected = forward(config, exact, tokens, mask)
    assert output.logits.dtype == jnp.float32
    assert output.hidden_states.dtype == jnp.bfloat16
    error = jnp.linalg.norm(output.logits - expected.logits) / jnp.linalg.norm(expected.logits)
    assert 1e-4 < error < 0.02  # bfloat16 has 8 bits: 0.004 a rounding
