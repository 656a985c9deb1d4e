"""What the study of kept subsets says, in sentences made from its cells.

Other numbers give other sentences. Letters as in `design_study`: n width of the rows, K candidates,
k kept, C the paper's constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.reports.markdown import share
from eagle_jax.studies.design_study.measures import (
    DELTAS,
    EMBEDDINGS,
    EXCHANGE,
    RANDOM,
    TOP_K,
    UTILITY_MEASURES,
    subsample_rule,
)

StudyCell = Mapping[str, Any]

MEASURE_TITLES = {
    "distance": "Distance",
    "volume": "Volume",
    "weakest_direction": "Weakest direction",
    "utility_deviation": "Deviation of U",
    "utility_range": "Range of U",
    "best_gain": "Best gain in U",
}
# Shares of accepted draws beyond which a rule accepts everything or nothing.
_ALL_OF_THEM, _NONE_OF_THEM = 0.999, 0.001
_ALIKE = 1.05  # ratio of factors that is not worth a word


def study_verdict(cells: Sequence[StudyCell], *, rank: int, num_draws: int) -> Iterator[str]:
    """What the numbers say, in the order of the questions; one sentence or two each."""
    few = [c for c in cells if c["num_kept"] <= c["width"]]
    many = [c for c in cells if c["num_kept"] > c["width"]]
    if few:
        yield f"k ≤ n, C = 1 ({_extent(few)}): {_accepts(few)} {_missed(few)}"
    if many:
        yield f"k > n, C = 1 ({_extent(many)}): {_accepts(many)} {_gave_up(many, num_draws)}"
    yield _over_all(few, many)
    constants = [row["subsample_factor"] for row in cells[0]["paper"][1:]]
    yield from (_larger_constant(cells, constant) for constant in constants)
    scored = [c for c in cells if has_utility(c)]
    if scored:
        yield _footings(scored, rank)
        yield _same_exploration(scored)
    yield _coverage(cells)
    if scored:
        yield _designed_exploration(scored, rank)


def _accepts(cells: Sequence[StudyCell]) -> str:
    accepted = _accepted(cells, 1.0)
    said = f"the paper's rule accepted {share(accepted)} of the draws"
    if accepted >= _ALL_OF_THEM:
        return f"{said}: there it is {RANDOM} under another name."
    if accepted <= _NONE_OF_THEM:
        return f"{said}: there it never finds what it looks for."
    return f"{said}: there it makes a choice."


def _missed(cells: Sequence[StudyCell]) -> str:
    rule = subsample_rule(1.0)
    missed = _mean(cells, lambda c: c["rules"][rule]["missed_share"])
    return f"{share(missed)} of what it keeps misses a direction of the candidates (factor inf)."


def _gave_up(cells: Sequence[StudyCell], num_draws: int) -> str:
    given_up = sum(c["paper"][0]["num_given_up"] for c in cells)
    problems = sum(c["num_problems"] for c in cells)
    least = min(c["largest_kept_leverage_over_n"]["smallest"] for c in cells)
    return (
        f"The largest leverage of a draw was at least {least:.3f} n. After {num_draws} draws "
        f"it had given up on {given_up} of {problems} problems and kept any subset."
    )


def _over_all(few: Sequence[StudyCell], many: Sequence[StudyCell]) -> str:
    parts = [
        f"{share(_accepted(cells, 1.0, 'accepted_over_all'))} with {said}"
        for cells, said in ((few, "k ≤ n"), (many, "k > n"))
        if cells
    ]
    return f"Read with the maximum over all K candidates instead of the kept ones, C = 1 accepts {' and '.join(parts)}."


def _larger_constant(cells: Sequence[StudyCell], constant: float) -> str:
    """What C above 1 accepts, and whether its choice is better where it makes one."""
    below = [c for c in cells if c["num_kept"] <= constant * c["width"]]
    above = [c for c in cells if c["num_kept"] > constant * c["width"]]
    parts = [
        f"{share(_accepted(part, constant))} with {said}"
        for part, said in ((below, "k ≤ C n"), (above, "k > C n"))
        if part
    ]
    said = f"C = {constant:g} accepts {' and '.join(parts)}."
    rule = subsample_rule(constant)
    choosing = [c for c in cells if _NONE_OF_THEM < _accepted([c], constant) < _ALL_OF_THEM]
    ratios = _factor_ratios(choosing, rule)
    if not ratios:
        return said
    typical = float(np.median(ratios))
    effect = "about as well as"
    if not 1.0 / _ALIKE <= typical <= _ALIKE:
        effect = "worse than" if typical > 1.0 else "better than"
    designed = _factor_ratios(choosing, EXCHANGE)
    return (
        f"{said} Where it chooses ({len(ratios)} cells) it does {effect} random subsets: its "
        f"median factor is {typical:.2f} times theirs in the median cell, that of {EXCHANGE} "
        f"{np.median(designed):.2f} times."
    )


def _footings(cells: Sequence[StudyCell], rank: int) -> str:
    """Does the number of coordinates decide alone, whatever the embeddings are?"""
    parts = []
    for footing, name in ((EMBEDDINGS, "the embeddings z"), (DELTAS, "the projected changes")):
        footing_cells = [c for c in cells if c["footing"] == footing]
        parts.append(f"{share(_accepted(footing_cells, 1.0))} of the draws on {name}")
    by_count = sum(
        _accepted([c], 1.0) >= _ALL_OF_THEM if c["num_kept"] <= c["width"] else _accepted([c], 1.0) <= _NONE_OF_THEM
        for c in cells
    )
    return (
        f"On the sets with utilities C = 1 accepts {' and '.join(parts)} (r = {rank}); in {by_count} of "
        f"{len(cells)} cells it accepts all if k ≤ n and nothing if k > n, whatever the "
        "candidates are."
    )


def _same_exploration(cells: Sequence[StudyCell]) -> str:
    rule = subsample_rule(1.0)
    differences = [c["rules"][rule]["against_random"][name] for c in cells for name in MEASURE_TITLES]
    count = sum(d["low"] > 0 or d["high"] < 0 for d in differences)
    said = (
        f"Exploration on the sets with utilities: in {count} of {len(differences)} comparisons (cells times "
        f"measures) what the paper's rule, C = 1, keeps differs from {RANDOM}"
    )
    return f"{said}: it does nothing to exploration." if count == 0 else f"{said}."


def _coverage(cells: Sequence[StudyCell]) -> str:
    """How far random subsets go, and what designed ones add, where k reaches the rank."""
    able = [c for c in cells if c["num_kept"] >= c["rank"]]
    if not able:
        return "No cell has k ≥ rank: every subset misses a direction."
    parts = []
    for rule in (RANDOM, TOP_K, EXCHANGE):
        medians = _medians(able, rule)
        missed = _mean(able, lambda c, rule=rule: c["rules"][rule]["missed_share"])
        parts.append(f"{rule} {np.median(medians):.2f} ({share(missed)} inf)")
    wins = {
        other: sum(a < b for a, b in zip(_medians(able, EXCHANGE), _medians(able, other), strict=True))
        for other in (RANDOM, TOP_K)
    }
    return (
        f"Factor of the kept subsets where k ≥ rank, median cell: {', '.join(parts)}. {EXCHANGE} "
        f"has the lower median factor in {wins[RANDOM]} of {len(able)} cells against {RANDOM}, in "
        f"{wins[TOP_K]} against {TOP_K}."
    )


def _designed_exploration(cells: Sequence[StudyCell], rank: int) -> str:
    full_rank_cells = [c for c in cells if c["footing"] == DELTAS and c["num_kept"] >= rank]
    parts = []
    for name in MEASURE_TITLES:
        differences = [c["rules"][EXCHANGE]["against_random"][name] for c in full_rank_cells]
        higher = sum(d["low"] > 0 for d in differences)
        lower = sum(d["high"] < 0 for d in differences)
        parts.append(f"{MEASURE_TITLES[name]}: higher in {higher}, lower in {lower}")
    return (
        f"{EXCHANGE} on the changes against {RANDOM}, sets with utilities, k ≥ r "
        f"({len(full_rank_cells)} cells): {'; '.join(parts)}. In the others no difference is shown."
    )


def has_utility(cell: StudyCell) -> bool:
    return UTILITY_MEASURES[0] in cell["rules"][RANDOM]["measures"]


def _extent(cells: Sequence[StudyCell]) -> str:
    return f"{len(cells)} cells, {sum(c['num_draws'] for c in cells)} draws"


def _accepted(cells: Sequence[StudyCell], constant: float, reading: str = "accepted") -> float:
    """Share of all draws of the cells that C = constant accepts; nan without cells."""
    rows = [(row[reading], c["num_draws"]) for c in cells for row in c["paper"] if row["subsample_factor"] == constant]
    return sum(value * count for value, count in rows) / sum(count for _, count in rows)


def _medians(cells: Sequence[StudyCell], rule: str) -> list[float]:
    medians = [c["rules"][rule]["median_factor"] for c in cells]
    return [np.inf if median is None else median for median in medians]


def _factor_ratios(cells: Sequence[StudyCell], rule: str) -> list[float]:
    """Median factor over that of random subsets, in the cells where both are finite."""
    pairs = zip(_medians(cells, rule), _medians(cells, RANDOM), strict=True)
    return [ours / random for ours, random in pairs if np.isfinite(ours) and np.isfinite(random)]


def _mean(cells: Sequence[StudyCell], value: Callable[[StudyCell], float]) -> float:
    """Over cells, each as often as it has draws."""
    return float(np.average([value(c) for c in cells], weights=[c["num_draws"] for c in cells]))
