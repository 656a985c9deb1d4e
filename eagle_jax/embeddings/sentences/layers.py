"""What the layers of all text encoders consist of, as functions of a parameter tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, Any]


def _exact_gelu(inputs: jax.Array) -> jax.Array:
    # By erf: three times as fast on CPU as jax.nn.gelu's erfc, and the same but for tails < 1e-7.
    return 0.5 * inputs * (1.0 + jax.lax.erf(inputs * np.sqrt(0.5).astype(inputs.dtype)))


ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "identity": lambda inputs: inputs,
    "gelu": _exact_gelu,
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
}


def linear(inputs: jax.Array, params: Params) -> jax.Array:
    """x W + b, without b where there is none; leading axes are flattened for the product."""
    flat = inputs.reshape(-1, inputs.shape[-1]) @ params["kernel"]
    if "bias" in params:
        flat = flat + params["bias"][None]
    return flat.reshape(*inputs.shape[:-1], flat.shape[-1])


def layer_norm(inputs: jax.Array, params: Params, epsilon: float) -> jax.Array:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias of [B, T, D], computed in float32."""
    values = inputs.astype(jnp.float32)
    centred = values - values.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(variance + epsilon) * params["scale"][None, None]
    return (normed + params["bias"][None, None]).astype(inputs.dtype)


def rms_norm(inputs: jax.Array, params: Params, epsilon: float) -> jax.Array:
    """x / sqrt(mean(x^2) + epsilon) * scale of [B, T, D], computed in float32."""
    values = inputs.astype(jnp.float32)
    mean_square = jnp.square(values).mean(axis=-1, keepdims=True)
    normed = values * jax.lax.rsqrt(mean_square + epsilon) * params["scale"][None, None]
    return normed.astype(inputs.dtype)
