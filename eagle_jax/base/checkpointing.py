"""Checkpoints of a training state: Orbax inside, whole or absent, checked before they are used.

A checkpoint is a folder `step_00000012` or `best_00000012`: Orbax' own folder `state` and
`CHECKPOINT.json` with the step, the digest of the settings, the shape and dtype of every leaf and
the checksum of every file. It is written under the suffix `.partial` and renamed when all is there.

Of several processes each writes and reads its shards; process 0 does and decides all else. A state
may be restored onto any mesh: its leaves come back with the shardings of the template.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
from orbax.checkpoint import v1 as ocp

from eagle_jax.base.atomic_files import PARTIAL, checksums, remove_partial, report_faults, sync_folder, verify
from eagle_jax.base.errors import CorruptArtifactError, StaleArtifactError, remedy, require_local
from eagle_jax.base.processes import from_primary, is_primary

State = TypeVar("State")
_RECORD = "CHECKPOINT.json"


class Checkpoints:
    """The checkpoints of one training run in `folder`, made under the settings `digest`."""

    def __init__(self, folder: Path, *, digest: str, max_to_keep: int):
        require_local(folder, "checkpoints")
        self._folder = Path(folder).absolute()  # Orbax takes absolute paths only
        self._digest = digest
        self._max_to_keep = max_to_keep

    def save(self, step: int, state: Any) -> None:
        """Saves `state` after `step` steps; the oldest beyond `max_to_keep` go."""
        self._write("step", step, state, value=None)
        self._remove(lambda: self._saved("step")[: -self._max_to_keep])

    def restore_latest(self, template: State) -> tuple[int, State] | None:
        """The last step saved and its state, in the form of `template`; None when there is none.

        Leaves of `template` are arrays, or `jax.ShapeDtypeStruct` with a sharding.
        Raises `StaleArtifactError` (other settings) or `CorruptArtifactError`.
        """
        return self._read(lambda: self._saved("step")[-1:], template)

    def save_best(self, step: int, state: Any, value: float) -> bool:
        """Saves `state` if `value` is higher than that of the best so far; says whether it did.

        A NaN is never the best.
        """
        values = from_primary(f"compare with {self._folder}", lambda: [self._value(best) for best in self._best()])
        if math.isnan(value) or (values and value <= values[0]):
            return False
        self._write("best", step, state, value=float(value))
        new = self._path("best", step)
        self._remove(lambda: [old for old in self._saved("best") if old != new])
        return True

    def restore_best(self, template: State) -> tuple[int, State] | None:
        """The step and state of the highest value saved; None when there is none."""
        return self._read(self._best, template)

    def _path(self, kind: str, step: int) -> Path:
        return self._folder / f"{kind}_{step:08d}"

    def _saved(self, kind: str) -> list[Path]:
        found = self._folder.glob(f"{kind}_*")
        return sorted(path for path in found if path.suffix != PARTIAL)

    def _best(self) -> list[Path]:
        """The best one, if there is any."""
        # A kill between writing a new best and removing the one before leaves both.
        return sorted(self._saved("best"), key=self._value)[-1:]

    def _value(self, path: Path) -> float:
        value = self._record(path)["value"]
        return -math.inf if math.isnan(value) else value  # NaN was saved once

    def _write(self, kind: str, step: int, state: Any, value: float | None) -> None:
        final = self._path(kind, step)
        partial = final.with_name(final.name + PARTIAL)
        record = {"step": int(step), "value": value, "digest": self._digest, "leaves": _leaves(state)}
        with report_faults(final):
            from_primary(f"begin {final}", lambda: self._begin(final, partial))
            try:
                _save_state(partial / "state", state)
                from_primary(f"finish {final}", lambda: self._finish(final, partial, record))
            except BaseException:
                if is_primary():
                    shutil.rmtree(partial, ignore_errors=True)
                raise

    def _begin(self, final: Path, partial: Path) -> None:
        if final.exists():
            raise ValueError(f"{final}: this step is saved already; restore before going on")
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_partial(self._folder)
        partial.mkdir()

    def _finish(self, final: Path, partial: Path, record: Mapping[str, Any]) -> None:
        record = {**record, "files": checksums(partial)}
        (partial / _RECORD).write_text(json.dumps(record, indent=1))
        partial.rename(final)
        sync_folder(self._folder)

    def _remove(self, find: Callable[[], list[Path]]) -> None:
        def remove() -> None:
            for old in find():
                _remove(old)

        from_primary(f"tidy {self._folder}", remove)

    def _record(self, path: Path) -> dict[str, Any]:
        """The record of the checkpoint at `path`, once it is known to be ours and whole."""
        try:
            record = json.loads((path / _RECORD).read_text())
            digest, files = record["digest"], record["files"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptArtifactError(f"{path}: its {_RECORD} cannot be read: {error}") from error
        if digest != self._digest:
            raise StaleArtifactError(
                f"{path} was made with other settings; remove {self._folder} to train anew, or "
                "choose another work directory"
            )
        verify(path, files, _RECORD)
        return record

    def _read(self, find: Callable[[], list[Path]], template: State) -> tuple[int, State] | None:
        """The state of the one checkpoint that `find` gives, if it does."""

        def check() -> tuple[str, int] | None:
            for path in find():
                record = self._record(path)
                _refuse_other_leaves(path, record["leaves"], wanted)
                return path.name, record["step"]
            return None

        wanted = _leaves(template)
        found = from_primary(f"check {self._folder}", check)
        if found is None:
            return None
        name, step = found
        return step, ocp.load(self._folder / name / "state", template)


def _save_state(path: Path, state: Any) -> None:
    try:
        ocp.save(path, state)
    except ValueError as error:
        # TensorStore, which writes the arrays, tells the system's errors as text only.
        numbers = [number for number in errno.errorcode if os.strerror(number) in str(error) and remedy(number)]
        if not numbers:
            raise
        raise OSError(numbers[0], os.strerror(numbers[0]), str(path)) from error


def _remove(path: Path) -> None:
    """Removes a checkpoint such that a kill in between leaves no half of one under its name."""
    shutil.rmtree(path.rename(path.with_name(path.name + PARTIAL)))


def _leaves(state: Any) -> dict[str, str]:
    """Path -> dtype and shape of every leaf, e.g. "['w']": "float32[3, 4]"."""
    abstract = jax.eval_shape(lambda tree: tree, state)
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
    }


def _refuse_other_leaves(path: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise StaleArtifactError(
                f"{path}: the state has {found.get(name, 'nothing')} at {name}, this "
                f"program expects {wanted.get(name, 'nothing')}; remove {path.parent} to "
                "train anew, or choose another work directory"
            )
