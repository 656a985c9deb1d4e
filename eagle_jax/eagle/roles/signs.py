"""Whether a rewriting was changed as asked, by signs: words that a changed text has and its anchor has not.

A list of actions may have two columns more. `signs`: a regular expression of how such words begin. `beyond_start`, yes
or no: whether the words that an answer was begun with do not count. "In this western, he goes home." is no western.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from eagle_jax.base.errors import UserError
from eagle_jax.data.bad_rows import BadRows
from eagle_jax.data.prompts import EntityFormat
from eagle_jax.data.rows import read_rows


def actions_path(file: str, entity_format: EntityFormat) -> Path:
    """The file, or the package's list where none is named; raises `UserError` where it is not there."""
    path = Path(file) if file else Path(__file__).with_name(f"{entity_format.noun}_actions.csv")
    if not path.is_file():
        raise UserError(
            f"{path} is not there"
            + ("" if file else f": the package has no list of actions for a {entity_format.noun}, so name a CSV")
        )
    return path


class Sign(NamedTuple):
    """Of one action."""

    pattern: re.Pattern[str]
    is_beyond_start: bool

    def is_new(self, before: str, written: str, start: str = "") -> bool:
        """Whether `written`, which may begin with `start`, has one that `before` has not."""
        if self.is_beyond_start:
            written = written.removeprefix(start)
        known = {found.lower() for found in self.pattern.findall(before)}
        return any(found.lower() not in known for found in self.pattern.findall(written))


def read_signs(file: str, entity_format: EntityFormat) -> dict[str, Sign]:
    """By action, of those that have any; raises `UserError` that names file and line."""
    path, found = actions_path(file, entity_format), {}
    for row in read_rows(path, ("action",), ("signs", "beyond_start"), BadRows()):
        action, signs, beyond = (row.values[name] for name in ("action", "signs", "beyond_start"))
        try:
            pattern = re.compile(rf"\b(?:{signs})", re.IGNORECASE)
        except re.error as error:
            raise UserError(f"{path}, line {row.line}: signs is no regular expression: {error}") from error
        if beyond not in ("", "yes", "no"):
            raise UserError(f"{path}, line {row.line}: beyond_start must be yes or no, got {beyond!r}")
        if signs:
            found[" ".join(action.split())] = Sign(pattern, beyond == "yes")
    return found
