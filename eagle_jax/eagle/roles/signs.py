"""Whether a rewriting was changed as asked, by signs: words that a changed text has and its anchor has not.

A list of actions may have two columns more. `signs`: a regular expression of how such words begin. `beyond_start`, yes
or no: whether the words that an answer was begun with do not count. "In this western, he goes home." is no western.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from eagle_jax.base.errors import UserError
from eagle_jax.data.bad_rows import BadRows
from eagle_jax.data.prompts import EntityFormat
from eagle_jax.data.rows import read_rows

T = TypeVar("T")


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
    return read_by_action(file, entity_format, ("signs", "beyond_start"), _sign)


def read_by_action(
    file: str, entity_format: EntityFormat, columns: Sequence[str], parse: Callable[..., T | None]
) -> dict[str, T]:
    """What `parse` makes of these columns, "" where there is none, by action; None: nothing.

    Raises `UserError` that names file and line of what `parse` raises ValueError for.
    """
    path, found = actions_path(file, entity_format), {}
    for row in read_rows(path, ("action",), columns, BadRows()):
        try:
            made = parse(*(row.values[name] for name in columns))
        except ValueError as error:
            raise UserError(f"{path}, line {row.line}: {error}") from error
        if made is not None:
            found[" ".join(row.values["action"].split())] = made
    return found


def _sign(signs: str, beyond_start: str) -> Sign | None:
    try:
        pattern = re.compile(rf"\b(?:{signs})", re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"signs is no regular expression: {error}") from error
    if beyond_start not in ("", "yes", "no"):
        raise ValueError(f"beyond_start must be yes or no, got {beyond_start!r}")
    return Sign(pattern, beyond_start == "yes") if signs else None
