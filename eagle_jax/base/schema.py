"""The version of what is kept and read again: the folders of stages, and config files.

A change of settings or artifacts that old ones do not survive raises `SCHEMA` by one and stands in
`CHANGES`. A stage's folder goes on under the version that it was begun under where all changes
since then say how, and is refused otherwise. A config file (`SCHEMA = 1`) has to be of that of now.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from eagle_jax.base.errors import StaleArtifactError

SCHEMA = 1
FIRST = 1  # of what carries no version: it was made before there were any


class Change(NamedTuple):
    """From the version before to this one.

    sentence: what changed and what a config file has to say now; without its full stop.
    before: (a stage's name, its settings as JSON) -> those that the version before wrote, for a
        stage whose artifacts are what they were; None: no stage of that version can be read.
    """

    sentence: str
    before: Callable[[str, Any], Any] | None


CHANGES: dict[int, Change] = {}  # version -> the change that made it


def distance_to(version: int) -> str:
    """What lies between a version and that of now, as "is of schema 1, ..."."""
    if version > SCHEMA:
        return f"is of schema {version}, which a later program wrote: this one knows {SCHEMA}"
    changes = "; ".join(CHANGES[later].sentence for later in range(version + 1, SCHEMA + 1))
    return f"is of schema {version}, now it is {SCHEMA}: {changes}"


def settings_of(version: int, stage: Path, settings: Any) -> Any:
    """A stage's settings as `version` wrote them; raises `StaleArtifactError` where it cannot."""
    later = range(SCHEMA, version, -1)
    if version > SCHEMA or any(CHANGES[number].before is None for number in later):
        raise StaleArtifactError(
            f"{stage} {distance_to(version)}. "
            "Remove it to make it anew, or choose another work directory"
        )
    for number in later:
        settings = CHANGES[number].before(stage.name, settings)
    return settings
