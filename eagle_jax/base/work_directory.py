"""Artifacts on disk: one folder per stage, written whole, checked when read, never overwritten.

A stage's folder holds `SETTINGS.json` (what it was begun with), its files, `parts/` (pieces of a
long computation) and, once done, `MANIFEST.json`: the size and SHA-256 of every file, the settings,
their digest, their schema and what made them. The digest covers the settings and the digests of the
stages that this one read from, so a change anywhere upstream shows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.base import schema
from eagle_jax.base.atomic_files import PARTIAL, checksums, remove_partial, report_faults, verify, write_atomically
from eagle_jax.base.errors import CorruptArtifactError, StaleArtifactError
from eagle_jax.base.processes import from_primary
from eagle_jax.base.provenance import provenance
from eagle_jax.base.settings import told

SETTINGS = "SETTINGS.json"
MANIFEST = "MANIFEST.json"
EXPERIMENT = "experiment.json"  # beside the stages: whose work directory it is
_SCHEMA = "schema"


class StageFolder:
    """The artifacts of one stage; see the module's docstring for the layout.

    Nothing is created before something is written. Raises `StaleArtifactError` for a folder of a
    schema that cannot be gone on from (see `schema`).
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], depends_on: Sequence[StageFolder] = ()):
        self.path = path
        self.name = path.name
        settings = _as_json(settings)
        found = from_primary(f"look at the schema of {path}", self._found_schema)
        self._schema = found or schema.oldest_alike(self.name, settings)
        self._inputs = {
            "settings": schema.settings_of(self._schema, path, settings),
            "depends_on": {stage.name: stage.digest for stage in depends_on},
        }
        self.digest = _digest(self._inputs)
        self._settings_match = False

    def _found_schema(self) -> int | None:
        """That of what is there, None where there is nothing."""
        if not (self.path / SETTINGS).exists():
            return None
        return self._read_settings().get(_SCHEMA, schema.FIRST_SCHEMA)

    def is_complete(self) -> bool:
        """True when the stage is done and every file is as it was written.

        Raises `StaleArtifactError` (made with other settings) or `CorruptArtifactError`.
        """
        return from_primary(f"look at {self.path}", self._is_complete)

    def _is_complete(self) -> bool:
        self._refuse_other_settings()
        if not (self.path / MANIFEST).exists():
            return False
        manifest = self._read_object(MANIFEST, ("files",))
        verify(self.path, manifest["files"], MANIFEST)
        return True

    def begin(self) -> None:
        """Claims the folder for these settings: every write does; checkpoints and metrics need it.

        Raises `StaleArtifactError` or `CorruptArtifactError` when it holds anything else.
        """
        from_primary(f"begin {self.path}", self._begin)

    def _begin(self) -> None:
        self._refuse_other_settings()
        if (self.path / MANIFEST).exists():
            raise RuntimeError(f"{self.path} is complete: nothing more is written into it")
        if not (self.path / SETTINGS).exists():
            with report_faults(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            # The first version is not named: there was none yet.
            named = {} if self._schema == schema.FIRST_SCHEMA else {_SCHEMA: self._schema}
            settings = _pretty(named | self._inputs)
            write_atomically(self.path / SETTINGS, lambda file: file.write(settings))

    def finish(self) -> None:
        """Writes the manifest, last of all: from now on the stage is complete."""
        from_primary(f"finish {self.path}", self._finish)

    def _finish(self) -> None:
        self._begin()
        remove_partial(self.path)
        manifest = {
            _SCHEMA: self._schema,
            **self._inputs,
            "digest": self.digest,
            "provenance": provenance(),
            "files": checksums(self.path),
        }
        self._write_bytes(MANIFEST, _pretty(manifest))

    def write_arrays(self, file: str, arrays: Mapping[str, Any]) -> None:
        """Writes named arrays as `.npz`; keys and bfloat16 have to be converted by the caller."""
        plain = {name: np.asarray(array) for name, array in arrays.items()}
        for name, array in plain.items():
            if array.dtype.kind not in "biufcU":
                raise TypeError(f"{file}: array {name!r} of dtype {array.dtype} has no .npz form")
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **plain)
        self._write_bytes(file, buffer.getvalue())

    def read_arrays(self, file: str) -> dict[str, np.ndarray]:
        """The arrays of `write_arrays`; raises `CorruptArtifactError`."""
        data = self._read_bytes(file)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                return dict(archive)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise self._corrupt(file, error) from error

    def write_json(self, file: str, value: Any) -> None:
        """Writes a JSON value."""
        self._write_bytes(file, _pretty(value))

    def read_json(self, file: str) -> Any:
        """The value of `write_json`; raises `CorruptArtifactError`."""
        try:
            return json.loads(self._read_bytes(file))
        except (ValueError, RecursionError) as error:
            raise self._corrupt(file, error) from error

    def write_jsonl(self, file: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes one JSON object per line."""
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._write_bytes(file, "".join(lines).encode())

    def read_jsonl(self, file: str) -> list[dict[str, Any]]:
        """The rows of `write_jsonl`; raises `CorruptArtifactError` naming the line."""
        rows = []
        for number, line in enumerate(self._read_bytes(file).splitlines(), start=1):
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise self._corrupt(f"{file}, line {number}", error) from error
        return rows

    def chunk(self, index: int, compute: Callable[[], Any]) -> Any:
        """Piece `index` of a long computation: read when it is there, else computed and kept.

        The value is what JSON gives back (tuples become lists), also right after computing it, so
        that a resumed run sees what an uninterrupted one sees. Several processes compute side by
        side, and the value of the first one is that of all. Raises `CorruptArtifactError`.
        """

        def keep() -> Any:
            self._write_bytes(file, json.dumps(part, ensure_ascii=False).encode())
            return value

        file = f"parts/{index:05d}.json"
        kept = from_primary(f"look at {self.path / file}", lambda: self._read_chunk(file))
        if kept is not None:
            return kept["value"]
        value = _as_json(compute())
        part = {"sha256": _digest(value), "value": value}
        return from_primary(f"keep {self.path / file}", keep)

    def _read_chunk(self, file: str) -> dict[str, Any] | None:
        """The part in `file`, or None when there is no such file."""
        if not (self.path / file).exists():
            return None
        self._refuse_other_settings()
        part = self._read_object(file, ("sha256", "value"))
        if _digest(part["value"]) != part["sha256"]:
            raise self._corrupt(file, "its checksum differs")
        return part

    def _refuse_other_settings(self) -> None:
        if self._settings_match:
            return
        if not (self.path / SETTINGS).exists():
            strange = sorted(entry.name for entry in _entries(self.path))
            if strange:
                raise CorruptArtifactError(
                    f"{self.path}: holds {strange[0]} but no {SETTINGS}, so it is not known what "
                    "made it; remove the folder or choose another work directory"
                )
            return
        found = self._read_settings()
        if _digest({key: found[key] for key in self._inputs}) == self.digest:
            self._settings_match = True
            return
        differing = list(_differences(found["settings"], self._inputs["settings"], ""))
        then, now = found["depends_on"], self._inputs["depends_on"]
        differing += [
            f"the stage {name!r} that it reads differs"
            for name in sorted(then.keys() | now.keys())
            if then.get(name) != now.get(name)
        ]
        raise StaleArtifactError(
            f"{self.path} was made with other settings: {'; '.join(differing)}. "
            "Remove it to make it anew, or choose another work directory"
        )

    def _write_bytes(self, file: str, data: bytes) -> None:
        def write() -> None:
            self._begin()
            with report_faults(target):
                target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, lambda stream: stream.write(data))

        target = self.path / file
        from_primary(f"write {target}", write)

    def _read_bytes(self, file: str) -> bytes:
        try:
            return (self.path / file).read_bytes()
        except FileNotFoundError as error:
            raise self._corrupt(file, "it is missing") from error

    def _read_object(self, file: str, keys: Sequence[str]) -> dict[str, Any]:
        value = self.read_json(file)
        if not isinstance(value, dict) or not set(keys) <= set(value):
            raise self._corrupt(file, f"it lacks one of {', '.join(keys)}")
        return value

    def _read_settings(self) -> dict[str, Any]:
        found = self._read_object(SETTINGS, ("settings", "depends_on"))
        version = found.get(_SCHEMA, schema.FIRST_SCHEMA)
        if type(version) is not int or version < schema.FIRST_SCHEMA:
            raise self._corrupt(SETTINGS, f"schema must be {schema.FIRST_SCHEMA} or more")
        if not isinstance(found["depends_on"], dict):
            raise self._corrupt(SETTINGS, "depends_on must be an object of digests")
        return found

    def _corrupt(self, file: str, reason: Any) -> CorruptArtifactError:
        return CorruptArtifactError(
            f"{self.path / file}: cannot be used: {reason}; "
            f"remove {self.path} and run the same command again to make it anew"
        )


def _entries(folder: Path) -> list[Path]:
    """What `folder` holds, without the traces of an interrupted write."""
    if not folder.exists():
        return []
    return [entry for entry in folder.iterdir() if not entry.name.endswith(PARTIAL)]


def _as_json(value: Any) -> Any:
    """`value` as JSON gives it back: dataclasses as objects, paths as text, arrays refused."""

    def convert(item: Any) -> Any:
        if dataclasses.is_dataclass(item):
            return told(item)
        if isinstance(item, Path):
            return str(item)
        if isinstance(item, np.generic):
            return item.item()
        raise TypeError(f"{item!r} ({type(item).__name__}) has no JSON form")

    return json.loads(json.dumps(value, default=convert))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _pretty(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _differences(found: Any, wanted: Any, path: str) -> Iterable[str]:
    """Which keys differ, as "design.rank: 3 there, 4 now"."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            inner = f"{path}.{key}" if path else key
            if key not in found or key not in wanted:
                yield f"{inner} is only {'there' if key in found else 'now'}"
            else:
                yield from _differences(found[key], wanted[key], inner)
    elif found != wanted:
        yield f"{path}: {json.dumps(found)} there, {json.dumps(wanted)} now"
