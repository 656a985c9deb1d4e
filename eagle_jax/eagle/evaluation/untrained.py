"""What EAGLE has to beat without any training: instructions of a list, and a rule that changes fields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eagle_jax.data.film_fields import field_edits
from eagle_jax.eagle.environment import EpisodeState, Start, Step, written_actions
from eagle_jax.eagle.rollout import PolicyFn
from eagle_jax.eagle.world import EagleWorld
from eagle_jax.language_model.generation import Generation


def listed_policy(actions: Sequence[str]) -> PolicyFn:
    """One of the actions for each state, drawn evenly: of one action always that."""

    def policy_fn(states: Sequence[EpisodeState], seed: int) -> list[Generation]:
        drawn = np.random.default_rng(seed).integers(len(actions), size=len(states))
        return written_actions([actions[place] for place in drawn])

    return policy_fn


def best_field_changes(world: EagleWorld, starts: Sequence[Start], num_changes: int) -> list[Step]:
    """The anchor of each start after so many changes of a genre or the decade (`field_edits`), each the one that the
    reward says is best; fewer where none is better. It is given the reward itself, and calls no environment."""
    steps = []
    for start in starts:
        text = start.description
        for _ in range(num_changes):
            texts = [text, *field_edits(text).values()]
            users = np.full(len(texts), start.user_index, np.int32)
            utility = world.scorer.score(texts, users).utility
            text = texts[int(np.argmax(world.with_quality(utility, texts, [start.description] * len(texts))))]
        steps.append(Step(action=None, description=text, malformed=None))
    return steps
