"""What the solver benchmark measured, beside its targets, as Markdown."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

from benchmarks.rounds import OUTCOME, Verdict, markdown_table, spread

BASELINE = "interior_point"
TARGET_GAP = 1e-4
# A design is solved when its recomputed gap is at most this many times the gap asked for.
TOLERATED_EXCESS = 1.1
# (d, who, precision) -> milliseconds per problem at most, batch 32, gap 1e-4.
MAX_MILLISECONDS = {(16, BASELINE, "float32"): 0.3, (64, BASELINE, "float32"): 0.5, (64, BASELINE, "float64"): 0.7}
# (d, who) -> times slower than ours in float32 at least, batch 32, gap 1e-4.
MIN_RATIO = {
    (16, "NumPy Wolfe-Atwood"): 12.0,
    (16, "cvxpy CLARABEL"): 200.0,
    (16, "R od_REX"): 900.0,
    (64, "frank_wolfe"): 2.0,
    (64, "NumPy Wolfe-Atwood"): 10.0,
    (64, "cvxpy SCS"): 1_000.0,
    (64, "R od_REX"): 2_500.0,
    (64, "cvxpy CLARABEL"): 30_000.0,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One contender on one set of problems.

    seconds: per problem, one number per round.
    ratios: seconds by those of the baseline in the same round.
    busy_cores: processor seconds per second.
    first_call: seconds of the first call, compilation included; None for peers.
    worst_gap: largest recomputed gap.
    whole_call: seconds per problem with everything around: conversions, cvxpy's translation, R's
        start.
    unsolved: problems that did not converge or whose recomputed gap is beyond the tolerated.
    """

    dataset: str
    width: int
    rank: int
    gap: float
    who: str
    precision: str
    batch: int
    num_problems: int
    seconds: tuple[float, ...]
    ratios: tuple[float, ...]
    busy_cores: float
    first_call: float | None
    worst_gap: float
    unsolved: int
    whole_call: float
    note: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Certified:
    """Designs recomputed in float64, untimed; worst_excess: recomputed gap over the asked one."""

    dataset: str
    width: int
    precision: str
    gap: float
    num_problems: int
    worst_excess: float
    unsolved: int


def verdicts(
    measurements: Sequence[Measurement], certified: Sequence[Certified], datasets: Sequence[str], ratio_batch: int
) -> list[Verdict]:
    """Every target on every data set, missed ones included."""
    found = []
    for dataset in datasets:
        here = [m for m in measurements if m.dataset == dataset]
        timed = {
            (m.width, m.who, m.precision): m
            for m in here
            if m.gap == TARGET_GAP and (m.who != BASELINE or m.batch == ratio_batch)
        }
        for (width, who, precision), limit in MAX_MILLISECONDS.items():
            target = f"d={width}, {precision}: at most {limit} ms"
            m = timed.get((width, who, precision))
            milliseconds = [1e3 * s for s in m.seconds] if m else []
            found.append(_verdict(target, dataset, milliseconds, lambda t, at=limit: t <= at))
        by_peer = {(width, who): m for (width, who, _), m in timed.items() if who != BASELINE}
        for (width, who), limit in MIN_RATIO.items():
            target = f"d={width}: at least {limit:,.0f}x {who}"
            m = by_peer.get((width, who))
            found.append(_verdict(target, dataset, m.ratios if m else [], lambda t, at=limit: t >= at))
        found.append(_all_solved(here, dataset))
    return found + [_kept_promise(certified, precision) for precision in ("float64", "float32")]


def _verdict(target, dataset, values, is_met):
    if not values:
        return Verdict(target, dataset, "not measured", None)
    return Verdict(target, dataset, spread(values), bool(is_met(statistics.median(values))))


def _all_solved(measurements, dataset):
    ours = [m for m in measurements if m.who == BASELINE]
    most = max((m.num_problems for m in ours), default=0)
    largest = [m for m in ours if m.num_problems == most]
    unsolved = sum(m.unsolved for m in largest)
    reached = f"{unsolved} of {most:,} problems in {len(largest)} settings"
    # The target speaks of 1,024 problems.
    return Verdict("0 unsolved", dataset, reached, unsolved == 0 if most >= 1024 else None)


def _kept_promise(certified, precision):
    mine = [c for c in certified if c.precision == precision]
    target = f"recomputed gap at most {TOLERATED_EXCESS} x promised, {precision}"
    if not mine:
        return Verdict(target, "all", "not measured", None)
    worst, unsolved = max(c.worst_excess for c in mine), sum(c.unsolved for c in mine)
    reached = f"{worst:.4f} to {mine[0].gap:g}, {unsolved} unsolved"
    return Verdict(target, "all", reached, worst <= TOLERATED_EXCESS and unsolved == 0)


def page(
    machine: dict[str, str],
    measurements: Sequence[Measurement],
    certified: Sequence[Certified],
    found: Sequence[Verdict],
    notes: Sequence[str],
) -> str:
    """The whole report in Markdown."""
    return "\n".join(
        [
            "# G-optimal design: ours and its peers, one run\n",
            markdown_table(("machine", ""), machine.items()),
            *[f"- {note}" for note in notes],
            "\n## Targets\n",
            markdown_table(
                ("target", "data", "reached: median [least, largest]", ""),
                [(v.target, v.setting, v.reached, OUTCOME[v.is_met]) for v in found],
            ),
            "## Promises recomputed\n",
            markdown_table(
                ("data", "d", "precision", "gap", "problems", "worst excess", "unsolved"),
                [
                    (
                        c.dataset,
                        str(c.width),
                        c.precision,
                        f"{c.gap:g}",
                        f"{c.num_problems:,}",
                        f"{c.worst_excess:.4f}",
                        str(c.unsolved),
                    )
                    for c in certified
                ],
            ),
            "## Times\n",
            markdown_table(
                (
                    "data",
                    "d",
                    "r",
                    "gap",
                    "who",
                    "precision",
                    "batch",
                    "problems",
                    "rounds",
                    "ms per problem",
                    "times ours",
                    "whole call, ms",
                    "cores",
                    "first call, s",
                    "worst true gap",
                    "unsolved",
                    "note",
                ),
                [_time_row(m) for m in measurements],
            ),
        ]
    )


def _time_row(m: Measurement) -> tuple[str, ...]:
    return (
        m.dataset,
        str(m.width),
        str(m.rank),
        f"{m.gap:g}",
        m.who,
        m.precision,
        f"{m.batch:,}",
        f"{m.num_problems:,}",
        str(len(m.seconds)),
        spread([1e3 * s for s in m.seconds]),
        spread(m.ratios),
        f"{1e3 * m.whole_call:,.3g}",
        f"{m.busy_cores:.1f}",
        "" if m.first_call is None else f"{m.first_call:.1f}",
        "nan" if math.isnan(m.worst_gap) else f"{m.worst_gap:.2g}",
        str(m.unsolved),
        m.note,
    )
