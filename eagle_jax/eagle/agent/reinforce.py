"""EAGLE: reinforcement learning of a policy over texts (Tennenholtz et al. 2024, section 4).

An iteration plays episodes from drawn starts, scores the last texts with the utility and makes one
update (`policy_gradient.update`). Everything random derives from (seed, iteration): a run that is
interrupted and resumed ends with the same parameters.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from eagle_jax.base.metrics import check_finite
from eagle_jax.base.seeds import derive_seed
from eagle_jax.eagle.agent.player import AgentTask, Player, by_episode, call_metrics
from eagle_jax.eagle.agent.policy_gradient import Experience, update
from eagle_jax.eagle.agent.state import AgentState, EagleSettings, init_agent
from eagle_jax.eagle.environment import EpisodeState
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.sharding import on_mesh_of
from eagle_jax.learning.loop import AgentResult, Records, train_agent
from eagle_jax.learning.trainable import TrainingMode, split


@dataclasses.dataclass(frozen=True, kw_only=True)
class EagleTask(AgentTask):
    """An agent's task, and value_features_fn: features [B, F] from which the value of a state is
    predicted. The reward is asked for the first and the last states of episodes only."""

    value_features_fn: Callable[[Sequence[EpisodeState]], np.ndarray]


def train_eagle(
    reference: LanguageModel,
    mode: TrainingMode,
    task: EagleTask,
    settings: EagleSettings,
    *,
    records: Records,
    seed: int,
) -> AgentResult:
    """Trains the policy from the last checkpoint, or from the reference policy.

    Raises `NonFiniteError` that names the iteration where a reward, a feature or a loss is not
    finite; nothing of it is saved.
    """
    trainable, frozen = split(reference.params, mode)
    player = Player(reference, frozen, task, settings, settings.episodes_per_iteration)
    trainer = _Trainer(player, trainable, task, settings, seed)
    states = task.environment.reset(task.validation_starts)
    num_features = task.value_features_fn(states[:1]).shape[1]
    key = jax.random.key(derive_seed(seed, 0, 0))
    with on_mesh_of(trainable):
        state = init_agent(trainable, num_features, settings, key)
    return train_agent(
        state,
        trainer.iterate,
        lambda acting: player.validate(acting, seed),
        frozen,
        records,
        num_iterations=settings.num_iterations,
        validate_every=settings.validate_every,
        checkpoint_every=settings.checkpoint_every,
    )


@dataclasses.dataclass(frozen=True)
class _Trainer:
    """What stays the same over all iterations."""

    player: Player
    reference_trainable: Params
    task: EagleTask
    settings: EagleSettings
    seed: int

    def iterate(self, step: int, state: AgentState) -> tuple[AgentState, dict[str, float]]:
        """Episodes and an update; `state` is donated."""
        started = time.perf_counter()
        rng = np.random.default_rng(derive_seed(self.seed, step, 0))
        player = self.player
        horizon = self.settings.horizon
        starts = self.task.draw_starts(rng, self.settings.episodes_per_iteration)
        steps = player.play(
            state.trainable, self.task.environment.reset(starts), horizon, derive_seed(self.seed, step, 1)
        )
        played = time.perf_counter()
        values, rewards = player.score(steps[0].states, steps[-1].next_states)
        values |= call_metrics(steps)
        visited = by_episode(step.states for step in steps)
        features = np.asarray(self.task.value_features_fn(visited), np.float32)
        features = features.reshape(-1, horizon, features.shape[1])
        check_finite(step, values | {"value features": features.sum()})
        scored = time.perf_counter()
        written = by_episode(step.generations for step in steps)
        experience = Experience(player.encode(written), features, rewards)
        with on_mesh_of(self.reference_trainable):
            state, metrics = update(
                player.reference.config, self.settings, player.frozen, self.reference_trainable, state, experience
            )
        values |= {name: float(value) for name, value in metrics.items()} | {
            "time/rollout": played - started,
            "time/score": scored - played,
            "time/update": time.perf_counter() - scored,
        }
        return state, values
