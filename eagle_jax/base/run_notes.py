"""What a run of many stages notes beside them in its work directory: how long each one took."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from eagle_jax.base.atomic_files import replace_atomically
from eagle_jax.base.errors import CorruptArtifactError, DiskFullError
from eagle_jax.base.processes import is_primary

_TIMES = "times.json"


def write_note(path: Path, value: Any) -> None:
    """Writes a JSON value on the primary process, unless the disk is full."""
    if not is_primary():
        return
    text = json.dumps(value, indent=1) + "\n"
    with contextlib.suppress(DiskFullError):  # the stage's own error says it better
        # Not `write_atomically`: this process may be the only one that failed.
        replace_atomically(path, lambda stream: stream.write(text.encode()))


def add_seconds(root: Path, stage: str, seconds: float) -> None:
    """Adds to what the stage has taken in earlier runs of the work directory `root`."""
    total = stage_seconds(root)
    total[stage] = round(total.get(stage, 0.0) + seconds, 1)
    write_note(root / _TIMES, total)


def stage_seconds(root: Path) -> dict[str, float]:
    """Wall-clock time of each stage, over all runs; raises `CorruptArtifactError`."""
    path = root / _TIMES
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise CorruptArtifactError(f"{path}: cannot be read: {error}; remove it") from error
