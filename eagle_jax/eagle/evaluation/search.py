"""Greedy search with a policy: what asking the reward after every step is worth, instead of after whole episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.eagle.environment import EpisodeState, LLMEnvironment, Start, Step
from eagle_jax.eagle.evaluation.episodes import EpisodeRecord, Judging, costs, evaluate_played
from eagle_jax.eagle.rollout import PolicyFn, Transitions, rollout


class Searched(NamedTuple):
    """`played`: of each step all actions, `width` one after the other for each start; `kept`: the steps of each start
    that the search went on with."""

    played: list[Transitions]
    kept: list[tuple[Step, ...]]


def search_greedily(
    judging: Judging,
    starts: Sequence[Start],
    seed: int,
    policy_fn: PolicyFn,
    environment: LLMEnvironment,
    *,
    width: int,
    horizon: int,
    batch_size: int,
) -> Searched:
    """In each of `horizon` states the policy's `width` actions are applied, `batch_size` at a time, and the search goes
    on from the text of highest training reward, the present one among them (beam search of one beam)."""

    def rewards(states: Sequence[EpisodeState]) -> np.ndarray:
        """[starts, states of each]."""
        times = len(states) // len(starts)
        anchors = [start.description for start in starts for _ in range(times)]
        users = np.array([state.user_index for state in states])
        return judging.rewards([state.description for state in states], users, anchors).reshape(-1, times)

    states = environment.reset(starts)
    reached = rewards(states)[:, 0].copy()
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
        found = rewards(of_all.next_states)
        for row, best in enumerate(found.argmax(axis=1)):
            of_row = slice(row * width, (row + 1) * width)
            place = of_row.start + best
            # The same text, scored in another batch, may be better by rounding.
            is_new = of_all.next_states[place].description != states[row].description
            if is_new and found[row, best] > reached[row]:
                states[row], reached[row] = of_all.next_states[place], found[row, best]
                kept[row] = (*kept[row], of_all.steps[place])
            else:
                tried = (step.action for step in of_all.steps[of_row] if step.action is not None)
                states[row] = dataclasses.replace(states[row], step=number + 1, taken=(*states[row].taken, *tried))
    return Searched(played, kept)


def searched_records(judging: Judging, starts: Sequence[Start], seed: int, searched: Searched) -> list[EpisodeRecord]:
    """One per start: `steps` are those that it went on with, the other counts are of all."""
    width = len(searched.played[0].steps) // len(starts)
    return [
        dataclasses.replace(
            record,
            **costs([step for of_all in searched.played for step in of_all.steps[row * width : (row + 1) * width]]),
        )
        for row, record in enumerate(evaluate_played(judging, starts, seed, searched.kept))
    ]
