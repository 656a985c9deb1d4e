"""What a sweep is asked for on the command line: an experiment, settings with several values each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from eagle_jax.base.errors import UserError

_OPENING, _CLOSING, _QUOTES = "([{", ")]}", "\"'"


class GridPoint(NamedTuple):
    """A run of the sweep: its folder's name and its settings, (key, value) as the command line has them."""

    name: str
    settings: tuple[tuple[str, str], ...]

    @property
    def told(self) -> str:
        """Its settings in a few words."""
        return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.settings)


def grid_points(grids: Sequence[str]) -> list[GridPoint]:
    """All combinations, the last grid's values changing fastest, from "config.<key>=<value>,<value>" each.

    A comma within brackets or quotes belongs to the value. Raises `UserError`.
    """
    axes = [_axis(text) for text in grids]
    keys = [key for key, _ in axes]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise UserError(f"--grid: {', '.join(sorted(twice))} stands in it twice; give all values of a setting at once")
    combinations = itertools.product(*([(key, value) for value in values] for key, values in axes))
    return [GridPoint(f"{number:03d}", settings) for number, settings in enumerate(combinations)]


def _axis(text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    key = key.strip().removeprefix("--").removeprefix("config.")
    found = [value.strip() for value in _split(values)]
    if not equals or not key or not all(found):
        raise UserError(f"--grid={text}: expected config.<key>=<value>,<value>,...")
    if len(set(found)) < len(found):
        raise UserError(f"--grid={text}: a value stands there twice")
    return key, found


def _split(text: str) -> list[str]:
    """At the commas outside of brackets and quotes."""
    pieces, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        elif letter in _OPENING + _CLOSING:
            depth += 1 if letter in _OPENING else -1
        elif letter == "," and depth == 0:
            pieces.append("")
            continue
        pieces[-1] += letter
    return pieces
