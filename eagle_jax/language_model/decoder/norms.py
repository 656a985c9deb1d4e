"""Normalisation over the last axis, in float32 whatever the activations are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from eagle_jax.language_model.decoder.config import DecoderConfig


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + epsilon) * scale (Zhang & Sennrich 2019); in Gemma * (1 + scale)."""

    def __init__(self, width: int, config: DecoderConfig):
        self.epsilon = config.norm_eps
        self.offset = float(config.family.is_gemma)
        self.scale = nnx.Param(jnp.full((width,), 1.0 - self.offset, jnp.float32))

    def __call__(self, inputs: jax.Array) -> jax.Array:
        exact = inputs.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(exact), axis=-1, keepdims=True)
        scale = self.scale[...].astype(jnp.float32) + self.offset
        scale = jnp.expand_dims(scale, tuple(range(inputs.ndim - 1)))
        return (exact * jax.lax.rsqrt(mean_square + self.epsilon) * scale).astype(inputs.dtype)


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(var + epsilon) * scale + bias (Ba et al. 2016)."""

    def __init__(self, width: int, config: DecoderConfig):
        self.epsilon = config.norm_eps
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))

    def __call__(self, inputs: jax.Array) -> jax.Array:
        exact = inputs.astype(jnp.float32)
        exact -= jnp.mean(exact, axis=-1, keepdims=True)
        mean_square = jnp.mean(jnp.square(exact), axis=-1, keepdims=True)
        leading = tuple(range(inputs.ndim - 1))
        scale, bias = (jnp.expand_dims(leaf[...].astype(jnp.float32), leading) for leaf in (self.scale, self.bias))
        normed = exact * jax.lax.rsqrt(mean_square + self.epsilon) * scale + bias
        return normed.astype(inputs.dtype)


NORMS = {"rms": RMSNorm, "layer": LayerNorm}
