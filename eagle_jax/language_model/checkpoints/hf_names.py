"""Hugging Face's names of our parameters, family by family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eagle_jax.language_model.decoder.config import DecoderConfig

_LEAF_NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


class Scheme(NamedTuple):
    """Our module -> name in a checkpoint; those of a layer hang below `layers` and its number.

    fused: modules that are one tensor -> its name; query, key and value lie head by head in GPT-NeoX, else one after
    the other. kernels_as_ours: kernels are stored as [inputs, outputs], as GPT-2's Conv1D has them.
    """

    outer: dict[str, str]
    layers: str
    inner: dict[str, str]
    fused: dict[tuple[str, ...], str] = {}
    fused_by_head: bool = False
    kernels_as_ours: bool = False


_ATTENTION = ("attention/query", "attention/key", "attention/value")
_LLAMA = Scheme(
    outer={"token_embedding": "model.embed_tokens.weight", "final_norm": "model.norm", "unembedding": "lm_head.weight"},
    layers="model.layers",
    inner={
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
    },
)
# Where norms stand on both sides of a sublayer, the second one of a layer has another name.
_GEMMA2 = _LLAMA._replace(
    inner=_LLAMA.inner
    | {
        "attention_output_norm": "post_attention_layernorm",
        "feed_forward_norm": "pre_feedforward_layernorm",
        "feed_forward_output_norm": "post_feedforward_layernorm",
    }
)
_SCHEMES = {
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "olmo2": _GEMMA2,
    "phi3": _LLAMA._replace(
        fused={_ATTENTION: "self_attn.qkv_proj", ("feed_forward/gate", "feed_forward/up"): "mlp.gate_up_proj"}
    ),
    "phi": Scheme(
        outer=_LLAMA.outer | {"final_norm": "model.final_layernorm", "unembedding_bias": "lm_head.bias"},
        layers="model.layers",
        inner=_LLAMA.inner
        | {"attention/output": "self_attn.dense", "feed_forward/up": "mlp.fc1", "feed_forward/down": "mlp.fc2"},
    ),
    "gpt_neox": Scheme(
        outer={
            "token_embedding": "gpt_neox.embed_in.weight",
            "final_norm": "gpt_neox.final_layer_norm",
            "unembedding": "embed_out.weight",
        },
        layers="gpt_neox.layers",
        inner={
            "attention_norm": "input_layernorm",
            "attention/output": "attention.dense",
            "feed_forward_norm": "post_attention_layernorm",
            "feed_forward/up": "mlp.dense_h_to_4h",
            "feed_forward/down": "mlp.dense_4h_to_h",
        },
        fused={_ATTENTION: "attention.query_key_value"},
        fused_by_head=True,
    ),
    "gpt2": Scheme(
        outer={
            "token_embedding": "transformer.wte.weight",
            "position_embedding": "transformer.wpe.weight",
            "final_norm": "transformer.ln_f",
            "unembedding": "lm_head.weight",
        },
        layers="transformer.h",
        inner={
            "attention_norm": "ln_1",
            "attention/output": "attn.c_proj",
            "feed_forward_norm": "ln_2",
            "feed_forward/up": "mlp.c_fc",
            "feed_forward/down": "mlp.c_proj",
        },
        fused={_ATTENTION: "attn.c_attn"},
        kernels_as_ours=True,
    ),
}


class Fused(NamedTuple):
    """A tensor of several parameters, the one in question is the `index`-th of `paths`.

    Laid out like ours (kernels [inputs, outputs]) its last axis is [groups, sum of sizes].
    """

    paths: tuple[str, ...]
    index: int
    groups: int
    sizes: tuple[int, ...]

    def split(self, tensor: np.ndarray) -> np.ndarray:
        """The parameter's part."""
        start = sum(self.sizes[: self.index])
        grouped = tensor.reshape(*tensor.shape[:-1], self.groups, -1)
        return grouped[..., start : start + self.sizes[self.index]].reshape(*tensor.shape[:-1], -1)

    def join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """The tensor of all parameters, in the order of `paths`."""
        leading = parts[0].shape[:-1]
        grouped = [part.reshape(*leading, self.groups, -1) for part in parts]
        return np.concatenate(grouped, axis=-1).reshape(*leading, -1)


class HFTensor(NamedTuple):
    """A tensor of a checkpoint; a kernel is stored there as [outputs, inputs]."""

    name: str
    is_kernel: bool
    fused: Fused | None = None


def hf_tensor(config: DecoderConfig, path: str) -> HFTensor:
    """Where the parameter at `path` ("layers/0/attention/query/kernel") stands in a checkpoint."""
    scheme = _SCHEMES.get(config.family.model_type, _LLAMA)
    module, _, leaf = path.rpartition("/")
    if path in scheme.outer:
        return HFTensor(scheme.outer[path], False)
    if module in scheme.outer:
        return HFTensor(f"{scheme.outer[module]}.{_LEAF_NAMES[leaf]}", False)
    _, index, inner = module.split("/", 2)
    prefix = f"{scheme.layers}.{index}"
    is_kernel = leaf == "kernel" and not scheme.kernels_as_ours
    for parts, name in scheme.fused.items():
        if inner in parts:
            groups = config.num_heads if scheme.fused_by_head else 1
            sizes = tuple(_num_outputs(config, part) // groups for part in parts)
            paths = tuple(f"layers/{index}/{part}/{leaf}" for part in parts)
            return HFTensor(
                f"{prefix}.{name}.{_LEAF_NAMES[leaf]}", is_kernel, Fused(paths, parts.index(inner), groups, sizes)
            )
    return HFTensor(f"{prefix}.{scheme.inner[inner]}.{_LEAF_NAMES[leaf]}", is_kernel)


def _num_outputs(config: DecoderConfig, module: str) -> int:
    """Of a linear layer that may be part of a tensor."""
    heads = {"attention/query": config.num_heads, "attention/key": config.num_kv_heads}
    heads["attention/value"] = config.num_kv_heads
    return heads[module] * config.head_dim if module in heads else config.intermediate_size
