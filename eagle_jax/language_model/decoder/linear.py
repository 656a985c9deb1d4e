"""Linear layers, with a low-rank update where the config asks for one."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
from flax import nnx

from eagle_jax.language_model.decoder.config import DecoderConfig


class Linear(nnx.Module):
    """x W + b + x down up * alpha / rank, W [inputs, outputs] ~ Normal(0, initializer_range).

    The bias and the low-rank update (Hu et al. 2021, LoRA, section 4.1: down random, up zero) are
    there where the config has them. Leading axes are flattened for the product: XLA on CPU takes
    three times as long for the gradient of W when it has to contract two axes at once.
    """

    def __init__(self, config: DecoderConfig, path: str, inputs: int, outputs: int, has_bias: bool, *, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(config.initializer_range)
        self.kernel = nnx.Param(normal(rngs.params(), (inputs, outputs), jnp.float32))
        self.has_bias = has_bias
        if has_bias:
            self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32))
        lora = config.lora
        self.lora = lora if lora is not None and re.search(lora.targets, path) else None
        if self.lora:
            bound = inputs**-0.5
            shape = (inputs, self.lora.rank)
            down = jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)
            self.lora_down = nnx.Param(down)
            self.lora_up = nnx.Param(jnp.zeros((self.lora.rank, outputs), jnp.float32))

    def __call__(self, inputs: jax.Array) -> jax.Array:
        flat = inputs.reshape(-1, inputs.shape[-1])
        outputs = flat @ self.kernel[...]
        if self.has_bias:
            outputs += self.bias[...][None]
        if self.lora:
            down, up = (leaf[...].astype(flat.dtype) for leaf in (self.lora_down, self.lora_up))
            outputs += (flat @ down) @ up * self.lora.scale
        return outputs.reshape(*inputs.shape[:-1], outputs.shape[-1])
