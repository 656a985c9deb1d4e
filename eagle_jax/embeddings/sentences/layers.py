"""What the layers of all text encoders consist of, as functions of a parameter tree.

Axes: B texts, T tokens (queries), S tokens (keys), H heads, d head width, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, Any]

_MASKED = -1e30  # finite: a text without tokens gets a uniform average, not NaN


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


def norm(inputs: jax.Array, params: Params, epsilon: float) -> jax.Array:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias of [B, T, D], computed in float32.

    Where there is no bias, there is no mean either: x / sqrt(mean(x^2) + epsilon) * scale.
    """
    values = inputs.astype(jnp.float32)
    if "bias" in params:
        values = values - values.mean(axis=-1, keepdims=True)
    mean_square = jnp.square(values).mean(axis=-1, keepdims=True)
    normed = values * jax.lax.rsqrt(mean_square + epsilon) * params["scale"][None, None]
    if "bias" in params:
        normed = normed + params["bias"][None, None]
    return normed.astype(inputs.dtype)


def mask_bias(mask: jax.Array) -> jax.Array:
    """Mask [B, T] -> what is added to the scores, float32 [B, 1, 1, S]: 0 at real tokens."""
    return jnp.where(mask[:, None, None], 0.0, _MASKED).astype(jnp.float32)


def attend(projected: jax.Array, num_heads: int, scale: float, bias: jax.Array) -> jax.Array:
    """softmax(scale * q k' + bias) v of q, k, v side by side in [B, T, 3 H d]; [B, T, H d].

    `bias` broadcasts to [B, H, T, S]; the softmax is float32. XLA on CPU is fastest with keys as
    [B, H, d, S], plain matrix products and the softmax's division after the second of them: there
    are fewer outputs than weights.
    """
    batch, length, width = projected.shape
    heads = projected.reshape(batch, length, 3, num_heads, width // (3 * num_heads))
    query = heads[:, :, 0].transpose(0, 2, 1, 3) * scale
    key = heads[:, :, 1].transpose(0, 2, 3, 1)
    value = heads[:, :, 2].transpose(0, 2, 1, 3)
    scores = (query @ key).astype(jnp.float32) + bias
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    total = weights.sum(axis=-1, keepdims=True)
    mixed = (weights.astype(value.dtype) @ value) / total.astype(value.dtype)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, length, width // 3)


def relative_position_buckets(length: int, num_buckets: int, max_distance: int) -> np.ndarray:
    """Bucket of each distance s - t, int32 [T, S] (Raffel et al. 2020, T5; in both directions).

    Half of the buckets are for s > t. Of each half, one half holds single distances, the other
    distances up to max_distance on a logarithmic scale.
    """
    one_side = num_buckets // 2
    exact = one_side // 2
    offset = np.arange(length)[None] - np.arange(length)[:, None]
    distance = np.abs(offset)
    # In float32, as everybody does: at the steps of the scale the rounding chooses the bucket.
    scale = np.log(np.maximum(distance, exact).astype(np.float32) / np.float32(exact))
    steps = scale / np.float32(np.log(max_distance / exact)) * np.float32(one_side - exact)
    far = np.minimum(exact + steps.astype(np.int32), one_side - 1)
    return (np.where(distance < exact, distance, far) + one_side * (offset > 0)).astype(np.int32)


def relative_position_bias(table: jax.Array, length: int, max_distance: int) -> jax.Array:
    """Learned bias of each bucket, table [num_buckets, H] -> float32 [1, H, T, S]."""
    buckets = relative_position_buckets(length, len(table), max_distance)
    return jnp.take(table, buckets, axis=0).transpose(2, 0, 1)[None].astype(jnp.float32)
