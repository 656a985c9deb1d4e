"""A training step of this build or of an earlier one, as contenders of `memory`.

Nothing of the package is imported before a contender says which checkout it comes from.
"""

import dataclasses
import importlib
import resource
import sys
import time

import numpy as np

_OPTIMIZER = {"learning_rate": 1e-4, "warmup_steps": 0, "weight_decay": 0.1, "max_gradient_norm": 1.0}
_EVERY = {"log_every": 1, "checkpoint_every": 1}


def planned(*, program, decoder, remat, batch, prompt, length, checkout):
    """Compiles a step for shapes alone: bytes of temporaries and of arguments by XLA's accounting."""
    import jax

    step, arguments = _program(program, decoder, remat, batch, prompt, length, checkout)

    def run(_):
        start = time.perf_counter()
        compiled = step.lower(*jax.eval_shape(arguments)).compile()
        memory = compiled.memory_analysis()
        values = {"temporaries": memory.temp_size_in_bytes, "arguments": memory.argument_size_in_bytes}
        return time.perf_counter() - start, values

    return run


def timed(*, program, decoder, remat, batch, prompt, length, checkout):
    """A step on random weights and tokens; values are its processor seconds and the loss before it."""
    import jax

    step, arguments = _program(program, decoder, remat, batch, prompt, length, checkout)
    *frozen, state, data = jax.jit(arguments)()
    compiled = step.lower(*frozen, state, data).compile()

    def run(_):
        nonlocal state
        start, busy = time.perf_counter(), _processor_seconds()
        state, metrics = jax.block_until_ready(compiled(*frozen, state, data))
        seconds, busy = time.perf_counter() - start, _processor_seconds() - busy
        loss = float(metrics["loss" if "loss" in metrics else "policy/loss"])
        return seconds, {"processor_seconds": busy, "loss": loss}

    return run


def _processor_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _program(program, decoder, remat, batch, prompt, length, checkout):
    """(a jitted step with its settings bound, () -> its arguments, the state before the data)."""
    if checkout is not None:
        sys.path.insert(0, checkout)
    build = _earlier() if checkout is not None else _ours()
    config = dataclasses.replace(build["decoder_config_from_hf"](decoder), remat=remat)
    return _PROGRAMS[program](build, config, batch, prompt, length)


def _tokens(config, *shape):
    return np.random.default_rng(0).integers(3, config.vocab_size, shape, dtype=np.int32)


def _sft(build, config, batch, prompt, length):
    """AdamW on whole texts."""
    import jax

    settings = build["NextTokenSettings"](num_steps=100, **_OPTIMIZER, **_EVERY)
    step, make = build["next_token_step"], build["Batch"]

    def arguments():
        params = build["init_params"](config, jax.random.key(0))
        tokens = _tokens(config, batch, length)
        texts = (make(tokens, np.ones(tokens.shape, bool), np.ones(tokens.shape, np.float32)),)
        return {}, build["init_training"](params, settings), texts

    return _Bound(step, (config, settings)), arguments


def _reinforce(build, config, batch, prompt, length):
    """Actions of `length` tokens after prompts, exact KL to another policy."""
    import jax

    settings = build["EagleSettings"](
        num_iterations=100, episodes_per_iteration=batch, horizon=1, discount=1.0, gae_lambda=1.0,
        kl_coefficient=0.1, policy_learning_rate=1e-5, value_learning_rate=1e-3, value_hidden=(16,),
        value_updates=1, max_gradient_norm=1.0, normalize_advantages=True, minibatch_size=batch,
        policy=build["SamplingSettings"](temperature=0.7, top_k=0, top_p=1.0, max_new_tokens=length),
        validate_every=1, checkpoint_every=1, **build["exact_kl"],
    )  # fmt: skip

    def arguments():
        key, other_key, agent_key = jax.random.split(jax.random.key(0), 3)
        params, reference = (build["init_params"](config, each) for each in (key, other_key))
        actions = _responses(build, config, batch, prompt, length)
        rewards = np.random.default_rng(1).normal(size=batch).astype(np.float32)
        experience = build["Experience"](actions, np.ones((batch, 1, 4), np.float32), rewards)
        return {}, reference, build["init_agent"](params, 4, settings, agent_key), experience

    return _Bound(build["update_agent"], (config, settings)), arguments


def _dpo(build, config, batch, prompt, length):
    """Pairs of responses of `length` tokens after prompts, with the reference's log-probs given."""
    import jax

    settings = build["PreferenceSettings"](
        loss="dpo", beta=0.1, label_smoothing=0.0, initial_error_rate=0.0, batch_size=batch, accumulation=1,
        num_epochs=1, optimizer="adamw", max_prompt_tokens=prompt, max_tokens=prompt + length, probe_every=1,
        **_OPTIMIZER, **_EVERY,
    )  # fmt: skip

    def arguments():
        params = build["init_params"](config, jax.random.key(0))
        responses = _responses(build, config, 2 * batch, prompt, length)
        responses = type(responses)(*(leaf.reshape(batch, 2, -1) for leaf in responses))
        pairs = build["PreferenceBatch"](
            responses, np.zeros((batch, 2), np.float32), np.arange(batch), np.ones(batch, bool)
        )
        return {}, build["init_preference"](params, settings, batch, 100), pairs

    return _Bound(build["train_step"], (config, settings, 100)), arguments


def _responses(build, config, rows, prompt, length):
    tokens = _tokens(config, rows, prompt + length)
    return build["PolicyBatch"](tokens, np.ones(tokens.shape, bool), np.ones((rows, length), bool))


_PROGRAMS = {"sft": _sft, "reinforce": _reinforce, "dpo": _dpo}


class _Bound:
    """A jitted step whose first arguments are given."""

    def __init__(self, step, given):
        self.step, self.given = step, given

    def lower(self, *arguments):
        return self.step.lower(*self.given, *arguments)


def _build(names, **given):
    """What the programs are made of, from "module.name" of a build."""
    found = {}
    for path in names:
        path, _, name = path.partition(" as ")
        module, _, own = path.rpartition(".")
        found[name or own] = getattr(importlib.import_module(f"eagle_jax.{module}"), own)
    return found | given


def _ours():
    return _build(
        (
            "eagle.agent.policy_gradient.Experience",
            "eagle.agent.policy_gradient.update_agent",
            "eagle.agent.state.EagleSettings",
            "eagle.agent.state.init_agent",
            "language_model.checkpoints.hf_config.decoder_config_from_hf",
            "language_model.decoder.transformer.init_params",
            "language_model.generation.SamplingSettings",
            "learning.policy_batch.PolicyBatch",
            "learning.supervised.Batch",
            "learning.supervised.NextTokenSettings",
            "learning.supervised.init_training",
            "learning.supervised.next_token_step",
            "real.training.step.PreferenceBatch",
            "real.training.step.PreferenceSettings",
            "real.training.step.init_preference",
            "real.training.step.train_step",
        ),
        exact_kl={},
    )


def _earlier():
    return _build(
        (
            "language_model.generation.SamplingSettings",
            "language_model.hf_config.decoder_config_from_hf",
            "language_model.transformer.init_params",
            "training.next_token.Batch",
            "training.next_token.NextTokenSettings",
            "training.next_token.init_training",
            "training.next_token.train_step as next_token_step",
            "training.policy.PolicyBatch",
            "training.policy_gradient.Experience",
            "training.policy_gradient.update as update_agent",
            "training.preference_step.PreferenceBatch",
            "training.preference_step.PreferenceSettings",
            "training.preference_step.init_preference",
            "training.preference_step.train_step",
            "training.train_state.EagleSettings",
            "training.train_state.init_agent",
        ),
        exact_kl={"kl_estimator": "exact"},
    )
