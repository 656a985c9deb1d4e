"""Policies that no language model plays: they choose among known actions by what each promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eagle_jax.data.film_fields import FieldChange
from eagle_jax.eagle.environment import EpisodeState, written_actions
from eagle_jax.eagle.rollout import PolicyFn
from eagle_jax.language_model.generation import Generation

# Embeddings of users [U, d] -> what acts for them.
Chooser = Callable[[np.ndarray], PolicyFn]
# (states, seed) -> what each action promises the user of each state [B, A].
Promises = Callable[[Sequence[EpisodeState], int], np.ndarray]


def choosing_policy(actions: Sequence[str], promises: Promises, field_changes: Mapping[str, FieldChange]) -> PolicyFn:
    """For each state the action that promises most, among those that were not taken before and leave no field as it
    is; where a text and user come again in one call, as for a search, the next best one.

    field_changes: of the environment.
    """

    def is_of_use(action: str, state: EpisodeState) -> bool:
        change = field_changes.get(action)
        return action not in state.taken and (change is None or change(state.description) != state.description)

    def policy_fn(states: Sequence[EpisodeState], seed: int) -> list[Generation]:
        chosen: list[str] = []
        before: Counter[tuple[str, int]] = Counter()
        for state, order in zip(states, np.argsort(-promises(states, seed), axis=1, kind="stable"), strict=True):
            ranked = [actions[place] for place in order]
            of_use = [action for action in ranked if is_of_use(action, state)] or ranked
            asked = (state.description, state.user_index)
            chosen.append(of_use[min(before[asked], len(of_use) - 1)])
            before[asked] += 1
        return written_actions(chosen)

    return policy_fn
