"""Greedy search with a policy: what asking the reward after every step is worth, instead of after whole episodes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.eagle.environment import EpisodeState, LLMEnvironment, Start, Step
from eagle_jax.eagle.evaluation.episodes import EpisodeRecord, Judging, evaluate_played
from eagle_jax.eagle.rollout import PolicyFn, Transitions, rollout


class Searched(NamedTuple):
    """`played`: of each step all actions, `width` one after the other for each start; `kept`: the steps of each start
    that the search went on with."""

    played: list[Transitions]
    kept: list[tuple[Step, ...]]


def search_greedily(
    policy_fn: PolicyFn,
    environment: LLMEnvironment,
    starts: Sequence[Start],
    reward_fn: Callable[[Sequence[EpisodeState]], np.ndarray],
    seed: int,
    *,
    width: int,
    horizon: int,
    batch_size: int,
) -> Searched:
    """In each of `horizon` states the policy's `width` actions are applied, and the search goes on from the text of
    highest reward, the present one among them (beam search of one beam).

    reward_fn: training reward [B] of states. batch_size: actions that are played at a time.
    """
    states = environment.reset(starts)
    played: list[Transitions] = []
    kept: list[tuple[Step, ...]] = [()] * len(states)
    for number in range(horizon):
        asked = [state for state in states for _ in range(width)]
        batches = [
            rollout(policy_fn, environment, asked[first : first + batch_size], 1, derive_seed(seed, number, first))[0]
            for first in range(0, len(asked), batch_size)
        ]
        of_all = Transitions(*([one for part in parts for one in part] for parts in zip(*batches, strict=True)))
        played.append(of_all)
        stay = np.asarray(reward_fn(states))
        gains = np.asarray(reward_fn(of_all.next_states)).reshape(len(states), width) - stay[:, None]
        for row, state in enumerate(states):
            place = row * width + int(np.argmax(gains[row]))
            if gains[row].max() > 0:
                states[row], kept[row] = of_all.next_states[place], (*kept[row], of_all.steps[place])
            else:
                states[row] = dataclasses.replace(state, step=number + 1)
    return Searched(played, kept)


def searched_records(judging: Judging, starts: Sequence[Start], seed: int, searched: Searched) -> list[EpisodeRecord]:
    """One per start: `steps` are those that it went on with, the other counts are of all."""
    records = evaluate_played(judging, starts, seed, searched.kept)
    width = len(searched.played[0].steps) // len(starts)
    found = []
    for row, record in enumerate(records):
        taken = [step for of_step in searched.played for step in of_step.steps[row * width : (row + 1) * width]]
        found.append(
            dataclasses.replace(
                record,
                num_steps=len(taken),
                environment_calls=sum(step.num_calls for step in taken),
                malformed=dict(Counter(step.malformed for step in taken if step.malformed is not None)),
            )
        )
    return found
