"""Our sampler and our training steps, as contenders of `language_models`.

Each function reads the checkpoint and returns run(turn) -> (seconds, values to be compared).
"""

from __future__ import annotations

import time

import jax
import numpy as np

from benchmarks import lm_inputs
from eagle_jax.eagle.agent.policy_gradient import Experience, update_agent
from eagle_jax.eagle.agent.state import EagleSettings, init_agent
from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.sampling.sampling import prefill_shared, sample
from eagle_jax.language_model.sampling.token_drawing import Drawing
from eagle_jax.learning.policy_batch import PolicyBatch
from eagle_jax.learning.supervised import Batch, NextTokenSettings, init_training, next_token_step
from eagle_jax.learning.trainable import split


def read_checkpoint(folder: str) -> tuple[DecoderConfig, Params]:
    """Shape and weights."""
    model = load_language_model(folder)
    return model.config, model.params


def sampling(*, folder, batch, prompt_length, new_tokens, temperature, top_p, shared):
    """Tokens of rows that never stop; temperature 0 is greedy. What all rows share is read once, as `sample_batch`
    does."""
    config, params = read_checkpoint(folder)
    tokens = lm_inputs.token_ids(0, batch, prompt_length, config.vocab_size, shared)
    mask = np.ones(tokens.shape, bool)
    drawing = Drawing(np.float32(temperature), np.int32(0), np.float32(top_p), np.zeros((0,), np.int32))

    def run(turn):
        keys = jax.random.split(jax.random.key(turn), batch)
        start = time.perf_counter()
        prefix = None
        if shared:
            beginning = tokens[:1, :shared], mask[:1, :shared], None
            prefix = prefill_shared(config, params, *beginning, np.zeros(batch, np.int32))
        ends = tokens[:, shared:], mask[:, shared:]
        output = sample(config, params, *ends, keys, drawing, max_new_tokens=new_tokens, prefix=prefix)
        drawn = np.asarray(output.tokens)
        return time.perf_counter() - start, {"tokens": drawn.tolist()}

    return run


def sft_settings(learning_rate: float, weight_decay: float) -> NextTokenSettings:
    """Next to no warm-up or decay of the learning rate, so that peers need none."""
    return NextTokenSettings(
        num_steps=1_000_000,
        learning_rate=learning_rate,
        warmup_steps=0,
        weight_decay=weight_decay,
        max_gradient_norm=1.0,
        checkpoint_every=1,
        log_every=1,
    )


def sft(*, folder, batch, length, steps, learning_rate, weight_decay):
    """AdamW steps on one batch of whole texts."""
    config, params = read_checkpoint(folder)
    settings = sft_settings(learning_rate, weight_decay)
    trainable, frozen = split(params, "full")
    state = init_training(trainable, settings)
    tokens = lm_inputs.token_ids(1, batch, length, config.vocab_size)
    batches = (Batch(tokens, np.ones(tokens.shape, bool), np.ones(tokens.shape, np.float32)),)

    def run(_):
        nonlocal state
        losses, norms = [], []
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = next_token_step(config, settings, frozen, state, batches)
            losses.append(float(metrics["loss"]))
            norms.append(float(metrics["gradient_norm"]))
        jax.block_until_ready(state)
        return (time.perf_counter() - start) / steps, {"loss": losses, "gradient_norm": norms}

    return run


def reinforce(*, folder, batch, prompt_length, action_length, steps, learning_rate, kl_coefficient):
    """Steps of REINFORCE with KL to the checkpoint, on one batch of episodes of one action."""
    config, params = read_checkpoint(folder)
    settings = EagleSettings(
        num_iterations=1_000_000,
        episodes_per_iteration=batch,
        horizon=1,
        discount=1.0,
        gae_lambda=1.0,
        kl_coefficient=kl_coefficient,
        policy_learning_rate=learning_rate,
        # The baseline stays the mean reward, as in the peers; it is computed all the same.
        value_learning_rate=1e-3,
        value_hidden=(16,),
        value_updates=1,
        max_gradient_norm=1.0,
        normalize_advantages=True,
        minibatch_size=batch,
        policy=SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=action_length),
        validate_every=1,
        checkpoint_every=1,
    )
    reference, frozen = split(params, "full")
    state = init_agent(reference, 4, settings, jax.random.key(0))
    tokens = lm_inputs.token_ids(2, batch, prompt_length + action_length, config.vocab_size)
    lengths = lm_inputs.action_lengths(3, batch, action_length)
    action_mask = np.arange(action_length)[None] < lengths[:, None]
    mask = np.concatenate([np.ones((batch, prompt_length), bool), action_mask], axis=1)
    experience = Experience(
        PolicyBatch(tokens, mask, action_mask), np.ones((batch, 1, 4), np.float32), lm_inputs.rewards(4, batch)
    )

    def run(_):
        nonlocal state
        values = {"loss": [], "kl": [], "gradient_norm": []}
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = update_agent(config, settings, frozen, reference, state, experience)
            for name, mine in values.items():
                mine.append(float(metrics[f"policy/{name}"]))
        jax.block_until_ready(state)
        return (time.perf_counter() - start) / steps, values

    return run
