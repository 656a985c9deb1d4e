"""Profiles from the ratings themselves: what a user rates above and below the own mean. Deterministic.

A value of a field (a genre, a decade) that n of the user's items have is worth
sum of (rating - the user's mean) / (n + shrinkage), an item rating - the user's mean.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.catalogue import Catalogue, Entity, RatingTable
from eagle_jax.data.prompts import quote_markers

_YEAR = re.compile(r"\d{4}")
_SIDES = {"likes": 1, "dislikes": -1}


@settings
class DataProfileSettings:
    """What profiles from the ratings tell."""

    fields: tuple[str, ...] = setting(
        "Of the items, their values separated by commas; years are told as decades.", distinct=True, may_be_empty=True
    )
    values_per_side: int = setting("Of each field, above and below the user's mean.", at_least=1)
    titles_per_side: int = setting("Of the items rated highest and lowest.", at_least=0)
    shrinkage: float = setting("So many ratings at the user's mean are added to those of a value.", at_least=0)


def check_fields(catalogue: Catalogue, settings: DataProfileSettings) -> None:
    """Raises `UserError` for a field that no item has."""
    known = dict.fromkeys(name for entity in catalogue.entities for name, value in entity.fields.items() if value)
    if missing := [name for name in settings.fields if name not in known]:
        raise UserError(
            f"data_profiles.fields: no {catalogue.entity_format.noun} of {catalogue.name} has {', '.join(missing)}; "
            f"there are: {', '.join(known) or 'none'}"
        )


def data_profile(catalogue: Catalogue, ratings: RatingTable, user: int, settings: DataProfileSettings) -> str:
    """ "likes: genres Drama, War; year 1970s; titles Heat (1995); Up (2009). dislikes: ...", the strongest first.

    Raises `UserError` for a user without a rating.
    """
    rated = np.flatnonzero(ratings.user_index == user)
    if not len(rated):
        raise UserError(f"user {ratings.user_names[user]!r} has no ratings to write a profile from")
    entities = [catalogue.entities[item] for item in ratings.item_index[rated]]
    stars = ratings.rating[rated].astype(np.float64)
    deviations = (stars - stars.mean()).tolist()
    told = [
        (field, _value_worths(entities, deviations, field, settings.shrinkage), settings.values_per_side, ", ")
        for field in settings.fields
    ]
    titles = [quote_markers(entity.title) for entity in entities]
    told.append(("titles", dict(zip(titles, deviations, strict=True)), settings.titles_per_side, "; "))
    return " ".join(f"{side}: {_tell_side(told, sign)}." for side, sign in _SIDES.items())


def _value_worths(
    entities: Sequence[Entity], deviations: Sequence[float], field: str, shrinkage: float
) -> dict[str, float]:
    """Of each value of the field among a user's items, in the order of their first items."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for entity, deviation in zip(entities, deviations, strict=True):
        for value in entity.fields.get(field, "").split(","):
            if value := quote_markers(value.strip()):
                found[f"{value[:3]}0s" if _YEAR.fullmatch(value) else value].append(deviation)
    return {value: sum(of_value) / (len(of_value) + shrinkage) for value, of_value in found.items()}


def _tell_side(told: Sequence[tuple[str, Mapping[str, float], int, str]], sign: int) -> str:
    """What is above (sign 1) or below (-1) the mean: of each name so many values, with what stands between them."""
    parts = []
    for name, worths, count, between in told:
        best = sorted((value for value in worths if sign * worths[value] > 0), key=lambda value: -sign * worths[value])
        if best[:count]:
            parts.append(f"{name} {between.join(best[:count])}")
    return "; ".join(parts) or "nothing in particular"
