"""Hugging Face's names of our parameters, family by family."""

from __future__ import annotations

from typing import NamedTuple

from eagle_jax.language_model.decoder_config import DecoderConfig

EMBEDDING, UNEMBEDDING = "model.embed_tokens.weight", "lm_head.weight"
# Our parameter path -> name in Hugging Face's checkpoints. A layer's names hang below its number.
_OUTER_NAMES = {
    "token_embedding": EMBEDDING,
    "final_norm/scale": "model.norm.weight",
    "unembedding": UNEMBEDDING,
}
_LAYER_NAMES = {
    "attention_norm": "input_layernorm",
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/output": "self_attn.o_proj",
    "attention/query_norm": "self_attn.q_norm",
    "attention/key_norm": "self_attn.k_norm",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward/gate": "mlp.gate_proj",
    "feed_forward/up": "mlp.up_proj",
    "feed_forward/down": "mlp.down_proj",
}
# Where norms stand on both sides of a sublayer, the second one of a layer has another name.
_OUTPUT_NORM_NAMES = {
    "attention_output_norm": "post_attention_layernorm",
    "feed_forward_norm": "pre_feedforward_layernorm",
    "feed_forward_output_norm": "post_feedforward_layernorm",
}
_LEAF_NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


class HFTensor(NamedTuple):
    """A tensor of a checkpoint; a kernel is stored there as [outputs, inputs]."""

    name: str
    is_kernel: bool


def hf_tensor(config: DecoderConfig, path: str) -> HFTensor:
    """Where the parameter at `path` ("layers/0/attention/query/kernel") stands in a checkpoint."""
    if path in _OUTER_NAMES:
        return HFTensor(_OUTER_NAMES[path], False)
    _, index, rest = path.split("/", 2)
    module, leaf = rest.rsplit("/", 1)
    names = _LAYER_NAMES | (_OUTPUT_NORM_NAMES if config.family.output_norms else {})
    name = f"model.layers.{index}.{names[module]}.{_LEAF_NAMES[leaf]}"
    return HFTensor(name, leaf == "kernel")
