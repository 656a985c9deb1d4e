"""What our compiled programs cost: compile times, and their share of what the matrix unit can do.

Contenders of `language_models`; each function returns run(turn) -> (seconds, values). Nothing is
read from disk: weights are random, and for compile times only their shapes exist.

Axis letters: B batch, T tokens, D model width, V vocabulary, H query heads, G key heads, d head
width, F feed-forward width.
"""

from __future__ import annotations

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import lm_inputs
from benchmarks.lm_ours import sft_settings
from eagle_jax.language_model.checkpoints.hf_config import decoder_config_from_hf
from eagle_jax.language_model.decoder.attention import KeyValue, attend
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import forward, init_params
from eagle_jax.language_model.log_probs import LastStates
from eagle_jax.language_model.sampling.sampling import sample
from eagle_jax.language_model.sampling.token_drawing import Drawing
from eagle_jax.learning.losses import next_token_loss
from eagle_jax.learning.supervised import Batch, init_training, next_token_optimizer, next_token_step


def compile_train_step(*, decoder, batch, length, scan_layers):
    """Seconds to trace and compile an AdamW step."""
    config = dataclasses.replace(decoder_config_from_hf(decoder), scan_layers=scan_layers)
    settings = sft_settings(1e-3, 0.1)
    state = jax.eval_shape(lambda: init_training(init_params(config, jax.random.key(0)), settings))
    tokens, mask, weights = (jax.ShapeDtypeStruct((batch, length), kind) for kind in (np.int32, bool, np.float32))
    batches = (Batch(tokens, mask, weights),)
    return _compiling(lambda: next_token_step.lower(config, settings, {}, state, batches))


def compile_sampler(*, decoder, batch, prompt_length, new_tokens):
    """Seconds to trace and compile the sampler's two programs (reading prompts, drawing)."""
    config = decoder_config_from_hf(decoder)
    params = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    prompts = [jax.ShapeDtypeStruct((batch, prompt_length), kind) for kind in (np.int32, bool)]
    scalar = jax.ShapeDtypeStruct((), np.float32)

    def whole(params, tokens, mask, keys, temperature, top_p):
        return sample(
            config,
            params,
            tokens,
            mask,
            keys,
            Drawing(temperature, jnp.int32(0), top_p, jnp.zeros((0,), jnp.int32)),
            max_new_tokens=new_tokens,
        )

    return _compiling(lambda: jax.jit(whole).lower(params, *prompts, keys, scalar, scalar))


def _compiling(lower):
    def run(_):
        jax.clear_caches()
        start = time.perf_counter()
        lower().compile()
        return time.perf_counter() - start, {}

    return run


def product_flops(config: DecoderConfig, num_tokens: int) -> float:
    """Of all products with weights, unembedding included, for tokens that go forward once."""
    heads = config.num_heads * config.head_dim
    key_heads = config.num_kv_heads * config.head_dim
    attention = 2 * config.hidden_size * (heads + key_heads)
    feed_forward = 3 * config.hidden_size * config.intermediate_size
    weights = config.num_layers * (attention + feed_forward)
    return 2.0 * num_tokens * (weights + config.hidden_size * config.vocab_size)


def attention_flops(config: DecoderConfig, batch: int, length: int) -> float:
    """Of q k' and of the mixing of values, [B, H, T, T] each, forward once."""
    heads = config.num_heads * config.head_dim
    return config.num_layers * 2 * 2.0 * batch * length**2 * heads


def forward_flops(config: DecoderConfig, batch: int, length: int) -> float:
    """Of a forward pass; a training step has three times as many."""
    return product_flops(config, batch * length) + attention_flops(config, batch, length)


def _timed(program, *arguments) -> float:
    start = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    return time.perf_counter() - start


def matrix_product(*, size, dtype="float32"):
    """A plain product of two square matrices: what can be reached."""
    left, right = (jax.random.normal(key, (size, size), dtype) for key in jax.random.split(jax.random.key(0)))
    program = jax.jit(jnp.dot)
    return lambda _: (_timed(program, left, right), {"flops": 2.0 * size**3})


def forward_pass(*, decoder, batch, length, dtype="float32"):
    """Logits of whole texts."""
    config = decoder_config_from_hf(decoder)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), init_params(config, jax.random.key(0)))
    tokens = lm_inputs.token_ids(0, batch, length, config.vocab_size)
    mask = np.ones(tokens.shape, bool)
    program = jax.jit(lambda params: forward(config, params, tokens, mask).logits)
    flops = forward_flops(config, batch, length)
    return lambda _: (_timed(program, params), {"flops": flops})


def training_step(*, decoder, batch, length):
    """An AdamW step, float32."""
    config, settings = decoder_config_from_hf(decoder), sft_settings(1e-3, 0.1)
    state = init_training(init_params(config, jax.random.key(0)), settings)
    tokens = lm_inputs.token_ids(0, batch, length, config.vocab_size)
    batches = (Batch(tokens, np.ones(tokens.shape, bool), np.ones(tokens.shape, np.float32)),)
    flops = 3 * forward_flops(config, batch, length)

    def run(_):
        nonlocal state
        start = time.perf_counter()
        state, _ = jax.block_until_ready(next_token_step(config, settings, {}, state, batches))
        return time.perf_counter() - start, {"flops": flops}

    return run


def pieces(*, decoder, batch, length):
    """The parts of a training step alone, forward and backward: where its time goes.

    values: seconds and flops of each; norms, rotations and residual sums are the rest of a step.
    """
    config, settings = decoder_config_from_hf(decoder), sft_settings(1e-3, 0.1)
    programs = _piece_programs(config, batch, length)
    params = init_params(config, jax.random.key(0))
    optimizer = next_token_optimizer(settings)
    step = jax.jit(lambda gradients, state: optimizer.update(gradients, state, params))
    programs["optimiser"] = (step, (params, optimizer.init(params)), 1, 0.0)

    def run(_):
        start, values = time.perf_counter(), {}
        for name, (program, arguments, count, flops) in programs.items():
            values[name] = {"seconds": count * _timed(program, *arguments), "flops": count * flops}
        return time.perf_counter() - start, {"pieces": values}

    return run


def _piece_programs(config, batch, length):
    """Name -> (compiled value and gradients, arguments, how often, FLOPs each time)."""
    width, inner = config.hidden_size, config.intermediate_size
    heads, key_heads = config.num_heads, config.num_kv_heads
    keys = iter(jax.random.split(jax.random.key(1), 16))

    def random(*shape):
        return 0.1 * jax.random.normal(next(keys), shape)

    def both_ways(function, arguments):
        def objective(*arguments):
            return jnp.sum(jnp.square(function(*arguments)))

        return jax.jit(jax.value_and_grad(objective, argnums=tuple(range(len(arguments)))))

    num_tokens = batch * length
    hidden = random(num_tokens, width)
    programs = {}
    projections = {
        "query and output products": (2, width, heads * config.head_dim),
        "key and value products": (2, width, key_heads * config.head_dim),
        "feed-forward products": (3, width, inner),
    }
    for name, (count, inputs, outputs) in projections.items():
        arguments = hidden, random(inputs, outputs)
        flops = 6.0 * num_tokens * inputs * outputs
        program = both_ways(jnp.matmul, arguments)
        programs[name] = program, arguments, count * config.num_layers, flops
    query = random(batch, length, heads, config.head_dim)
    stored = KeyValue(
        random(batch, key_heads, config.head_dim, length), random(batch, key_heads, length, config.head_dim)
    )
    allowed = jnp.broadcast_to(jnp.tri(length, dtype=bool)[None], (batch, length, length))

    def attention(query, keys, values):
        return attend(query, KeyValue(keys, values), allowed)

    flops = 3 * attention_flops(config, batch, length) / config.num_layers
    arguments = query, *stored
    programs["attention"] = both_ways(attention, arguments), arguments, config.num_layers, flops
    gated = random(num_tokens, inner), random(num_tokens, inner)
    programs["gate"] = (both_ways(lambda gate, up: jax.nn.silu(gate) * up, gated), gated, config.num_layers, 0.0)
    tokens = jnp.asarray(lm_inputs.token_ids(0, batch, length, config.vocab_size))

    def loss(hidden, table):
        def unembed(table, states):
            return (states.reshape(-1, width) @ table.T).reshape(*states.shape[:2], -1)

        read = LastStates(hidden.reshape(batch, length, width), jax.tree_util.Partial(unembed, table))
        return next_token_loss(read, tokens, jnp.ones(tokens.shape))

    head = hidden, random(config.vocab_size, width)
    flops = 6.0 * num_tokens * width * config.vocab_size
    programs["unembedding and loss"] = both_ways(loss, head), head, 1, flops
    return programs
