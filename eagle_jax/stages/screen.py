"""The plan of a run, as the terminal shows it at the start."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from eagle_jax.base.work_directory import MANIFEST, SETTINGS

_WIDTH = 100


def plan_lines(workdir: Path, names: Sequence[str]) -> list[str]:
    """Which of the stages are there already, which are gone on with and which are still to do.

    What is there is looked at by name: whether it was made with other settings, each stage says when its turn comes.
    """
    left = [name for name in names if not (workdir / name / MANIFEST).exists()]
    begun = [name for name in left if (workdir / name / SETTINGS).exists()]
    groups = {
        "there already": [name for name in names if name not in left],
        "goes on": begun,
        "to do": [name for name in left if name not in begun],
    }
    if not left:
        return [f"{workdir}: all {len(names)} stages are there already; the report is written anew"]
    lines = [f"{workdir}: {len(names)} stages"]
    for title, of_group in groups.items():
        if of_group:
            beginning = f"  {title + ':':15}"
            lines += textwrap.wrap(
                ", ".join(of_group), _WIDTH, initial_indent=beginning, subsequent_indent=" " * len(beginning)
            )
    return lines
