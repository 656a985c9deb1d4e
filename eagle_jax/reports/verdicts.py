"""What intervals allow one to say, in the same words in every report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "not decided here"
# Fewer decide nothing: Student's interval of two is as good as none, and two win rates over a few
# prompts are often equal by chance, an interval without width.
MIN_SEEDS = 3


def side(interval: Any) -> int:
    """1: the interval lies above 0; -1: below; 0: it does not leave 0 out, or there is none.

    interval: has "low" and "high" as keys or as attributes, None where there is none.
    """
    if interval is None:
        return 0
    low, high = (
        interval[name] if isinstance(interval, Mapping) else getattr(interval, name) for name in ("low", "high")
    )
    return 0 if low is None else int(low > 0) - int(high < 0)


def arrow(difference: Any) -> str:
    """Which way the interval of a difference leaves 0 out."""
    return {1: " ↑", -1: " ↓", 0: ""}[side(difference)]
