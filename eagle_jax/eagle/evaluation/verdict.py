"""What a run came to, in sentences that its intervals allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eagle_jax.eagle.evaluation.episodes import plot_alone
from eagle_jax.eagle.evaluation.report_tables import ENCODERS, HELD_FIELDS, TableRows
from eagle_jax.eagle.evaluation.systems import (
    ANCHOR,
    DPO,
    EAGLE,
    EXPERT,
    FOR_OTHERS,
    HEAD,
    MEANINGS,
    PLANNER,
    REFERENCE,
    TRANSFER,
    for_others,
)
from eagle_jax.embeddings.scorer import TRAIN, judge_of
from eagle_jax.reports.markdown import format_interval
from eagle_jax.reports.verdicts import side

# How a row stands to another: by both encoders, by the training encoder alone, not shown, lower by that.
_HIGHER, _ALONE, _UNSHOWN, _LOWER = "higher", "alone", "unshown", "lower"
# Whose row it is compared with -> how it stands to it -> the sentence; U: from what to what.
_SAID = {
    ANCHOR: {
        _HIGHER: "{row} turns a text into one that its user values more: U {path}, by the {judge} {judge_path}.",
        _ALONE: "{row} raises U by the training encoder alone: {path}; the {judge} shows no gain, {judge_path}.",
        _UNSHOWN: "{row} is not shown to make a text that its user values more: U {path}, by the {judge} {judge_path}.",
        _LOWER: "{row} turns a text into one that its user values less: U {path}, by the {judge} {judge_path}.",
    },
    REFERENCE: {
        _HIGHER: "Training added {gain} over {other}, by the {judge} {judge_gain}.",
        _ALONE: "Training added {gain} over {other} by the training encoder alone; by the {judge} {judge_gain}.",
        _UNSHOWN: "Training added nothing that shows over {other}: {gain}, by the {judge} {judge_gain}.",
        _LOWER: "Training took away from {other}: {gain}, by the {judge} {judge_gain}.",
    },
    FOR_OTHERS: {
        _HIGHER: "It acts for its user: told of another one it comes to less, by {gain}, by the {judge} {judge_gain}.",
        _ALONE: "It acts for its user by the training encoder alone: {gain}, by the {judge} {judge_gain}.",
        _UNSHOWN: "It is not shown to act for its user: over {other} {gain}, by the {judge} {judge_gain}.",
        _LOWER: "It comes to more where it is told of another user: {gain}, by the {judge} {judge_gain}.",
    },
}
_SAID |= {EXPERT: _SAID[REFERENCE], for_others(PLANNER): _SAID[FOR_OTHERS], for_others(HEAD): _SAID[FOR_OTHERS]}
_TRAINED = (EXPERT, EAGLE, DPO)  # began as a reference policy
_BESIDE = {
    _HIGHER: "above",
    _ALONE: "above by the training encoder alone",
    _UNSHOWN: "not told apart from",
    _LOWER: "below",
}


def verdict_sentences(rows: TableRows, comparisons: TableRows) -> Iterator[str]:
    """For each compared row, by the training encoder and its most independent judge: whether its texts are valued more
    than their anchors, what training added, whether that is personal, and what it is above and below."""
    fields = {row["row"]: row for row in rows}
    judge = judge_of({one["encoder"] for one in comparisons})
    pairs: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for one in comparisons:
        pairs.setdefault((one["row"], one["baseline"]), {})[one["encoder"]] = one
    for row in dict.fromkeys(row for row, _ in pairs):
        said: list[str] = []
        beside: dict[str, list[str]] = {how: [] for how in _BESIDE}
        for other in (other for own, other in pairs if own == row):
            ours, judged = (pairs[row, other][encoder] for encoder in (TRAIN, judge))
            how = _how(ours["difference"], judged["difference"])
            sayings = _SAID.get(fields[other].get("system", other))
            if sayings is None or (sayings is _SAID[REFERENCE] and fields[row].get("system") not in _TRAINED):
                gains = (f"{one['difference']['mean']:+.3f}" for one in (ours, judged))
                beside[how].append(f"{other} ({', '.join(gains)})")
                continue
            gain, judge_gain = (format_interval(one["difference"], signed=True) for one in (ours, judged))
            path, judge_path = (_path(one) for one in (ours, judged))
            words = {"row": row, "other": other, "judge": ENCODERS[judge], "gain": gain, "judge_gain": judge_gain}
            said.append(sayings[how].format(**words, path=path, judge_path=judge_path))
        stands = "; ".join(f"{words} {', '.join(beside[how])}" for how, words in _BESIDE.items() if beside[how])
        if stands:
            said.append(f"{'It' if said else row} is {stands}.")
        yield " ".join(said)


def _path(comparison: Mapping[str, Any]) -> str:
    return f"{comparison['baseline_utility']['mean']:.3f} to {comparison['utility']['mean']:.3f}"


def _how(difference: Mapping[str, float], judged: Mapping[str, float]) -> str:
    """By the sides of 0 on which the intervals of both encoders lie."""
    if side(difference) == 1:
        return _HIGHER if side(judged) == 1 else _ALONE
    return _LOWER if side(difference) == -1 else _UNSHOWN


def row_meanings(rows: TableRows) -> Iterator[str]:
    """What the rows of this table are; evaluations of earlier versions do not say whose they are."""
    for system in dict.fromkeys(row["system"] for row in rows if "system" in row):
        yield f"{system}: {MEANINGS[system]}"
    if any(row.get("policy") for row in rows):
        yield "A policy behind best of and search: whose actions are chosen among, if not the reference policy's."
    if any(row.get("environment") == TRANSFER for row in rows):
        yield f"{TRANSFER}: another model carries out the same policies' actions."


def steering_sentences(rows: TableRows) -> Iterator[str]:
    """For each agent whether more than the fields of a text steers, where texts have fields."""
    agents = [row for system in (PLANNER, EAGLE, HEAD) for row in rows if row.get("system") == system]
    for row in agents:
        judge = judge_of([name for name in ENCODERS if row["cells"].get(f"{name}/gain")])
        gain, plot = (row["cells"].get(f"{name}/gain") for name in (judge, plot_alone(judge)))
        if plot is None:
            continue
        told = f"{format_interval(gain, signed=True)} in U over the anchor by the {ENCODERS[judge]}"
        held = f"{format_interval(plot, signed=True)} with {HELD_FIELDS}"
        if gain["low"] <= 0:
            yield f"{row['row']} is not shown to gain anything: {told}, {held}."
        elif plot["low"] <= 0:
            yield f"Only genres and year steer: {row['row']} gains {told}, {held}."
        else:
            yield f"{row['row']} gains {told}, {held}."
