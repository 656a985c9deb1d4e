"""Where a catalogue comes from: the settings of every source, and the one that is read."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import pkgutil
from typing import Any

import numpy as np

from eagle_jax import data
from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import SOURCES, Catalogue

for _module in pkgutil.walk_packages(data.__path__, f"{data.__name__}."):
    importlib.import_module(_module.name)  # which adds its source, if it has one


def _check(settings: CatalogueSettings) -> None:
    if settings.source not in SOURCES:
        raise ValueError(f"source {settings.source!r} is none of {', '.join(sorted(SOURCES))}")


# The name of a source, and the settings of each; those of the others are None, or left out.
CatalogueSettings = dataclasses.make_dataclass(
    "CatalogueSettings",
    [("source", str), *((name, SOURCES[name].settings | None, None) for name in sorted(SOURCES))],
    namespace={"__post_init__": _check},
    frozen=True,
    kw_only=True,
)


def load_catalogue(settings: CatalogueSettings) -> tuple[Catalogue, dict[str, Any]]:
    """The catalogue and what its loading found (bad rows among it), JSON-able."""
    chosen = getattr(settings, settings.source)
    if chosen is None:
        raise UserError(f"config.catalogue.{settings.source}: needed by source {settings.source!r}")
    return SOURCES[settings.source].read(chosen)


def fingerprint(catalogue: Catalogue) -> str:
    """Changes when any text or rating does: artifacts of other data are then refused."""
    digest = hashlib.sha256()
    for entity in catalogue.entities:
        digest.update(f"{entity.entity_id}\0{entity.title}\0{entity.description}\0".encode())
    ratings = catalogue.ratings
    for array in (ratings.user_index, ratings.item_index, ratings.rating):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
