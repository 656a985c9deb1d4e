"""Where a catalogue comes from: the settings of every source, and the one that is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.base.settings import setting, settings
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.minilens.world import MiniLensSettings, make_catalogue
from eagle_jax.data.readers.amazon import AmazonFiles, read_amazon
from eagle_jax.data.readers.files import OwnFiles, read_own_files
from eagle_jax.data.readers.items import LoadReport
from eagle_jax.data.readers.movielens import MovieLensFiles, read_movielens
from eagle_jax.data.readers.tfds import PreparedSets, read_prepared_sets


class Source(NamedTuple):
    """Where a catalogue can come from: the class of its settings, and what reads it, with what its
    loading found; a catalogue that is made has nothing to report."""

    settings: type
    read: Callable[[Any], tuple[Catalogue, LoadReport | None]]


# By the names that config.catalogue.source may have.
SOURCES: dict[str, Source] = {
    "amazon": Source(AmazonFiles, read_amazon),
    "files": Source(OwnFiles, read_own_files),
    "minilens": Source(MiniLensSettings, lambda settings: (make_catalogue(settings), None)),
    "movielens": Source(
        MovieLensFiles,
        lambda files: read_movielens(
            Path(files.folder), Path(files.texts_file) if files.texts_file else None, files.text
        ),
    ),
    "tfds": Source(PreparedSets, read_prepared_sets),
}


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


def read_source(settings: CatalogueSettings) -> tuple[Catalogue, LoadReport | None]:
    """The catalogue and what its loading found."""
    return SOURCES[settings.source].read(getattr(settings, settings.source))


def load_catalogue(settings: CatalogueSettings) -> tuple[Catalogue, dict[str, Any]]:
    """The catalogue and what its loading found (bad rows among it), JSON-able."""
    catalogue, report = read_source(settings)
    return catalogue, report.as_json() if report else {}


def fingerprint(catalogue: Catalogue) -> str:
    """Changes when any text or rating does: artifacts of other data are then refused."""
    digest = hashlib.sha256()
    for entity in catalogue.entities:
        digest.update(f"{entity.entity_id}\0{entity.title}\0{entity.description}\0".encode())
    ratings = catalogue.ratings
    for array in (ratings.user_index, ratings.item_index, ratings.rating):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
