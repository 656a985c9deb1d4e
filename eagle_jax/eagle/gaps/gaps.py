"""What is missing, for whom: regions of unmet demand with users, items and a text, by name.

Axis letters: `N` items, `M` imagined texts, `U` users, `d` domain width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster.vq import kmeans2

from eagle_jax.data.catalogue import Catalogue
from eagle_jax.eagle.gaps.settings import GapSettings
from eagle_jax.eagle.gaps.unmet_demand import (
    Wants,
    as_wide,
    by_ratings,
    distances_between,
    largest_apart,
    unmet_demand,
    wants,
)
from eagle_jax.eagle.serving.proposals import nearest_items
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN, Scorer

_NUM_NAMED = 5  # items near a region, users who miss it
_NUM_LIKED = 3  # titles that a group of users is told by


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """A region where users want more than there is.

    rank: by unmet demand in deviations of chance (excess), from 1. expected, found: items in the region. demand,
    supply, unmet: of `unmet_demand`, in items per user. chance: share of complete catalogues that show as much. groups:
    of users, who misses most first.
    """

    rank: int
    text: str
    unmet: float
    excess: float
    demand: float
    supply: float
    expected: float
    found: int
    radius: float  # within which users' predicted ratings of a text and of the centre differ, root mean square
    chance: float
    is_told_apart: bool
    num_users: int  # who want the text
    users: tuple[str, ...]  # who miss most
    groups: tuple[Mapping[str, Any], ...]  # {"group", "num_users", "unmet": of each, "likes": titles}
    nearest: tuple[Mapping[str, Any], ...]  # {"item_id", "title", "distance"}, distances as of `radius`
    better_than: Mapping[str, float]  # encoder -> share of the items that the first group likes less

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Group(NamedTuple):
    """Users of similar taste, the places of theirs, and titles of what they like more than others do."""

    users: np.ndarray
    likes: tuple[str, ...]


def find_gaps(
    catalogue: Catalogue, scorers: Mapping[str, Scorer], imagined: Sequence[str], settings: GapSettings
) -> list[Gap]:
    """The regions of largest unmet demand, the largest first, none in another.

    scorers: {TRAIN, HELD_OUT}. imagined: texts of what could exist.
    """
    scorer = scorers[TRAIN]
    users, items = (np.asarray(of, np.float64) for of in (scorer.user_embeddings, scorer.catalogue_embeddings))
    embeddings = np.asarray(scorer.embed(imagined), np.float64)
    places = as_wide(users, embeddings, items)
    wanted = wants(users, places, items, settings.wanted_share)
    points, of_items = by_ratings(users, places), by_ratings(users, items)
    balls = unmet_demand(wanted, points, of_items, settings)
    groups = group_tastes(users, embeddings, items, catalogue, settings)
    gaps = []
    for rank, ball in enumerate(largest_apart(balls, points, settings.num_regions), start=1):
        center, radius = points[balls.center[ball]], balls.radius[ball]
        near, held = (np.flatnonzero(distances_between(center[None], of)[0] <= radius) for of in (points, of_items))
        misses = _missed(users, places, items, wanted, near, held)
        ranked = sorted(range(len(groups)), key=lambda one: -misses[groups[one].users].sum())
        first = groups[ranked[0]].users
        text = near[np.argmax(scorer.utilities_of_users(np.float32(embeddings[near]), first).mean(axis=1))]
        nearest = nearest_items(by_ratings(users, embeddings[[text]]), of_items, catalogue.entities, _NUM_NAMED)
        gaps.append(
            Gap(
                rank=rank,
                text=imagined[text],
                unmet=float(balls.unmet[ball]),
                excess=float(balls.excess[ball]),
                demand=float(balls.demand[ball]),
                supply=float(balls.supply[ball]),
                expected=len(items) * len(near) / len(points),
                found=int(balls.num_items[ball]),
                radius=float(radius),
                chance=float(balls.chance[ball]),
                is_told_apart=bool(balls.chance[ball] <= settings.level),
                num_users=int((users @ places[text] >= wanted.thresholds).sum()),
                users=tuple(catalogue.ratings.user_names[user] for user in np.argsort(-misses)[:_NUM_NAMED]),
                groups=tuple(_told(one, groups[one], misses) for one in ranked),
                nearest=tuple(nearest[0]),
                better_than={name: _better_than(scorers[name], imagined[text], first) for name in (TRAIN, HELD_OUT)},
            )
        )
    return gaps


def _missed(
    users: np.ndarray, places: np.ndarray, items: np.ndarray, wanted: Wants, near: np.ndarray, held: np.ndarray
) -> np.ndarray:
    """Items that each user [U] would want and that are not there, of a ball of imagined texts `near`, items `held`."""
    least = wanted.thresholds[:, None]
    would, has = ((users @ of.T >= least).sum(axis=1) for of in (places[near], items[held]))
    return len(items) * would / len(places) - has


def group_tastes(
    users: np.ndarray, embeddings: np.ndarray, items: np.ndarray, catalogue: Catalogue, settings: GapSettings
) -> list[Group]:
    """Users [U, d] by k-means of the directions of their tastes: of what they think of imagined texts [M, d]."""
    values, vectors = np.linalg.eigh(np.cov(embeddings.T))
    tastes = users @ (vectors * np.sqrt(np.maximum(values, 0)))
    tastes /= np.maximum(np.linalg.norm(tastes, axis=1, keepdims=True), 1e-12)
    count = min(settings.num_groups, len(users))
    rng = np.random.default_rng(settings.seed)
    _, of_user = kmeans2(tastes, count, minit="++", rng=rng)
    groups = []
    for number in range(count):
        members = np.flatnonzero(of_user == number)
        if len(members):
            more = items @ (users[members].mean(axis=0) - users.mean(axis=0))
            best = np.argsort(-more, kind="stable")[:_NUM_LIKED]
            groups.append(Group(members, tuple(catalogue.entities[place].title for place in best)))
    return groups


def _told(number: int, group: Group, misses: np.ndarray) -> dict[str, Any]:
    return {
        "group": number + 1,
        "num_users": len(group.users),
        "unmet": float(misses[group.users].mean()),
        "likes": list(group.likes),
    }


def _better_than(scorer: Scorer, text: str, users: Sequence[int]) -> float:
    """Share of the items that the mean of some users likes less than a text."""
    mean = scorer.user_embeddings[users].mean(axis=0)
    return float(np.mean(np.asarray(scorer.catalogue_embeddings) @ mean < scorer.embed([text])[0] @ mean))
