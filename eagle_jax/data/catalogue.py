"""What every layer speaks about: entities, catalogues and ratings.

Axis letters: `R` ratings, `N` entities, `U` users.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from eagle_jax.data.prompts import EntityFormat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entity:
    """An item as text; `description` is the marked text that `prompts.render_blocks` writes."""

    entity_id: str
    title: str
    description: str
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)  # beside the text, by name


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatingTable:
    """Ratings as parallel arrays [R]; the names map an index back to the data's own id."""

    user_names: tuple[str, ...]
    item_names: tuple[str, ...]
    user_index: np.ndarray
    item_index: np.ndarray
    rating: np.ndarray

    @property
    def num_users(self) -> int:
        return len(self.user_names)

    @property
    def num_items(self) -> int:
        return len(self.item_names)

    def __len__(self) -> int:
        return len(self.rating)

    def take(self, rows: np.ndarray) -> RatingTable:
        """The same users and items with a subset of the ratings."""
        return dataclasses.replace(
            self, user_index=self.user_index[rows], item_index=self.item_index[rows], rating=self.rating[rows]
        )


@dataclasses.dataclass(frozen=True)
class EditOutcome:
    """What an edit did to a text, as judged by a world that can read its own texts."""

    well_formed: bool
    followed: bool  # the action asks for changes that can be read, and every one is there
    kept: float  # share of the facts the action does not mention that are unchanged


class EditOracle(Protocol):
    """A world that can read its own texts; only synthetic catalogues have one."""

    def single_edits(self, description: str) -> list[str]:
        """Every text that one edit of `description` can lead to."""

    def judge_edit(self, before: str, action: str, after: str) -> EditOutcome:
        """Did the edit do what `action` says, and nothing else?"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Catalogue:
    """D: the existing entities with their ratings; position in `entities` is the item index."""

    name: str
    entities: tuple[Entity, ...]
    ratings: RatingTable
    tags: tuple[tuple[int, int, str], ...]  # (user index, item index, tag)
    entity_format: EntityFormat
    is_implicit: bool = False  # the ratings are log2(1 + weight) of what users did, not what they said
    oracle: EditOracle | None = None

    def item_names(self, index: int) -> dict[str, str]:
        """What artifacts tell beside the index of an item."""
        entity = self.entities[index]
        return {"item_id": entity.entity_id, "title": entity.title}

    def user_names(self, index: int) -> dict[str, str]:
        """What artifacts tell beside the index of a user."""
        return {"user_id": self.ratings.user_names[index]}

    @property
    def descriptions(self) -> Sequence[str]:
        return [entity.description for entity in self.entities]
