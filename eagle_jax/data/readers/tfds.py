"""Data sets of TFDS: any that is prepared, by a mapping of its features to columns, and MovieLens as TFDS has it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.readers.files import OwnFiles, read_own_files
from eagle_jax.data.readers.items import LoadReport
from eagle_jax.data.readers.prepared_data import INSTALL, is_prepared

_SCALES = {"100k": "1 to 5", "1m": "1 to 5", "20m": "0.5 to 5", "25m": "0.5 to 5", "latest-small": "0.5 to 5"}


@settings
class PreparedSets:
    """Data sets that TFDS has prepared; none is downloaded here."""

    data_dir: str = setting("Where TFDS prepares.", default="~/tensorflow_datasets")
    movielens: Literal["", "100k", "1m", "20m", "25m", "latest-small"] = setting(
        "TFDS' MovieLens; empty: what `files` says.", default=""
    )
    files: OwnFiles | None = setting("", default=None)

    def __post_init__(self):
        if bool(self.movielens) == bool(self.files):
            raise ValueError("exactly one of movielens and files says what is read")


def read_prepared_sets(sets: PreparedSets) -> tuple[Catalogue, LoadReport]:
    """What `read_own_files` makes of prepared folders; a file of `files` is then called by the path of its folder or,
    below `data_dir`, by `name`, `name/config` or one of these with `/1.0.0`.

    Raises UserError with the command that prepares what is not there.
    """
    files, data_dir = sets.files or _movielens(sets.movielens), Path(sets.data_dir).expanduser()
    names = {key: getattr(files, key) for key in ("items", "ratings", "texts_file")}
    folders = {key: _folder(data_dir, name) for key, name in names.items() if name}
    catalogue, report = read_own_files(dataclasses.replace(files, **{key: str(path) for key, path in folders.items()}))
    return dataclasses.replace(catalogue, name=folders["items"].parent.name), report


def _movielens(size: str) -> OwnFiles:
    return OwnFiles(
        items=f"movielens/{size}-movies",
        item_id="movie_id",
        title="movie_title",
        text="{movie_title}[. Genres: {movie_genres}]",
        ratings=f"movielens/{size}-ratings",
        user="user_id",
        item="movie_id",
        feedback="explicit",
        rating="user_rating",
        scale=_SCALES[size],
        timestamp="timestamp",
        entity="film",
    )


def _folder(data_dir: Path, name: str) -> Path:
    """The prepared folder of a data set, of several versions the highest."""
    own = Path(name).expanduser()
    if is_prepared(own):
        return own
    versions = [path.parent for path in (data_dir / name).glob("*/dataset_info.json")]
    if is_prepared(data_dir / name):
        return data_dir / name
    if versions:
        return max(versions, key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()])
    # Builders that come with a package import importlib_resources, which TFDS does not bring; MovieLens' has no name
    # before it was imported, and reads its files by TensorFlow.
    packages, first = f"{INSTALL} importlib_resources", ""
    if name.startswith("movielens/"):
        packages, first = f"{packages} tensorflow", "tfds.structured.Movielens; "
    raise UserError(
        f"{data_dir / name}: TFDS has prepared nothing there; expected a folder with dataset_info.json. Nothing is "
        f'downloaded in a run: prepare it once, after {packages}, by python -c "import tensorflow_datasets as tfds; '
        f"{first}tfds.builder('{name}', data_dir='{data_dir}', file_format='array_record').download_and_prepare()\""
    )
