"""What EAGLE's two ways to train a policy share (`eagle`: REINFORCE, `eagle_preference`: DPO).

Episodes and their metrics, validation, and the loop that keeps the best parameters and resumes.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.metrics import MetricsWriter, check_finite, progress, read_metrics
from eagle_jax.base.seeds import derive_seed
from eagle_jax.environment.llm_environment import EpisodeState, LLMEnvironment, Start
from eagle_jax.environment.rollout import Trajectories, rollout
from eagle_jax.language_model.generation import Generation
from eagle_jax.language_model.hf_checkpoints import LanguageModel
from eagle_jax.language_model.local import LocalGenerator
from eagle_jax.language_model.transformer import Params
from eagle_jax.training.policy import (
    PolicyBatch,
    encode_policy_batch,
    make_policy_fn,
    state_prompts,
)
from eagle_jax.training.train_state import EagleSettings
from eagle_jax.training.trainable import join

LENGTH_MULTIPLE = 32  # the sampler's prompts are padded to multiples of it
State = TypeVar("State")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentTask:
    """Where an agent acts and what it is rewarded for.

    reward_fn: utility [B] of states.
    draw_starts: (rng, n) -> n starts of training episodes.
    validation_starts: the same ones at every validation.
    """

    environment: LLMEnvironment
    reward_fn: Callable[[Sequence[EpisodeState]], np.ndarray]
    draw_starts: Callable[[np.random.Generator, int], Sequence[Start]]
    validation_starts: Sequence[Start]


class AgentResult(NamedTuple):
    """Parameters of the last and of the best iteration (by validation), and all metrics' rows.

    What was frozen are the reference policy's own arrays.
    """

    params: Params
    best_params: Params
    best_step: int
    history: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Player:
    """The policy in its task; `trainable` of its methods are the parameters that act.

    batch_size: actions that are sampled at a time.
    """

    reference: LanguageModel
    frozen: Params
    task: AgentTask
    settings: EagleSettings
    batch_size: int

    def play(
        self, trainable: Params, states: Sequence[EpisodeState], horizon: int, seed: int
    ) -> Trajectories:
        """`horizon` steps from each state."""
        environment = self.task.environment
        # Scanned layers are for training: here they would be stacked anew for every batch.
        config = dataclasses.replace(self.reference.config, scan_layers=False)
        policy = dataclasses.replace(self.reference, config=config)
        generator = LocalGenerator(policy, self.batch_size, LENGTH_MULTIPLE).with_params(
            join(trainable, self.frozen)
        )
        policy_fn = make_policy_fn(
            generator, environment.book, environment.entity_format, self.settings.policy
        )
        return rollout(policy_fn, environment, states, horizon, seed)

    def score(
        self, first: Sequence[EpisodeState], final: Sequence[EpisodeState]
    ) -> tuple[dict[str, float], np.ndarray]:
        """Metrics of episodes by their first and last states, and their rewards [E]."""
        rewards = np.asarray(self.task.reward_fn(final), np.float32)
        gains = rewards - np.asarray(self.task.reward_fn(first), np.float32)
        values = {
            "reward": rewards.mean(),
            "reward_std": rewards.std(),
            "gain": gains.mean(),
            "improved": (gains > 0).mean(),
        }
        return {name: float(value) for name, value in values.items()}, rewards

    def validate(self, step: int, trainable: Params, seed: int) -> dict[str, float]:
        """The same episodes' starts and seed every time, so that only the policy differs."""
        started = time.perf_counter()
        states = self.task.environment.reset(self.task.validation_starts)
        horizon = self.settings.horizon
        final = self.play(trainable, states, horizon, derive_seed(seed, 0, 1)).final_states
        values, _ = self.score(states, final)
        values |= call_metrics((state.malformed for state in final), len(final) * horizon)
        values = {f"validation/{name}": value for name, value in values.items()}
        check_finite(step, values)
        return values | {"time/validation": time.perf_counter() - started}

    def encode(
        self, states: Sequence[EpisodeState], generations: Sequence[Generation]
    ) -> PolicyBatch:
        """Actions after the prompts of the states in which they were written."""
        environment = self.task.environment
        return encode_policy_batch(
            self.reference.tokenizer,
            state_prompts(environment.book, environment.entity_format, states),
            generations,
            self.settings.policy.max_new_tokens,
        )


def call_metrics(malformed: Iterable[Sequence[str]], num_actions: int) -> dict[str, float]:
    """What `num_actions` actions cost: the environment's calls, and how many were malformed, from
    the reasons that states note."""
    kinds = Counter(reason.partition(":")[0] for reasons in malformed for reason in reasons)
    return {
        "malformed_actions": kinds["action"] / num_actions,
        "malformed_rewrites": kinds["environment"] / num_actions,
        "environment_calls": float(num_actions - kinds["action"]),
    }


def by_episode(steps: Iterable[Sequence[Any]]) -> list:
    """Lists over episodes, one for each step -> one list, episode by episode."""
    return [entry for episode in zip(*steps, strict=True) for entry in episode]


def run_training(
    state: State,
    iterate: Callable[[int, State], tuple[State, dict[str, float]]],
    validate: Callable[[int, Params], dict[str, float]],
    frozen: Params,
    *,
    num_iterations: int,
    validate_every: int,
    checkpoint_every: int,
    checkpoints: Checkpoints,
    metrics_folder: Path,
    description: str,
) -> AgentResult:
    """Iterates from the last checkpoint, or from `state`, whose field `trainable` is validated.

    The last iteration is always validated and saved. `iterate` may donate its state.
    """
    restored = checkpoints.restore_latest(state)
    start, state = restored if restored else (0, state)
    with MetricsWriter(metrics_folder, resume_step=start if restored else None) as metrics:
        if not restored:
            values = validate(0, state.trainable)
            metrics.write(0, values)
            checkpoints.save_best(0, state.trainable, values["validation/reward"])
        remaining = range(start + 1, num_iterations + 1)
        for step in progress(remaining, len(remaining), description, "iteration"):
            last = step == num_iterations
            state, values = iterate(step, state)
            if last or step % validate_every == 0:
                values |= validate(step, state.trainable)
                checkpoints.save_best(step, state.trainable, values["validation/reward"])
            metrics.write(step, values)
            if last or step % checkpoint_every == 0:
                checkpoints.save(step, state)
    best_step, best = checkpoints.restore_best(state.trainable)
    history = read_metrics(Path(metrics_folder) / "metrics.jsonl")
    return AgentResult(join(state.trainable, frozen), join(best, frozen), best_step, history)
