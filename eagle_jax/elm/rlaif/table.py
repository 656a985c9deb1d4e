"""What RLAIF came to: each trained policy against the ELM that it started from, on the same rows.

Tennenholtz et al. 2024 (ELM), appendix H, has no numbers. A training raises the reward over its
start where two paired intervals lie above 0: one of resampled films (or users), for these trainings
and any film, and Student's over seeds, for any training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eagle_jax.elm.evaluation.consistency_table import ConsistencyRecord, compare_consistency
from eagle_jax.reports.statistics import BootstrapSettings, t_interval
from eagle_jax.reports.verdicts import FAILS, HOLDS, MIN_SEEDS, UNDECIDED


def compare_to_start(
    records: Sequence[ConsistencyRecord],
    start: str,
    trainings: Sequence[str],
    tasks: Sequence[str],
    measure: str,
    settings: BootstrapSettings,
) -> list[dict[str, Any]]:
    """For each training the difference of `measure`, paired by task, film or user, and seed.

    A row is {"system", "difference": mean and interval over films or users, "over_seeds": Student's
    or None for one seed, "by_seed": [{"seed", "difference"}], "verdict"}. The start's texts of a
    seed were sampled with the seed of the policy's.
    """
    rows = []
    for name in trainings:

        def difference(outputs: Sequence[ConsistencyRecord], name: str = name) -> dict[str, float]:
            compared = compare_consistency(outputs, "all", tasks, [(name, start)], settings)
            return next(row["difference"] for row in compared if row["measure"] == measure)

        seeds = sorted({record.seed for record in records if record.system == name})
        by_seed = [{"seed": seed, "difference": difference([r for r in records if r.seed == seed])} for seed in seeds]
        over_seeds = None
        if len(seeds) > 1:
            means = [row["difference"]["mean"] for row in by_seed]
            over_seeds = t_interval(means, settings.confidence).as_cell()
        row = {"system": name, "difference": difference(records), "over_seeds": over_seeds, "by_seed": by_seed}
        rows.append(row | {"verdict": judge_methods(row)})
    return rows


def judge_methods(row: dict[str, Any]) -> str:
    """`HOLDS` where both intervals lie above 0, `FAILS` where one has nothing above 0; fewer than
    `MIN_SEEDS` seeds decide nothing."""
    if len(row["by_seed"]) < MIN_SEEDS:
        return UNDECIDED
    intervals = row["difference"], row["over_seeds"]
    if all(interval["low"] > 0 for interval in intervals):
        return HOLDS
    return FAILS if any(interval["high"] <= 0 for interval in intervals) else UNDECIDED
