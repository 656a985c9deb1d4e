"""Whether a rewriting was changed as asked, by signs: the rule that `benchmarks.roles` counts with.

A row of `role_signs.csv` names what begins a word that a changed text has and its anchor has not. Where `beyond_start`
is yes, the words that the answer was begun with do not count: "In this western, he goes home." is no western.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Sign(NamedTuple):
    """Of one action."""

    pattern: re.Pattern[str]
    is_beyond_start: bool


def read_signs() -> dict[str, Sign]:
    """By action."""
    with open(Path(__file__).with_name("role_signs.csv"), newline="") as file:
        return {
            row["action"]: Sign(re.compile(rf"\b(?:{row['signs']})", re.IGNORECASE), row["beyond_start"] == "yes")
            for row in csv.DictReader(file)
        }


def was_changed(sign: Sign, before: str, after: str, start: str) -> bool:
    """`after`: what was written, which begins with `start` ("": the model began)."""
    written = after[len(start) :] if sign.is_beyond_start and after.startswith(start) else after
    known = {found.lower() for found in sign.pattern.findall(before)}
    return any(found.lower() not in known for found in sign.pattern.findall(written))


def kappa(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Cohen's: agreement beyond that of two who answer at random as often yes; 1 where both say the same of all."""
    count = len(ours)
    agreed = sum(one == other for one, other in zip(ours, theirs, strict=True)) / count
    yes = sum(ours) / count, sum(theirs) / count
    by_chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    return 1.0 if by_chance == 1 else (agreed - by_chance) / (1 - by_chance)
