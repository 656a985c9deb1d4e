"""How long the stages of an experiment took, over all runs of its work directory."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eagle_jax.base.atomic_files import replace_atomically
from eagle_jax.base.errors import CorruptArtifactError, DiskFullError
from eagle_jax.base.processes import is_primary
from eagle_jax.base.work_directory import StageFolder


class StageTimes:
    """times.json of a work directory: stage -> seconds of wall-clock time."""

    def __init__(self, root: Path):
        self._path = root / "times.json"

    def seconds(self) -> dict[str, float]:
        """Raises CorruptArtifactError where the file cannot be read."""
        if not self._path.exists():
            return {}
        try:
            return json.loads(self._path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CorruptArtifactError(
                f"{self._path}: cannot be read: {error}; remove it"
            ) from error

    @contextlib.contextmanager
    def measured(self, name: str, stage: StageFolder) -> Iterator[None]:
        """Adds the time within to the stage's, also where it fails; none to one that was done."""
        done, started = stage.is_complete(), time.monotonic()
        try:
            yield
        finally:
            if not done and self._path.parent.exists():
                total = self.seconds()
                total[name] = round(total.get(name, 0.0) + time.monotonic() - started, 1)
                write_summary(self._path, total)


def write_summary(path: Path, value: Any) -> None:
    """A small JSON file beside the stages, by the first process."""
    if not is_primary():
        return
    text = json.dumps(value, indent=1) + "\n"
    with contextlib.suppress(DiskFullError):  # the stage's own error says it better
        # Not `write_atomically`: this process may be the only one that failed.
        replace_atomically(path, lambda stream: stream.write(text.encode()))
