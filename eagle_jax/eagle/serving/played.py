"""The episodes that a finished run's evaluation has played, by row; read from its records where they are asked for."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eagle_jax.base.atomic_files import verify
from eagle_jax.base.errors import CorruptArtifactError, UserError
from eagle_jax.base.work_directory import MANIFEST
from eagle_jax.eagle.evaluation.episodes import EpisodeRecord
from eagle_jax.embeddings.scorer import TRAIN
from eagle_jax.stages.finished_run import AGAIN

_RECORDS = Path("evaluation", "records.jsonl")
_FIELDS = [field.name for field in dataclasses.fields(EpisodeRecord)]


class Played(NamedTuple):
    """An episode in the list of its row: its seed and start, its gain by the training encoder, where its record is."""

    seed: int
    entity_index: int
    user_index: int
    gain: float
    offset: int


@dataclasses.dataclass(frozen=True)
class PlayedEpisodes:
    """workdir: of a finished run of experiments.eagle."""

    workdir: Path

    @functools.cached_property
    def rows(self) -> Mapping[str, Sequence[Played]]:
        """Title of a row -> its episodes, the one of largest gain first; the records are read through once.

        Raises `UserError` where they are not there, or not as they were written.
        """
        path = self.workdir / _RECORDS
        try:
            manifest = json.loads((path.parent / MANIFEST).read_bytes())
            verify(path.parent, {path.name: manifest["files"][path.name]}, MANIFEST)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path.parent}: cannot be read: {error}; {AGAIN}") from error
        rows: dict[str, list[Played]] = {}
        offset = 0
        with path.open("rb") as file:
            for line in file:
                value = _value(path, line)
                scores = value["scores"][TRAIN]
                gain = scores[-1]["utility"] - scores[0]["utility"]
                played = Played(value["seed"], value["entity_index"], value["user_index"], gain, offset)
                rows.setdefault(value["row"], []).append(played)
                offset += len(line)
        return {row: sorted(of_row, key=lambda one: -one.gain) for row, of_row in rows.items()}

    def record(self, row: str, place: int) -> EpisodeRecord:
        """The episode at a place in the list of its row; raises `UserError` that names what there is not."""
        if row not in self.rows:
            raise UserError(f"row={row}: the evaluation has {', '.join(self.rows)}")
        of_row = self.rows[row]
        if not 0 <= place < len(of_row):
            raise UserError(f"place={place}: row {row} has the episodes 0 to {len(of_row) - 1}")
        path = self.workdir / _RECORDS
        with path.open("rb") as file:
            file.seek(of_row[place].offset)
            value = _value(path, file.readline())
        return EpisodeRecord.from_json({name: value[name] for name in _FIELDS if name in value})


def _value(path: Path, line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError as error:
        raise CorruptArtifactError(f"{path}: cannot be read: {error}; {AGAIN}") from error
