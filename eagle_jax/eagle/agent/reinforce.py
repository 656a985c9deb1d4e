"""EAGLE: reinforcement learning of a policy over texts (Tennenholtz et al. 2024, section 4).

An iteration plays episodes from drawn starts, scores the last texts with the utility and makes one
update (`policy_gradient.update_agent`).
"""

from __future__ import annotations

import functools

import jax
import numpy as np

from eagle_jax.base.metrics import check_finite
from eagle_jax.base.seeds import derive_seed
from eagle_jax.eagle.agent.player import AgentTask, Player, by_episode, call_metrics
from eagle_jax.eagle.agent.policy_gradient import Experience, update_agent
from eagle_jax.eagle.agent.state import AgentState, EagleSettings, init_agent
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.sharding import on_mesh_of
from eagle_jax.learning.loop import AgentResult, Laps, Records, train_agent
from eagle_jax.learning.trainable import TrainingMode, split


def train_eagle(
    reference: LanguageModel,
    mode: TrainingMode,
    task: AgentTask,
    settings: EagleSettings,
    *,
    records: Records,
    seed: int,
) -> AgentResult:
    """Trains the policy from the last checkpoint, or from the reference policy.

    The reward is asked for the first and the last states of episodes only. Raises `NonFiniteError`
    that names the iteration where a reward, a feature or a loss is not finite; nothing of it is
    saved.
    """
    trainable, frozen = split(reference.params, mode)
    player = Player(reference, trainable, frozen, task, settings, settings.episodes_per_iteration, seed)
    states = task.environment.reset(task.validation_starts)
    num_features = task.features_fn(states[:1]).shape[1]
    with on_mesh_of(trainable):
        state = init_agent(trainable, num_features, settings, jax.random.key(derive_seed(seed, 0, 0)))
    iterate = functools.partial(_iterate, player)
    return train_agent(state, iterate, player.validate, frozen, records, settings, settings.num_iterations)


def _iterate(player: Player, step: int, state: AgentState) -> tuple[AgentState, dict[str, float]]:
    """Episodes and an update; `state` is donated."""
    laps, settings = Laps(), player.settings
    _, states, seed = player.begin(step, settings.episodes_per_iteration)
    steps = player.play(state.trainable, states, settings.horizon, seed)
    laps.end("rollout")
    values, rewards = player.score(steps[0].states, steps[-1].next_states)
    values |= call_metrics(steps)
    visited = by_episode(step.states for step in steps)
    features = np.asarray(player.task.features_fn(visited), np.float32)
    features = features.reshape(-1, settings.horizon, features.shape[1])
    check_finite(step, values | {"value features": features.sum()})
    laps.end("score")
    written = by_episode(step.generations for step in steps)
    experience = Experience(player.encode(written), features, rewards)
    with on_mesh_of(player.start):
        state, metrics = update_agent(player.reference.config, settings, player.frozen, player.start, state, experience)
    values |= {name: float(value) for name, value in metrics.items()}
    laps.end("update")
    return state, values | laps.seconds
