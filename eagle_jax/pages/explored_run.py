"""A finished run as it is explored: its items and users as places on a map, and found by words.

Axis letters: `N` items, `U` users who have a profile, `d` domain width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import parse_blocks
from eagle_jax.eagle.policy import make_policy_fn
from eagle_jax.eagle.rollout import PolicyFn
from eagle_jax.eagle.serving.agent import Agent
from eagle_jax.eagle.serving.played import PlayedEpisodes
from eagle_jax.embeddings.scorer import TRAIN
from eagle_jax.language_model.generation import TextGenerator
from eagle_jax.reports.principal_plane import PrincipalPlane, fit_principal_plane

ITEMS, USERS = "items", "users"
BY_AGENT, BY_REFERENCE = "agent", "reference"


class Findable(NamedTuple):
    """What an item or a user is found by, in one case: its id, its title, and all its words."""

    name: str
    title: str
    words: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ExploredRun:
    """An agent with the reference policy that its training began from.

    plane: of the items' embeddings by the training encoder. positions: "items" [N, 2] and "users" [U, 2] on it,
    float32. users: index of each of the U users in the ratings. seed: of all that is played. played: by the run's
    evaluation; None: what it has played is not shown.
    """

    agent: Agent
    reference: TextGenerator
    seed: int
    plane: PrincipalPlane
    positions: dict[str, np.ndarray]
    users: Sequence[int]
    played: PlayedEpisodes | None = None

    def players(self, embeddings: np.ndarray) -> dict[str, PolicyFn]:
        """Who may act for users of these embeddings [U, d]."""
        agent, environment = self.agent, self.agent.environment
        settings = environment.book, environment.entity_format, agent.policy_sampling
        return {
            BY_AGENT: agent.policy_fn(agent.policy, embeddings),
            BY_REFERENCE: make_policy_fn(self.reference, *settings),
        }

    def titles(self, kind: str, place: int) -> dict[str, str]:
        """Id and title of an item, or of a user, whom the profile tells."""
        if kind == ITEMS:
            entity = self.agent.catalogue.entities[place]
            return {"id": entity.entity_id, "title": entity.title}
        index = self.users[place]
        return {"id": self.agent.catalogue.ratings.user_names[index], "title": self.agent.users.profiles[index]}

    def text(self, kind: str, place: int) -> str:
        """An item's marked text; a user's profile."""
        if kind == ITEMS:
            return self.agent.catalogue.entities[place].description
        return self.agent.users.profiles[self.users[place]]

    @functools.cached_property
    def findable(self) -> dict[str, list[Findable]]:
        """By kind: all of it in the order of the places, made at the first search."""
        items = findable_items(self.agent.catalogue)
        names, profiles = self.agent.catalogue.ratings.user_names, self.agent.users.profiles
        return {ITEMS: items, USERS: [_findable(names[user], "", profiles[user]) for user in self.users]}


def explored_run(
    agent: Agent, reference: TextGenerator, seed: int, played: PlayedEpisodes | None = None
) -> ExploredRun:
    """With the map that the agent's items and users make."""
    catalogue = np.asarray(agent.scorers[TRAIN].catalogue_embeddings)
    plane = fit_principal_plane(catalogue)
    users = sorted(agent.users.profiles)
    embeddings = {ITEMS: catalogue, USERS: np.asarray(agent.users.space.wals.user_embeddings)[users]}
    positions = {kind: plane.project(of_kind).astype(np.float32) for kind, of_kind in embeddings.items()}
    return ExploredRun(
        agent=agent, reference=reference, seed=seed, plane=plane, positions=positions, users=users, played=played
    )


def findable_items(catalogue: Catalogue) -> list[Findable]:
    """All items, in their order."""
    blocks = catalogue.entity_format.blocks
    return [
        _findable(one.entity_id, one.title, *parse_blocks(one.description, blocks, may_be_empty=True).values())
        for one in catalogue.entities
    ]


def find(asked: str, among: Sequence[Findable]) -> list[int]:
    """Places of what was asked for, the best first and of equal ones in their order.

    First an id that is what was asked for, then titles that begin with it, titles that hold it, and all that has
    every one of its words, or a longer word that holds it, in title or text.
    """
    whole = _one_case(asked)
    parts = whole.split()
    ranks = {place: rank for place, one in enumerate(among) if (rank := _rank(whole, parts, one)) is not None}
    return sorted(ranks, key=ranks.__getitem__)


def _rank(whole: str, parts: Sequence[str], one: Findable) -> int | None:
    if not parts:
        return None
    if one.name == whole:
        return 0
    if whole in one.title:
        return 1 if one.title.startswith(whole) else 2
    return 3 if all(part in one.words for part in parts) else None


def _findable(name: str, title: str, *texts: str) -> Findable:
    return Findable(_one_case(name), _one_case(title), _one_case(" ".join([title, *texts])))


def _one_case(text: str) -> str:
    return " ".join(text.casefold().split())
