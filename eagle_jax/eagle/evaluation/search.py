"""Greedy search with a policy: what asking the reward after every step is worth, instead of after whole episodes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.eagle.environment import EpisodeState, LLMEnvironment, Start, Step
from eagle_jax.eagle.evaluation.episodes import EpisodeRecord, Judging, evaluate_played
from eagle_jax.eagle.rollout import PolicyFn, rollout


def search_greedily(
    judging: Judging,
    starts: Sequence[Start],
    seed: int,
    policy_fn: PolicyFn,
    environment: LLMEnvironment,
    reward_fn: Callable[[Sequence[EpisodeState]], np.ndarray],
    *,
    width: int,
    horizon: int,
    batch_size: int,
) -> list[EpisodeRecord]:
    """One record per start: in each of `horizon` states the policy's `width` actions are applied, and the search goes
    on from the text of highest reward, the present one among them (beam search of one beam).

    reward_fn: training reward [B] of states. `steps` are those that it went on with; `num_steps` counts all.
    """
    states = environment.reset(starts)
    paths: list[list[Step]] = [[] for _ in starts]
    taken: list[list[Step]] = [[] for _ in starts]
    for number in range(horizon):
        asked = [state for state in states for _ in range(width)]
        steps: list[Step] = []
        for first in range(0, len(asked), batch_size):
            of_batch = asked[first : first + batch_size]
            (played,) = rollout(policy_fn, environment, of_batch, 1, derive_seed(seed, number, first))
            steps += played.steps
        after = [state.after(step) for state, step in zip(asked, steps, strict=True)]
        stay = np.asarray(reward_fn(states))
        gains = np.asarray(reward_fn(after)).reshape(len(states), width) - stay[:, None]
        for row, state in enumerate(states):
            of_row = steps[row * width : (row + 1) * width]
            taken[row] += of_row
            best = int(np.argmax(gains[row]))
            goes_on = gains[row, best] > 0
            states[row] = dataclasses.replace(after[row * width + best] if goes_on else state, step=number + 1)
            paths[row] += [of_row[best]] if goes_on else []
    records = evaluate_played(judging, starts, seed, [tuple(path) for path in paths])
    return [
        dataclasses.replace(
            record,
            num_steps=len(of_row),
            environment_calls=sum(step.num_calls for step in of_row),
            malformed=dict(Counter(step.malformed for step in of_row if step.malformed is not None)),
        )
        for record, of_row in zip(records, taken, strict=True)
    ]
