"""Low-rank updates beside the frozen kernels of a decoder (Hu et al. 2021, LoRA).

Axes: I inputs, O outputs, r rank.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from eagle_jax.base.errors import UserError
from eagle_jax.language_model.decoder.config import DecoderConfig, LoRA
from eagle_jax.language_model.decoder.transformer import Params, init_params
from eagle_jax.language_model.sharding import constrain_tree, on_mesh_of

LORA_LEAVES = ("lora_down", "lora_up")


class LoRAError(UserError):
    """LoRA was asked for where it cannot be."""


def add_lora(config: DecoderConfig, params: Params, lora: LoRA, key: jax.Array) -> tuple[DecoderConfig, Params]:
    """The same base arrays with float32 leaves lora_down [I, r] (random), lora_up [r, O] (zero).

    The decoder computes what it did before. The key is consumed. Raises LoRAError when it has LoRA
    already or when `lora.targets` is found in no linear layer's path.
    """
    if config.lora is not None:
        raise LoRAError("the decoder has LoRA already: merge it before more is added")
    config = dataclasses.replace(config, lora=lora)
    with on_mesh_of(params):
        leaves = _init_leaves(config, key)
    base = flatten_dict(params, sep="/")
    if not leaves:
        paths = [path.removesuffix("/kernel") for path in base if path.endswith("/kernel")]
        raise LoRAError(
            f"LoRA targets {lora.targets!r} are found in no linear layer's path, such as "
            f"{', '.join(path for path in paths if path.startswith('layers/0/'))}"
        )
    return config, unflatten_dict(base | leaves, sep="/")


@functools.partial(jax.jit, static_argnames="config")
def _init_leaves(config: DecoderConfig, key: jax.Array) -> dict[str, jax.Array]:
    """LoRA leaves by path. Under jit the base, which is not asked for, is not made."""
    flat = flatten_dict(constrain_tree(init_params(config, key)), sep="/")
    return {path: leaf for path, leaf in flat.items() if path.endswith(LORA_LEAVES)}


@jax.jit
def merged_kernel(kernel: jax.Array, down: jax.Array, up: jax.Array, scale: float) -> jax.Array:
    """kernel + scale down up in float32 [I, O] (Hu et al. 2021, section 4.1)."""
    update = scale * jnp.matmul(down, up, precision="highest")
    return kernel.astype(jnp.float32) + update
