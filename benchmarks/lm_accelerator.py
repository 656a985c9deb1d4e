"""Our decoder on an accelerator beside what the chip allows; a contender of `language_models`.

Drawing a token reads every weight and the cache once, so memory bandwidth bounds tokens per second:
    bound = B bandwidth / (bytes of parameters + bytes of caches)
and the products of a training step are bounded by the matrix unit: MFU = FLOPs / (seconds peak).
Both bounds are measured here (a copy, a product); the chip's own figures stand beside them.
"""

from __future__ import annotations

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import lm_inputs
from benchmarks.lm_ours import sft_settings
from benchmarks.lm_programs import forward_flops
from eagle_jax.language_model.checkpoints.hf_config import decoder_config_from_hf
from eagle_jax.language_model.decoder.transformer import init_params
from eagle_jax.language_model.sampling.sampling import sample
from eagle_jax.language_model.sampling.token_drawing import Drawing
from eagle_jax.learning.supervised import Batch, init_training, next_token_step

# jax's device_kind -> (bf16 FLOP/s, bytes/s) as the makers publish them, without sparsity.
PUBLISHED = {
    "TPU v4": (275e12, 1228e9),
    "TPU v5 lite": (197e12, 819e9),
    "TPU v5p": (459e12, 2765e9),
    "TPU v6 lite": (918e12, 1640e9),
    "NVIDIA A100-SXM4-80GB": (312e12, 2039e9),
    "NVIDIA H100 80GB HBM3": (989e12, 3350e9),
    "NVIDIA H200": (989e12, 4800e9),
}


def measured_bounds(product_size: int, copy_bytes: int) -> tuple[float, float]:
    """bf16 FLOP/s of a square product, and bytes/s read and written by a copy: the best of five."""
    matrix = jax.random.normal(jax.random.key(0), (product_size, product_size), jnp.bfloat16)
    flat = jnp.zeros((copy_bytes // 4,), jnp.float32)
    product = _best_seconds(jax.jit(jnp.dot), matrix, matrix)
    copy = _best_seconds(jax.jit(lambda values: values + 1.0), flat)
    return 2.0 * product_size**3 / product, 2.0 * flat.nbytes / copy


def _best_seconds(program, *arguments) -> float:
    jax.block_until_ready(program(*arguments))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def decoding(config, params, batch: int, prompt_length: int, new_tokens: int):
    """(tokens per second, bytes that a step has to read); prefill counts as time."""
    tokens = lm_inputs.token_ids(0, batch, prompt_length, config.vocab_size)
    mask = np.ones(tokens.shape, bool)

    def program():
        return sample(
            config,
            params,
            tokens,
            mask,
            jax.random.split(jax.random.key(0), batch),
            Drawing(np.float32(1.0), np.int32(0), np.float32(1.0), np.zeros((0,), np.int32)),
            max_new_tokens=new_tokens,
        ).tokens

    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    cached = 2 * config.num_layers * config.num_kv_heads * config.head_dim * batch
    cached *= (prompt_length + new_tokens) * jax.tree.leaves(params)[0].dtype.itemsize
    return batch * new_tokens / _best_seconds(program), float(weights + cached)


def training_flops_per_second(config, batch: int, length: int) -> float:
    """FLOP/s of AdamW steps on float32 weights, products in the device's default precision.

    Layers are computed again in the backward pass, which is not counted.
    """
    config = dataclasses.replace(config, remat=True, scan_layers=True)
    settings = sft_settings(1e-4, 0.1)
    state = init_training(init_params(config, jax.random.key(0)), settings)
    tokens = lm_inputs.token_ids(0, batch, length, config.vocab_size)
    batches = (Batch(tokens, np.ones(tokens.shape, bool), np.ones(tokens.shape, np.float32)),)

    def program():
        nonlocal state
        state, metrics = next_token_step(config, settings, {}, state, batches)
        return metrics

    return 3 * forward_flops(config, batch, length) / _best_seconds(program)


def report(*, decoder, batch, prompt_length, new_tokens, train_batch, train_length, product_size, copy_bytes):
    """One turn measures everything; without an accelerator it says so and measures nothing."""

    def run(_):
        if jax.default_backend() == "cpu":
            return 0.0, {"note": "no accelerator here"}
        start = time.perf_counter()
        values = measure(decoder, batch, prompt_length, new_tokens, train_batch, train_length, product_size, copy_bytes)
        return time.perf_counter() - start, values

    return run


def measure(decoder, batch, prompt_length, new_tokens, train_batch, train_length, product_size, copy_bytes):
    """Figures by name; works on any backend."""
    config = decoder_config_from_hf(decoder)
    flops, bandwidth = measured_bounds(product_size, copy_bytes)
    params = init_params(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    tokens_per_second, step_bytes = decoding(config, params, batch, prompt_length, new_tokens)
    training = training_flops_per_second(config, train_batch, train_length)
    kind = jax.devices()[0].device_kind
    values = {
        "device": kind,
        "measured bf16 FLOP/s": flops,
        "measured bytes/s": bandwidth,
        "tokens/s": tokens_per_second,
        "share of the bandwidth bound": tokens_per_second * step_bytes / (batch * bandwidth),
        "training FLOP/s": training,
        "MFU (measured peak)": training / flops,
    }
    if kind in PUBLISHED:
        values["MFU (published peak)"] = training / PUBLISHED[kind][0]
        values["share of the published bandwidth bound"] = tokens_per_second * step_bytes / (batch * PUBLISHED[kind][1])
    return values
