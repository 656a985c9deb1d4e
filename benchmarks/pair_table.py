"""Rows of the table of pair selection, from the turns of its contenders.

Apart from the command, whose flags can be defined once in a process only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import rounds


def rows_of(
    strategy: str,
    num_responses: int,
    turns: Mapping[str, Sequence[rounds.Turn]],
    settings: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """What is printed of the turns; `equal_pairs`: the share of pairs that are ours, too."""
    seconds = {name: [turn.seconds / settings[name]["number"] for turn in own] for name, own in turns.items()}
    pairs = {name: own[0].values["pairs"] for name, own in turns.items()}
    rows = []
    for name, own in turns.items():
        matched = list(zip(pairs[name], pairs["ours"], strict=False))
        rows.append(
            {
                "strategy": strategy,
                "num_responses": num_responses,
                "who": name,
                "microseconds": [1e6 * value for value in seconds[name]],
                "ratios": [theirs / mine for theirs, mine in zip(seconds[name], seconds["ours"], strict=True)],
                "equal_pairs": sum(one == other for one, other in matched) / len(matched),
                "busy_cores": [turn.busy_cores for turn in own],
            }
        )
    return rows
