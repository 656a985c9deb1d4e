"""Logits and hidden states against PyTorch and NumPy; the laws a causal decoder obeys."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.language_model.checkpoints.hf_config import decoder_config_from_hf, decoder_config_to_hf
from eagle_jax.language_model.decoder.attention import window_mask
from eagle_jax.language_model.decoder.config import DecoderConfig, LoRA, UnsupportedModelError
from eagle_jax.language_model.decoder.transformer import SoftEmbeddings, forward, init_params
from tests.language_model.small_checkpoints import CHECKPOINTS, SHAPE, config_of

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
    np.testing.assert_allclose(np.asarray(output.logits)[mask], expected.logits.numpy()[mask], atol=1e-4)
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
    last = np.asarray(forward(model.config, model.params, tokens, jnp.ones_like(tokens, bool)).logits[0, -1])
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


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_config_survives_the_way_to_config_json_and_back(name):
    config = config_of(name)
    assert decoder_config_from_hf(json.loads(json.dumps(decoder_config_to_hf(config)))) == config


def test_old_config_json_of_gemma3_says_the_same():
    old = {
        "model_type": "gemma3",
        "text_config": SHAPE
        | {
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "sliding_window": 5,
            "sliding_window_pattern": 2,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    }
    assert decoder_config_from_hf(old) == config_of("gemma3")


def test_what_a_multimodal_gemma3_leaves_out_is_read_as_transformers_does():
    transformers = pytest.importorskip("transformers")
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }  # google/gemma-3-4b-it
    theirs = transformers.Gemma3TextConfig(**text).to_dict()
    ours = decoder_config_from_hf({"model_type": "gemma3", "text_config": text})
    assert ours == decoder_config_from_hf(theirs)
    assert ours.layer_windows[:6] == (1024,) * 5 + (None,)


@pytest.mark.parametrize("name", ["llama3_2", "qwen2_window", "gemma3", "gpt2"])
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


def test_no_gradient_reaches_a_soft_embedding_from_before_it():
    config, params = small_decoder()
    tokens, mask = jnp.arange(8)[None], jnp.ones((1, 8), bool)

    def of_position(vector, position):
        soft = SoftEmbeddings(jnp.broadcast_to(vector, (1, 8, 16)), jnp.arange(8)[None] == 4)
        return jnp.sum(forward(config, params, tokens, mask, soft).logits[0, position] ** 2)

    gradient = jax.grad(of_position)
    assert jnp.all(gradient(jnp.ones(16), 3) == 0)
    assert jnp.any(gradient(jnp.ones(16), 4) != 0)


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


def without_lora(tree: dict) -> dict:
    return {
        name: without_lora(branch) if isinstance(branch, dict) else branch
        for name, branch in tree.items()
        if not name.startswith("lora_")
    }


def test_a_low_rank_update_is_a_change_of_the_matrix():
    lora = LoRA(rank=3, alpha=6.0, targets="layers/1/attention/(query|value)$")
    plain = config_of("qwen3")
    config = dataclasses.replace(plain, lora=lora)
    params = init_params(config, jax.random.key(1))
    attention = params["layers"]["1"]["attention"]
    assert "lora_down" not in attention["key"]
    assert "lora_down" not in params["layers"]["0"]["attention"]["query"]
    assert attention["query"]["lora_down"].shape == (48, 3)
    tokens, mask = jnp.arange(8)[None], jnp.ones((1, 8), bool)
    merged = without_lora(params)
    start = forward(config, params, tokens, mask).logits
    np.testing.assert_array_equal(start, forward(plain, merged, tokens, mask).logits)
    up = jax.random.normal(jax.random.key(2), (3, 64)) / 4
    attention["query"]["lora_up"] = up
    changed = merged["layers"]["1"]["attention"]["query"]
    changed["kernel"] = changed["kernel"] + 2.0 * attention["query"]["lora_down"] @ up
    moved = forward(config, params, tokens, mask).logits
    assert jnp.max(jnp.abs(moved - start)) > 0.1
    np.testing.assert_allclose(moved, forward(plain, merged, tokens, mask).logits, atol=2e-5)


def test_rope_theta_is_read_from_both_generations_of_config_json():
    old = decoder_config_from_hf(SMALL | {"rope_theta": 5e5})
    new = decoder_config_from_hf(SMALL | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})
    assert old == new
    assert old.rope.theta == 5e5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "mamba"}, "'mamba'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "llama3.*freq_factor"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "yarn"),
        ({"partial_rotary_factor": 0.4}, "partial_rotary_factor = 0.4"),
        ({"model_type": "phi", "qk_layernorm": True}, "qk_layernorm = True"),
        ({"hidden_act": "relu"}, "'relu'"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"use_sliding_window": True, "sliding_window": 4, "layer_types": ["x"]}, "layer_types"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(change, named):
    with pytest.raises(UnsupportedModelError, match=named):
        decoder_config_from_hf(SMALL | change)
