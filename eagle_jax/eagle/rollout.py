"""Episodes: a policy acts in the environment for a number of steps. Text world, batch first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from eagle_jax.base.seeds import derive_seed
from eagle_jax.eagle.environment import EpisodeState, LLMEnvironment, read_actions
from eagle_jax.language_model.generation import Generation

PolicyFn = Callable[[Sequence[EpisodeState], int], list[Generation]]


class Transitions(NamedTuple):
    """One step of all episodes; an action of None was malformed."""

    states: list[EpisodeState]
    generations: list[Generation]
    actions: list[str | None]
    next_states: list[EpisodeState]


class Trajectories(NamedTuple):
    """All steps, in order; entry i of each list of a step belongs to episode i."""

    steps: list[Transitions]

    @property
    def final_states(self) -> list[EpisodeState]:
        return self.steps[-1].next_states


def rollout(
    policy_fn: PolicyFn,
    environment: LLMEnvironment,
    states: Sequence[EpisodeState],
    horizon: int,
    seed: int,
) -> Trajectories:
    """`horizon` steps from `states`; the same seed gives the same episodes."""
    steps = []
    states = list(states)
    for step in range(horizon):
        generations = policy_fn(states, derive_seed(seed, step, 0))
        noted, actions = read_actions(states, generations)
        next_states = environment.step(noted, actions, derive_seed(seed, step, 1))
        steps.append(Transitions(states, generations, actions, next_states))
        states = next_states
    return Trajectories(steps)
