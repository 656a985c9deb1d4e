"""A policy over a list of actions, for models that cannot propose any.

The environment sees no user, so what an action makes of a text is the same for all of them. D_a is the mean of
E_D(x') - E_D(x) over what action a made of the candidates' entities, drawn towards the mean of all actions by one
observation of it. The user term of U is linear in E_D: for user u it rises by about z_u . D_a, and the head takes the
action of which this is largest. Nothing is learned but these means, at no environment call beside the candidates'.

Axis letters: `A` actions, `d` width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.data.film_fields import FieldChange
from eagle_jax.eagle.candidate_stage import CandidateSet
from eagle_jax.eagle.environment import EpisodeState
from eagle_jax.eagle.roles.action_choice import Chooser, choosing_policy
from eagle_jax.eagle.rollout import PolicyFn
from eagle_jax.eagle.world import EagleWorld


class ActionHead(NamedTuple):
    """displacements: D_a of each action [A, d]."""

    actions: tuple[str, ...]
    displacements: np.ndarray


def fit_action_head(world: EagleWorld, candidate_sets: Sequence[CandidateSet], listed: Collection[str]) -> ActionHead:
    """Of the listed actions that some entity's candidates have.

    Raises `UserError` where there is none.
    """
    moved: dict[str, list[np.ndarray]] = {}
    for row in candidate_sets:
        anchor = world.scorer.catalogue_embeddings[row.entity_index]
        for action, after, is_valid in zip(row.actions, row.next_embeddings, row.is_valid, strict=True):
            if is_valid and action in listed:
                moved.setdefault(action, []).append(after - anchor)
    if not moved:
        raise UserError("no listed action is among the candidates that could be applied: see candidates/facts.json")
    mean = np.mean([one for of_action in moved.values() for one in of_action], axis=0)
    displacements = [(np.sum(found, axis=0) + mean) / (len(found) + 1) for found in moved.values()]
    return ActionHead(tuple(moved), np.stack(displacements))


def head_chooser(head: ActionHead, field_changes: Mapping[str, FieldChange]) -> Chooser:
    """For each user (z_u [U, d]) the action that promises most, z_u . D_a; field_changes: of the environment."""

    def act_for(user_embeddings: np.ndarray) -> PolicyFn:
        def promises(states: Sequence[EpisodeState], seed: int) -> np.ndarray:
            return user_embeddings[[state.user_index for state in states]] @ head.displacements.T

        return choosing_policy(head.actions, promises, field_changes)

    return act_for
