"""What the measured rows come to: means with intervals, and differences of what met the same users or seeds.

Axis letters: `U` users, `n` rounds, `S` seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.reports.statistics import BootstrapSettings, bootstrap_interval, paired_difference, t_interval
from eagle_jax.studies.people import alike_pairs, edit_rounds, pair_rewards

_Cell = dict[str, float] | None


def summarize_pair_rewards(rows: Sequence[Mapping[str, Any]], settings: BootstrapSettings) -> dict[str, Any]:
    """table: {"row", "cells"} with cells "seen" and "new <n>". differences: as `_difference` gives them.

    The K that differences are about has the best mean accuracy on seen users' held-out pairs.
    """
    found = {_place(row): np.array(row["accuracy"]) for row in rows}
    columns = {pair_rewards.SEEN: None, **{n: n for n in sorted({p[2] for p in found if p[1] == "new" and p[2]})}}
    counts = [n for n in columns if n != pair_rewards.SEEN]
    names = list(dict.fromkeys(place[0] for place in found))

    def cell(name: str, column: Any) -> _Cell:
        group = pair_rewards.SEEN if column == pair_rewards.SEEN else pair_rewards.NEW
        # The known taste is one row, whatever the amount.
        values = [found[p] for p in found if p[:2] == (name, group) and (group == "seen" or p[2] in (column, None))]
        return bootstrap_interval(values[0], settings).as_cell() if values else None

    table = [{"row": name, "cells": {_column(c): cell(name, c) for c in columns}} for name in names]
    best = {}
    for features in dict.fromkeys(row["features"] for row in rows if row["features"]):
        of_features = [
            r for r in rows if (r["method"], r["features"], r["group"]) == (pair_rewards.PAL, features, "seen")
        ]
        best[features] = max(of_features, key=lambda row: np.mean(row["accuracy"]))["num_prototypes"]
    differences = []
    for n in counts:
        states, slots = (
            _name(pair_rewards.PAL, features, best[features])
            for features in (pair_rewards.STATES, pair_rewards.READ_SLOTS)
        )
        plain = _name(pair_rewards.PAL_PLAIN, pair_rewards.STATES, best[pair_rewards.STATES])
        one = _name(pair_rewards.PAL, pair_rewards.STATES, 1)
        pairs = [(states, one), (states, pair_rewards.WALS), (states, pair_rewards.WALS_PRIOR)]
        pairs += [(slots, pair_rewards.WALS_PRIOR), (slots, states), (states, plain)]
        for ours, theirs in pairs:
            places = [(name, pair_rewards.NEW, n) for name in (ours, theirs)]
            if ours != theirs and all(place in found for place in places):
                values = (found[place] for place in places)
                differences.append(
                    {"ours": ours, "theirs": theirs, "num_feedback": n, **_difference(*values, settings)}
                )
    return {
        "columns": list(map(_column, columns)),
        "counts": counts,
        "table": table,
        "best": best,
        "differences": differences,
    }


def _place(row: Mapping[str, Any]) -> tuple[str, str, int | None]:
    return _name(row["method"], row["features"], row["num_prototypes"]), row["group"], row["num_feedback"]


def _name(method: str, features: str | None, num_prototypes: int | None) -> str:
    return method if features is None else f"{method}, K = {num_prototypes}, {features}"


def _column(column: Any) -> str:
    return column if column == pair_rewards.SEEN else f"new {column}"


def _difference(ours: np.ndarray, theirs: np.ndarray, settings: BootstrapSettings) -> dict[str, Any]:
    return {"difference": paired_difference(ours, theirs, settings).as_cell()}


def summarize_edits(rows: Sequence[Mapping[str, Any]], settings: BootstrapSettings) -> dict[str, Any]:
    """table: {"tastes", "row", "cells", "malformed"}; curves: means over users by round; differences of learners.

    Cells: "cost" and "affinity" over all rounds, "last" the cost and "correlation" over the last quarter.
    """
    measures = {(row["tastes"], row["learner"]): _of_users(row) for row in rows}
    table = [
        {
            "tastes": row["tastes"],
            "row": row["learner"],
            "cells": {
                name: bootstrap_interval(values, settings).as_cell()
                for name, values in measures[row["tastes"], row["learner"]].items()
            },
            "malformed": row["malformed"],
        }
        for row in rows
    ]
    r = edit_rounds
    pairs = [(r.CIPHER, r.NOTHING), (r.CIPHER, r.RATINGS_LM), (r.CIPHER, r.RATINGS), (r.CIPHER, r.CIPHER_ONE)]
    pairs += [(r.CIPHER, r.ALL_EDITS), (r.CIPHER_KEPT, r.CIPHER_ONE), (r.CIPHER_KEPT, r.CIPHER)]
    pairs += [(r.CIPHER_LM, r.CIPHER), (r.CIPHER_LM, r.RATINGS_LM), (r.ALL_EDITS, r.RATINGS)]
    differences = [
        {
            "tastes": tastes,
            "ours": ours,
            "theirs": theirs,
            **{
                name: paired_difference(
                    measures[tastes, ours][name], measures[tastes, theirs][name], settings
                ).as_cell()
                for name in ("cost", "last", "correlation", "affinity")
            },
        }
        for tastes in dict.fromkeys(row["tastes"] for row in rows)
        for ours, theirs in pairs
    ]
    curves = [
        {
            "tastes": row["tastes"],
            "row": row["learner"],
            **{name: np.mean(row[name], axis=1).tolist() for name in ("cost", "correlation", "affinity")},
        }
        for row in rows
    ]
    return {"table": table, "differences": differences, "curves": curves}


def _of_users(row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """[U] of each measure, from [n, U]."""
    cost, correlation, affinity = (np.array(row[name], float) for name in ("cost", "correlation", "affinity"))
    last = slice(-max(1, len(cost) // 4), None)
    return {
        "cost": cost.mean(axis=0),
        "last": cost[last].mean(axis=0),
        "correlation": correlation[last].mean(axis=0),
        "affinity": affinity.mean(axis=0),
    }


# Of a policy's row: the name of the cell -> what it reads.
_POLICY = {
    "label_error_rate": lambda run: run["label_error_rate"],
    "true_gap": lambda run: run["mean_true_gap"],
    "displaced_training": lambda run: run["displaced"]["training"],
    "displaced_share": lambda run: run["displaced"]["training_share"],
    "displaced_held_out": lambda run: run["displaced"]["held_out"],
    "accuracy": lambda run: run["held_out"]["rewards/accuracy"],
    "win_rate": lambda run: run["win_rate_true"],
    "utility": lambda run: run["mean_true_utility"],
}


def summarize_alike_pairs(measured: Mapping[str, Any], confidence: float) -> dict[str, Any]:
    """table: {"row", "num_labels", "num_pairs", "cells"}; differences from the random selection with all labels and
    with as many pairs, over seeds [S]; relations: correlations of scores over pairs, over seeds."""
    runs = measured["runs"]
    places = list(dict.fromkeys((run["strategy"], run["num_labels"]) for run in runs))
    values = {
        place: {
            name: np.array([read(run) for run in runs if (run["strategy"], run["num_labels"]) == place], float)
            for name, read in _POLICY.items()
        }
        for place in places
    }
    num_pairs = {(run["strategy"], run["num_labels"]): run["num_pairs"] for run in runs}
    table = [
        {
            "row": place[0],
            "num_labels": place[1],
            "num_pairs": num_pairs[place],
            "cells": {name: t_interval(of_seeds, confidence).as_cell() for name, of_seeds in values[place].items()},
        }
        for place in places
    ]
    counts = sorted({count for strategy, count in places if strategy == alike_pairs.RANDOM_PAIRS})
    low, high = ((f"{alike_pairs.CHES_MEAN}, {side}", counts[-1]) for side in (alike_pairs.LOW, alike_pairs.HIGH))
    everything, fewer = ((alike_pairs.RANDOM_PAIRS, counts[place]) for place in (-1, 0))
    pairs = [(low, everything), (low, fewer), (low, high)]
    if (easy := ("easy", counts[-1])) in values:
        pairs += [(low, easy), (easy, everything)]
    differences = [
        {
            "ours": _told(ours),
            "theirs": _told(theirs),
            **{
                name: t_interval(values[ours][name] - values[theirs][name], confidence).as_cell()
                for name in ("displaced_training", "displaced_held_out", "accuracy", "win_rate")
            },
        }
        for ours, theirs in pairs
    ]
    return {"table": table, "differences": differences, "relations": _relations(measured["pairs"], confidence)}


def _told(place: tuple[str, int]) -> str:
    return f"{place[0]} ({place[1]} labels)"


def _relations(pairs: Sequence[Mapping[str, Any]], confidence: float) -> list[dict[str, Any]]:
    rows = []
    for score in pairs[0]["scores"]:
        of_seeds = [pair["scores"][score] for pair in pairs]
        cells = {of: t_interval([seed[of] for seed in of_seeds], confidence).as_cell() for of in of_seeds[0]}
        rows.append({"row": score, "cells": cells})
    return rows
