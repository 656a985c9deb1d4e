"""What is held out: ratings within every user, and anchors and users apart from the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.catalogue import Catalogue, RatingTable
from eagle_jax.data.ratings import split_ratings

PARTS = ("train", "validation", "test")


@settings
class SplitSettings:
    """What is held out: ratings of every user, anchors and users."""

    seed: int = setting("Of what is held out.", at_least=0)
    rating_fraction: float = setting("Of every user's ratings, held out.", at_least=0, at_most=1)
    validation_fraction: float = setting("Of the anchors and of the users.", at_least=0, at_most=1)
    test_fraction: float = setting("Of the anchors and of the users.", at_least=0, at_most=1)
    min_anchor_ratings: int = setting("An anchor is an entity with so many.", at_least=0)
    min_user_ratings: int = setting("A user of the episodes has so many.", at_least=0)

    def __post_init__(self):
        held_out = self.validation_fraction + self.test_fraction
        if held_out > 1:
            raise ValueError(f"validation_fraction + test_fraction must be at most 1, got {held_out}")


@dataclasses.dataclass(frozen=True)
class Split:
    """Indices of training, validation and test anchors and users, and the two rating tables."""

    train: RatingTable
    test: RatingTable
    entities: Mapping[str, np.ndarray]
    users: Mapping[str, np.ndarray]


def split_catalogue(catalogue: Catalogue, settings: SplitSettings) -> Split:
    """Seeded; ratings are split within users, anchors and users are split apart.

    Raises `UserError` when a part would be empty.
    """
    ratings = split_ratings(catalogue.ratings, held_out_fraction=settings.rating_fraction, seed=settings.seed)
    rng = np.random.default_rng(settings.seed)
    table = ratings.train
    entity_counts = np.bincount(table.item_index, minlength=table.num_items)
    user_counts = np.bincount(table.user_index, minlength=table.num_users)
    entities = np.flatnonzero(entity_counts >= settings.min_anchor_ratings)
    users = np.flatnonzero(user_counts >= settings.min_user_ratings)
    return Split(
        ratings.train, ratings.test, _parts(entities, "entities", settings, rng), _parts(users, "users", settings, rng)
    )


def _parts(indices: np.ndarray, what: str, settings: SplitSettings, rng: np.random.Generator) -> dict[str, np.ndarray]:
    order = rng.permutation(indices)
    num_validation = int(round(settings.validation_fraction * len(order)))
    num_test = int(round(settings.test_fraction * len(order)))
    parts = np.split(order, [len(order) - num_validation - num_test, len(order) - num_test])
    for name, part in zip(PARTS, parts, strict=True):
        if not len(part):
            raise UserError(
                f"config.split: no {name} {what} left of {len(indices)} with enough ratings; "
                "lower min_anchor_ratings, min_user_ratings or raise the fractions"
            )
    return {name: np.sort(part) for name, part in zip(PARTS, parts, strict=True)}
