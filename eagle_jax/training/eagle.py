"""EAGLE: reinforcement learning of a policy over texts (Tennenholtz et al. 2024, section 4).

An iteration plays episodes from drawn starts, scores the last texts with the utility and makes one
update (`policy_gradient.update`). Everything random derives from (seed, iteration): a run that is
interrupted and resumed ends with the same parameters.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.metrics import MetricsWriter, check_finite, progress, read_metrics
from eagle_jax.base.seeds import derive_seed
from eagle_jax.environment.llm_environment import EpisodeState, LLMEnvironment, Start
from eagle_jax.environment.rollout import Trajectories, rollout
from eagle_jax.language_model.hf_checkpoints import LanguageModel
from eagle_jax.language_model.local import LocalGenerator
from eagle_jax.language_model.sharding import on_mesh_of
from eagle_jax.language_model.transformer import Params
from eagle_jax.training.policy import encode_policy_batch, make_policy_fn, state_prompts
from eagle_jax.training.policy_gradient import Experience, update
from eagle_jax.training.train_state import AgentState, EagleSettings, init_agent
from eagle_jax.training.trainable import TrainingMode, join, split

LENGTH_MULTIPLE = 32  # the sampler's prompts are padded to multiples of it


@dataclasses.dataclass(frozen=True, kw_only=True)
class EagleTask:
    """Where the agent acts and what it is rewarded for.

    reward_fn: utility [B] of states, asked for the first and the last states of episodes only.
    value_features_fn: features [B, F] from which the value of a state is predicted.
    draw_starts: (rng, n) -> n starts of training episodes.
    validation_starts: the same ones at every validation.
    """

    environment: LLMEnvironment
    reward_fn: Callable[[Sequence[EpisodeState]], np.ndarray]
    value_features_fn: Callable[[Sequence[EpisodeState]], np.ndarray]
    draw_starts: Callable[[np.random.Generator, int], Sequence[Start]]
    validation_starts: Sequence[Start]


class EagleResult(NamedTuple):
    """Parameters of the last and of the best iteration (by validation), and all metrics' rows.

    What was frozen are the reference policy's own arrays.
    """

    params: Params
    best_params: Params
    best_step: int
    history: list[dict[str, Any]]


def train_eagle(
    reference: LanguageModel,
    mode: TrainingMode,
    task: EagleTask,
    settings: EagleSettings,
    *,
    seed: int,
    checkpoints: Checkpoints,
    metrics_folder: Path,
    description: str,
) -> EagleResult:
    """Trains the policy from the last checkpoint, or from the reference policy.

    Raises `NonFiniteError` that names the iteration where a reward, a feature or a loss is not
    finite; nothing of it is saved.
    """
    trainable, frozen = split(reference.params, mode)
    trainer = _Trainer(reference, trainable, frozen, task, settings, seed)
    states = task.environment.reset(task.validation_starts)
    num_features = task.value_features_fn(states[:1]).shape[1]
    key = jax.random.key(derive_seed(seed, 0, 0))
    with on_mesh_of(trainable):
        state = init_agent(trainable, num_features, settings, key)
    restored = checkpoints.restore_latest(state)
    start, state = restored if restored else (0, state)
    with MetricsWriter(metrics_folder, resume_step=start if restored else None) as metrics:
        if not restored:
            values = trainer.validate(0, state)
            metrics.write(0, values)
            checkpoints.save_best(0, state.trainable, values["validation/reward"])
        remaining = range(start + 1, settings.num_iterations + 1)
        for step in progress(remaining, len(remaining), description, "iteration"):
            last = step == settings.num_iterations
            state, values = trainer.iterate(step, state)
            if last or step % settings.validate_every == 0:
                values |= trainer.validate(step, state)
                checkpoints.save_best(step, state.trainable, values["validation/reward"])
            metrics.write(step, values)
            if last or step % settings.checkpoint_every == 0:
                checkpoints.save(step, state)
    best_step, best = checkpoints.restore_best(state.trainable)
    history = read_metrics(Path(metrics_folder) / "metrics.jsonl")
    params, best_params = join(state.trainable, frozen), join(best, frozen)
    return EagleResult(params, best_params, best_step, history)


@dataclasses.dataclass(frozen=True)
class _Trainer:
    """What stays the same over all iterations."""

    reference: LanguageModel
    reference_trainable: Params
    frozen: Params
    task: EagleTask
    settings: EagleSettings
    seed: int

    def iterate(self, step: int, state: AgentState) -> tuple[AgentState, dict[str, float]]:
        """Episodes and an update; `state` is donated."""
        started = time.perf_counter()
        rng = np.random.default_rng(derive_seed(self.seed, step, 0))
        starts = self.task.draw_starts(rng, self.settings.episodes_per_iteration)
        trajectories = self._play(state.trainable, starts, derive_seed(self.seed, step, 1))
        played = time.perf_counter()
        values, rewards = self._score(trajectories)
        features = self._features(trajectories)
        check_finite(step, values | {"value features": features.sum()})
        scored = time.perf_counter()
        experience = Experience(self._encode(trajectories), features, rewards)
        with on_mesh_of(self.reference_trainable):
            state, metrics = update(
                self.reference.config,
                self.settings,
                self.frozen,
                self.reference_trainable,
                state,
                experience,
            )
        values |= {name: float(value) for name, value in metrics.items()}
        check_finite(step, values)
        values |= {
            "time/rollout": played - started,
            "time/score": scored - played,
            "time/update": time.perf_counter() - scored,
        }
        return state, values

    def validate(self, step: int, state: AgentState) -> dict[str, float]:
        """The same episodes' starts and seed every time, so that only the policy differs."""
        started = time.perf_counter()
        seed = derive_seed(self.seed, 0, 1)
        trajectories = self._play(state.trainable, self.task.validation_starts, seed)
        values, _ = self._score(trajectories)
        values = {f"validation/{name}": value for name, value in values.items()}
        check_finite(step, values)
        return values | {"time/validation": time.perf_counter() - started}

    def _play(self, trainable: Params, starts: Sequence[Start], seed: int) -> Trajectories:
        environment, settings = self.task.environment, self.settings
        # Scanned layers are for training: here they would be stacked anew for every batch.
        config = dataclasses.replace(self.reference.config, scan_layers=False)
        policy = dataclasses.replace(self.reference, config=config)
        generator = LocalGenerator(
            policy, settings.episodes_per_iteration, LENGTH_MULTIPLE
        ).with_params(join(trainable, self.frozen))
        policy_fn = make_policy_fn(
            generator, environment.book, environment.entity_format, settings.policy
        )
        return rollout(policy_fn, environment, environment.reset(starts), settings.horizon, seed)

    def _score(self, trajectories: Trajectories) -> tuple[dict[str, float], np.ndarray]:
        """Metrics of the episodes, and their rewards [E]."""
        first, final = trajectories.steps[0].states, trajectories.final_states
        rewards = np.asarray(self.task.reward_fn(final), np.float32)
        gains = rewards - np.asarray(self.task.reward_fn(first), np.float32)
        num_actions = len(final) * self.settings.horizon
        kinds = Counter(
            reason.partition(":")[0] for state in final for reason in state.malformed
        )
        values = {
            "reward": rewards.mean(),
            "reward_std": rewards.std(),
            "gain": gains.mean(),
            "improved": (gains > 0).mean(),
            "malformed_actions": kinds["action"] / num_actions,
            "malformed_rewrites": kinds["environment"] / num_actions,
            "environment_calls": num_actions - kinds["action"],
        }
        return {name: float(value) for name, value in values.items()}, rewards

    def _features(self, trajectories: Trajectories) -> np.ndarray:
        """Features [E, H, F] of the states before each action."""
        states = _by_episode(step.states for step in trajectories.steps)
        features = np.asarray(self.task.value_features_fn(states), np.float32)
        return features.reshape(-1, self.settings.horizon, features.shape[1])

    def _encode(self, trajectories: Trajectories):
        environment = self.task.environment
        states = _by_episode(step.states for step in trajectories.steps)
        return encode_policy_batch(
            self.reference.tokenizer,
            state_prompts(environment.book, environment.entity_format, states),
            _by_episode(step.generations for step in trajectories.steps),
            self.settings.policy.max_new_tokens,
        )


def _by_episode(steps) -> list:
    """Lists over episodes, one for each step -> one list, episode by episode."""
    return [entry for episode in zip(*steps, strict=True) for entry in episode]
