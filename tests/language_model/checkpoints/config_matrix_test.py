"""What config.json of each family may say: the logits are those of `transformers`, or a refusal.

Old and new keys, rotary positions, tying, biases, activations, windows, caps, widths of heads.
"""

import json

import jax
import numpy as np
import pytest

from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.language_model.decoder.config import UnsupportedModelError
from eagle_jax.language_model.decoder.transformer import forward
from tests.language_model.small_checkpoints import shape_of, their_logits

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOKENS = np.random.default_rng(0).integers(4, 94, (1, 40))
BASES = {
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "smollm3": {},
    "olmo2": {},
    "phi3": {},
    "granite": {},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6},
    "gpt2": {},
    "gpt_neox": {"rotary_pct": 0.5},
    "phi": {},
}
WINDOW = {"use_sliding_window": True, "sliding_window": 6}
TYPES = ["full_attention", "sliding_attention"]
LINEAR = {"type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
EQUAL = [
    *((family, {}) for family in BASES),
    ("llama", {"rope_scaling": LINEAR, "rope_theta": 500.0}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}}),
    (
        "llama",
        {"rope_scaling": LINEAR, "rope_theta": 500.0, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
    ),
    ("llama", {"rope_scaling": LLAMA3}),
    ("llama", {"tie_word_embeddings": True, "torch_dtype": "bfloat16"}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 16}),
    ("llama", {"hidden_act": "swish", "sliding_window": 5, "layer_types": TYPES}),
    ("llama", {"hidden_act": "gelu_python"}),
    ("llama", {"hidden_act": "gelu_fast", "dtype": "float16"}),
    ("mistral", {"sliding_window": 6, "head_dim": 16}),
    ("mistral", {"sliding_window": 6, "layer_types": TYPES, "head_dim": 8}),
    ("mistral", {"sliding_window": None, "attention_bias": True}),
    ("qwen2", {**WINDOW, "max_window_layers": 1}),
    ("qwen2", {**WINDOW, "layer_types": TYPES[::-1], "head_dim": 16}),
    ("qwen2", {"sliding_window": 6, "attention_bias": False, "tie_word_embeddings": True}),
    ("qwen3", {**WINDOW, "layer_types": TYPES, "attention_bias": True}),
    ("smollm3", {"no_rope_layer_interval": 2, "attention_bias": True, "mlp_bias": True, "head_dim": 8}),
    ("smollm3", {"no_rope_layers": [0, 0], "rope_scaling": LINEAR, "tie_word_embeddings": False}),
    ("smollm3", {"no_rope_layers": [1, 0, 1], **WINDOW, "layer_types": TYPES[::-1]}),
    ("olmo2", {"attention_bias": True, "num_key_value_heads": None, "rope_scaling": LLAMA3}),
    ("olmo2", {"head_dim": 8, "tie_word_embeddings": True, "hidden_act": "gelu"}),
    ("phi3", {"sliding_window": 6, "partial_rotary_factor": 0.5, "head_dim": 12}),
    ("phi3", {"num_key_value_heads": None, "tie_word_embeddings": True, "rope_theta": 50.0}),
    ("granite", {"attention_multiplier": 0.1, "embedding_multiplier": 12, "residual_multiplier": 0.22}),
    ("granite", {"logits_scaling": 8.0, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    ("gemma", {"hidden_act": "gelu", "tie_word_embeddings": False}),
    ("gemma2", {"hidden_act": "gelu", "layer_types": TYPES, "attention_bias": True}),
    ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": 2.0}),
    (
        "gemma3_text",
        {
            "rope_theta": 1e3,
            "rope_local_base_freq": 50.0,
            "sliding_window_pattern": 2,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
    ("gemma3_text", {"final_logit_softcapping": 2.0}),
    ("gpt2", {"n_inner": None, "activation_function": "gelu", "tie_word_embeddings": False}),
    ("gpt2", {"head_dim": 5, "reorder_and_upcast_attn": True}),
    ("gpt_neox", {"rotary_pct": 1.0, "rotary_emb_base": 50, "use_parallel_residual": False}),
    ("gpt_neox", {"attention_bias": False, "tie_word_embeddings": True, "hidden_act": "gelu_fast"}),
    ("gpt_neox", {"rope_scaling": LINEAR}),
    ("phi", {"partial_rotary_factor": 0.34, "num_key_value_heads": None, "hidden_act": "gelu"}),
    (
        "phi",
        {"rope_parameters": {"rope_theta": 50.0, "partial_rotary_factor": 1.0, "rope_type": "linear", "factor": 2.0}},
    ),
]
REFUSED = [
    ("llama", {"rope_scaling": YARN}, "yarn"),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
    ("qwen3", {"rope_parameters": YARN | {"rope_theta": 1e4}}, "yarn"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 0.0}}, "factor"),
    ("llama", {"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "high_freq_factor"),
    ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "freq_factor"),
    ("llama", {"num_key_value_heads": 3}, "num_key_value_heads 3"),
    ("rwkv", {}, "model_type 'rwkv'"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
    ("llama", {"hidden_act": "relu"}, "'relu'"),
    ("llama", {"is_causal": False}, "is_causal = False"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ("llama", {"num_attention_heads": 0}, "llama"),
    ("qwen2", {**WINDOW, "layer_types": ["chunked_attention"] * 2}, "chunked_attention"),
    ("qwen2", {"head_dim": "x"}, "qwen2: "),
    ("qwen2", {"head_dim": 2.5}, "head_dim = 2.5"),
    ("smollm3", {"no_rope_layers": [1], "layer_types": TYPES}, "no_rope_layers = [1]"),
    ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6}}, "longrope"),
    ("phi3", {"rope_scaling": {"type": "su", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6}}, "longrope"),
    ("granite", {"residual_multiplier": 0.0}, "residual_multiplier = 0.0"),
    ("granite", {"logits_scaling": -1.0}, "logits_scaling = -1.0"),
    ("gemma3_text", {"attn_logit_softcapping": 3.0}, "attn_logit_softcapping = 3.0"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention = True"),
    ("gemma2", {"attn_logit_softcapping": 0.0}, "attn_logit_softcapping = 0.0"),
    ("gemma2", {"sliding_window": 0}, "sliding_window = 0"),
    ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention = True"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights = False"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention = True"),
    ("phi", {"qk_layernorm": True}, "qk_layernorm = True"),
]


def config_json(family, change):
    return {"model_type": family} | shape_of(family) | BASES.get(family, {}) | change


def write_folder(folder, family, change):
    """Weights by `transformers`, and config.json as it is asked for."""
    text = json.dumps(config_json(family, change))
    (folder / "config.json").write_text(text)
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(text)


@pytest.mark.parametrize(("family", "change"), EQUAL, ids=str)
def test_the_logits_are_those_of_transformers(family, change, tmp_path, tokenizer_writer):
    write_folder(tmp_path, family, change)
    tokenizer_writer(tmp_path, with_bos=True)
    theirs = their_logits(tmp_path, TOKENS)
    ours = load_language_model(tmp_path)
    with jax.disable_jit():  # op by op: what is compiled serves all cases
        logits = forward(ours.config, ours.params, TOKENS, np.ones_like(TOKENS, bool)).logits
    np.testing.assert_allclose(logits, theirs, atol=1e-4 * np.ptp(theirs))


@pytest.mark.parametrize(("family", "change", "named"), REFUSED, ids=str)
def test_what_is_not_computed_is_refused_by_name(family, change, named, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config_json(family, change)))
    with pytest.raises(UnsupportedModelError, match="config.json: ") as caught:
        load_language_model(tmp_path)
    assert named in str(caught.value)
