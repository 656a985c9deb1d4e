"""Episodes: a policy acts in the environment for a number of steps. Text world, batch first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from eagle_jax.base.seeds import derive_seed
from eagle_jax.eagle.environment import EpisodeState, LLMEnvironment, Step, read_actions
from eagle_jax.language_model.generation import Generation

PolicyFn = Callable[[Sequence[EpisodeState], int], list[Generation]]


class Transitions(NamedTuple):
    """One step of all episodes: entry i of each list belongs to episode i."""

    states: list[EpisodeState]
    generations: list[Generation]
    steps: list[Step]
    next_states: list[EpisodeState]


def rollout(
    policy_fn: PolicyFn, environment: LLMEnvironment, states: Sequence[EpisodeState], horizon: int, seed: int
) -> list[Transitions]:
    """`horizon` steps from `states`, in order; the same seed gives the same episodes."""
    played = []
    states = list(states)
    for number in range(horizon):
        generations = policy_fn(states, derive_seed(seed, number, 0))
        texts = [state.description for state in states]
        actions = read_actions(generations)
        steps = environment.step(texts, actions, derive_seed(seed, number, 1))
        next_states = [state.after(step) for state, step in zip(states, steps, strict=True)]
        played.append(Transitions(states, generations, steps, next_states))
        states = next_states
    return played
