"""Where a catalogue comes from: the settings of every source, and the one that is read."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from typing import Any

import numpy as np

from eagle_jax import data
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.catalogue import SOURCES, Catalogue

for _module in pkgutil.walk_packages(data.__path__, f"{data.__name__}."):
    importlib.import_module(_module.name)  # which adds its source, if it has one


class _CatalogueSettings:
    """Where the entities and ratings come from; the settings of other sources may be left out."""

    source: str = setting("The name of one of the sources.")

    def __post_init__(self):
        if self.source not in SOURCES:
            raise ValueError(f"source {self.source!r} is none of {', '.join(sorted(SOURCES))}")
        if getattr(self, self.source) is None:
            raise ValueError(f"{self.source}: needed by source {self.source!r}, got None")


for _name in sorted(SOURCES):
    _CatalogueSettings.__annotations__[_name] = SOURCES[_name].settings | None
    setattr(_CatalogueSettings, _name, setting("", default=None))
CatalogueSettings = settings(_CatalogueSettings)


def load_catalogue(settings: CatalogueSettings) -> tuple[Catalogue, dict[str, Any]]:
    """The catalogue and what its loading found (bad rows among it), JSON-able."""
    return SOURCES[settings.source].read(getattr(settings, settings.source))


def fingerprint(catalogue: Catalogue) -> str:
    """Changes when any text or rating does: artifacts of other data are then refused."""
    digest = hashlib.sha256()
    for entity in catalogue.entities:
        digest.update(f"{entity.entity_id}\0{entity.title}\0{entity.description}\0".encode())
    ratings = catalogue.ratings
    for array in (ratings.user_index, ratings.item_index, ratings.rating):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
