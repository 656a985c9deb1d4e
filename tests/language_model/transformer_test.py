"""Logits and hidden states against PyTorch and NumPy; the laws a causal decoder obeys."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.language_model.decoder_config import (
    DecoderConfig,
    UnsupportedModelError,
    decoder_config_from_hf,
    decoder_config_to_hf,
)
from eagle_jax.language_model.hf_checkpoints import load_language_model
from eagle_jax.language_model.transformer import forward, init_params

SMALL = {
    "model_type": "qwen3",
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}


def small_decoder() -> tuple[DecoderConfig, dict]:
    config = decoder_config_from_hf(SMALL)
    return config, init_params(config, jax.random.key(0))


@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_logits_and_hidden_states_are_those_of_transformers(family_checkpoint, side):
    import torch

    folder, theirs = family_checkpoint
    ours = load_language_model(folder)
    tokens = np.random.default_rng(0).integers(4, 94, (3, 11))
    mask = np.ones((3, 11), bool)
    if side != "none":
        for row, padding in enumerate((4, 0, 7)):
            mask[row, :padding] = False
        mask = mask if side == "left" else mask[:, ::-1]
    output = forward(ours.config, ours.params, tokens, mask)
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(tokens),
            attention_mask=torch.tensor(mask.astype(int)),
            position_ids=torch.tensor(np.maximum(np.cumsum(mask, axis=1) - 1, 0)),
            output_hidden_states=True,
        )
    assert expected.logits.std() > 0.5  # the tolerance below is small against the values
    np.testing.assert_allclose(
        np.asarray(output.logits)[mask], expected.logits.numpy()[mask], atol=1e-4
    )
    assert output.hidden_states.shape[0] == len(expected.hidden_states) == 3
    for state, their_state in zip(output.hidden_states, expected.hidden_states, strict=True):
        np.testing.assert_allclose(np.asarray(state)[mask], their_state.numpy()[mask], atol=1e-4)


def test_a_real_checkpoint_gives_its_stored_reference(eagle_data):
    folder = eagle_data / "lm" / "tinystories-656k"
    reference = json.loads((folder / "reference.json").read_text())
    model = load_language_model(folder)
    ids = model.tokenizer.encode(reference["text"])
    assert ids == reference["ids"]
    tokens = jnp.array([ids])
    last = np.asarray(
        forward(model.config, model.params, tokens, jnp.ones_like(tokens, bool)).logits[0, -1]
    )
    assert last.argmax() == reference["last_logits_argmax"]
    np.testing.assert_allclose(last[:8], reference["last_logits_first8"], atol=1e-4)
    np.testing.assert_allclose(last.mean(), reference["last_logits_mean"], atol=1e-4)
    np.testing.assert_allclose(last.std(), reference["last_logits_std"], atol=1e-4)


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


def test_config_survives_the_way_to_config_json_and_back():
    config = decoder_config_from_hf(SMALL | {"rope_theta": 5e5, "tie_word_embeddings": True})
    assert decoder_config_from_hf(json.loads(json.dumps(decoder_config_to_hf(config)))) == config


def test_rope_theta_is_read_from_both_generations_of_config_json():
    old = decoder_config_from_hf(SMALL | {"rope_theta": 5e5})
    new = decoder_config_from_hf(
        SMALL | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    )
    assert old == new
    assert old.rope.theta == 5e5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "mamba"}, "'mamba'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "llama3"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "yarn"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(change, named):
    with pytest.raises(UnsupportedModelError, match=named):
        decoder_config_from_hf(SMALL | change)


def test_a_missing_key_is_named():
    with pytest.raises(UnsupportedModelError, match="vocab_size"):
        decoder_config_from_hf({name: SMALL[name] for name in SMALL if name != "vocab_size"})
