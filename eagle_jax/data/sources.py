"""Where a catalogue comes from: the settings of every source, and the one that is read."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.minilens.world import MiniLensSettings, make_catalogue
from eagle_jax.data.movielens import read_movielens


@dataclasses.dataclass(frozen=True, kw_only=True)
class MovieLensFiles:
    """A folder in MovieLens' own layout, and a CSV with columns movieId and overview."""

    folder: str
    texts_file: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CatalogueSettings:
    """Where the entities and ratings come from; the settings of the other source are None."""

    source: Literal["minilens", "movielens"]
    minilens: MiniLensSettings | None
    movielens: MovieLensFiles | None


def load_catalogue(settings: CatalogueSettings) -> tuple[Catalogue, dict[str, Any]]:
    """The catalogue and what its loading found (bad rows among it), JSON-able."""
    chosen = getattr(settings, settings.source)
    if chosen is None:
        raise UserError(f"config.catalogue.{settings.source}: needed by source {settings.source!r}")
    if settings.source == "minilens":
        return make_catalogue(settings.minilens), {}
    catalogue, report = read_movielens(
        Path(settings.movielens.folder), Path(settings.movielens.texts_file)
    )
    return catalogue, dataclasses.asdict(report)


def fingerprint(catalogue: Catalogue) -> str:
    """Changes when any text or rating does: artifacts of other data are then refused."""
    digest = hashlib.sha256()
    for entity in catalogue.entities:
        digest.update(f"{entity.entity_id}\0{entity.title}\0{entity.description}\0".encode())
    ratings = catalogue.ratings
    for array in (ratings.user_index, ratings.item_index, ratings.rating):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
