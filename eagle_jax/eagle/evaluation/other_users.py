"""Agents that are told of another user than they are judged by: what they lose was personal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from eagle_jax.eagle.environment import Start
from eagle_jax.eagle.evaluation.episodes import EpisodeRecord


def with_profiles_of_others(starts: Sequence[Start]) -> list[Start]:
    """Each start with the profile of the next start's user who is another one; its own where there is no other."""
    around = [*starts, *starts]
    return [
        start._replace(
            profile=next(
                (other.profile for other in around[place:][: len(starts)] if other.user_index != start.user_index),
                start.profile,
            )
        )
        for place, start in enumerate(starts)
    ]


def other_users(starts: Sequence[Start]) -> dict[int, int]:
    """For each user the next one among the starts; itself where there is no other."""
    users = list(dict.fromkeys(start.user_index for start in starts))
    return dict(zip(users, [*users[1:], users[0]], strict=True))


def with_profiles_of(starts: Sequence[Start], records: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """What an agent was told wrongly is not what its texts are judged by."""
    return [dataclasses.replace(record, profile=start.profile) for record, start in zip(records, starts, strict=True)]
