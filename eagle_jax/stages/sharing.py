"""Runs of a sweep side by side take finished stages over from each other."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from eagle_jax.base.atomic_files import PARTIAL, report_faults, write_atomically
from eagle_jax.base.processes import from_primary
from eagle_jax.base.work_directory import MANIFEST, StageFolder

SWEEP = "sweep.json"  # beside work directories that share their stages
TAKEN_OVER = "TAKEN_OVER.json"  # in a stage that another run computed: which one


def take_over(stage: StageFolder) -> None:
    """In a sweep: another run's stage of this name where it is complete, of the same settings, and read the same.

    Nothing happens where this one has been begun. Files are linked where the file system can: a
    complete stage is never written again.
    """
    from_primary(f"take over {stage.path}", lambda: _take_over(stage))


def _take_over(stage: StageFolder) -> None:
    path = stage.path
    runs = path.parents[1]
    if path.exists() or not (runs / SWEEP).is_file():
        return
    same = (other for other in sorted(runs.glob(f"*/{path.name}")) if _finished_digest(other) == stage.digest)
    if (source := next(same, None)) is None:
        return
    partial = path.with_name(path.name + PARTIAL)
    told = json.dumps({"from": source.parent.name}).encode()
    with report_faults(path):
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, copy_function=_link)
        write_atomically(partial / TAKEN_OVER, lambda file: file.write(told))
        partial.rename(path)


def _finished_digest(folder: Path) -> str | None:
    """Of what a complete stage was made from; None where there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return manifest.get("digest") if isinstance(manifest, dict) else None


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
