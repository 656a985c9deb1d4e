"""The report on learning from people: one page, what helps and what does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from eagle_jax.reports import figures
from eagle_jax.reports.markdown import LEFT, Column, format_interval, table
from eagle_jax.reports.pages import Report, write_pages
from eagle_jax.reports.verdicts import side
from eagle_jax.studies.people import edit_rounds, pair_rewards

_DRAWN = (
    edit_rounds.NOTHING,
    edit_rounds.CIPHER,
    edit_rounds.CIPHER_KEPT,
    edit_rounds.CIPHER_LM,
    edit_rounds.ALL_EDITS,
    edit_rounds.RATINGS_LM,
    edit_rounds.RATINGS,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeopleReport(Report):
    """pair_rewards, edits, alike_pairs: as in `summaries`. num_resamples, seed: of the bootstrap."""

    pair_rewards: Mapping[str, Any]
    edits: Mapping[str, Any]
    alike_pairs: Mapping[str, Any]
    num_resamples: int
    seed: int


def write_people_report(folder: Path, report: PeopleReport) -> Path:
    """Writes report.html, report.md and its figures into `folder`, returns the path of the first."""
    parts = report.pair_rewards, report.edits, report.alike_pairs
    of_learner = {tastes: [r for r in parts[1]["table"] if r["tastes"] == tastes] for tastes in edit_rounds.TASTES}
    context = {
        "data": report,
        "verdicts": table(verdict_rows(report), _VERDICT_COLUMNS),
        "pair_sentences": pair_sentences(parts[0]),
        "edit_sentences": edit_sentences(parts[1]),
        "alike_sentences": alike_sentences(parts[2]),
        "pair_table": table(parts[0]["table"], _pair_columns(parts[0]["columns"])),
        "edit_tables": {tastes: table(rows, _EDIT_COLUMNS) for tastes, rows in of_learner.items()},
        "alike_table": table(parts[2]["table"], _ALIKE_COLUMNS),
        "relations": table(parts[2]["relations"], _RELATION_COLUMNS),
    }
    drawn = {"pairs": _pair_figure(parts[0]), "edits": _edit_figure(parts[1])}
    return write_pages(folder, "studies/people/report", context, drawn)[0]


def _cell(name: str):
    return lambda row: row["cells"].get(name)


def _pair_columns(columns: Sequence[str]) -> list[Column]:
    titles = {name: name.replace("new ", "New, ") if name != pair_rewards.SEEN else "Seen" for name in columns}
    return [Column("Reward", "row", LEFT), *(Column(titles[name], _cell(name)) for name in columns)]


_EDIT_COLUMNS = (
    Column("Learner", "row", LEFT),
    Column("Cost", _cell("cost")),
    Column("Cost, last quarter", _cell("last")),
    Column("Correlation, last quarter", _cell("correlation")),
    Column("Affinity of drafts", _cell("affinity")),
    Column("Malformed", lambda row: sum(row["malformed"].values())),
)
_ALIKE_COLUMNS = (
    Column("Selection", "row", LEFT),
    Column("Labels", "num_labels"),
    Column("Pairs", "num_pairs"),
    Column("Wrong labels", _cell("label_error_rate")),
    Column("Nats gained, training", _cell("displaced_training")),
    Column("Displaced, training", _cell("displaced_share")),
    Column("Nats gained, held out", _cell("displaced_held_out")),
    Column("Accuracy", _cell("accuracy")),
    Column("Win rate", _cell("win_rate")),
    Column("Utility", _cell("utility")),
)
_RELATION_COLUMNS = (
    Column("Score", "row", LEFT),
    Column("Nats gained", _cell("gain")),
    Column("Cosine of mean states", _cell("similarity")),
    Column("True gap", _cell("true_gap")),
)


_VERDICTS = {1: "helps", -1: "harms", 0: "not told apart"}
_VERDICT_COLUMNS = (
    Column("What", "what", LEFT),
    Column("Against", "against", LEFT),
    Column("Measure", "measure", LEFT),
    Column("Difference", lambda row: format_interval(row["difference"], signed=True)),
    Column("Verdict", "verdict", LEFT),
)


def verdict_rows(report: PeopleReport) -> Iterator[dict[str, Any]]:
    """One line for each question: of rewards with the most feedback, of learners all, of policies accuracy and wins."""
    rewards, edits, alike = report.pair_rewards, report.edits, report.alike_pairs
    count = rewards["counts"][-1]
    for row in rewards["differences"]:
        if row["num_feedback"] == count:
            yield _verdict(row["ours"], row["theirs"], f"accuracy, {count} pairs or ratings", row["difference"])
    for row in edits["differences"]:
        yield _verdict(row["ours"], row["theirs"], f"cost, {row['tastes']}", row["cost"], lower_is_better=True)
    for row in alike["differences"]:
        for name, measure in (
            ("displaced_held_out", "nats of preferred responses, held out"),
            ("accuracy", "accuracy"),
            ("win_rate", "win rate"),
        ):
            yield _verdict(row["ours"], row["theirs"], measure, row[name])


def _verdict(ours: str, theirs: str, measure: str, difference: Any, lower_is_better: bool = False) -> dict[str, Any]:
    verdict = _VERDICTS[side(difference) * (-1 if lower_is_better else 1)]
    return {"what": ours, "against": theirs, "measure": measure, "difference": difference, "verdict": verdict}


def _compared(ours: str, theirs: str, difference: Any, *, lower_is_better: bool = False, unit: str = "") -> str:
    """What the interval of a difference allows one to say."""
    direction = side(difference) * (-1 if lower_is_better else 1)
    words = {1: "is better than", -1: "is worse than", 0: "is not told apart from"}[direction]
    return f"{ours} {words} {theirs}: {format_interval(difference, signed=True)}{unit}."


def pair_sentences(part: Mapping[str, Any]) -> Iterator[str]:
    """PAL and WALS, at the fewest and the most feedback of new users."""
    told = ", ".join(f"{count} with {name}" for name, count in part["best"].items())
    yield f"The number of prototypes K that is best on seen users: {told}."
    for count in dict.fromkeys((part["counts"][0], part["counts"][-1])):
        for row in part["differences"]:
            if row["num_feedback"] == count:
                said = f"pair{'s' * (count > 1)} or rating{'s' * (count > 1)}"
                yield f"With {count} {said}: {_compared(row['ours'], row['theirs'], row['difference'])}"


def edit_sentences(part: Mapping[str, Any]) -> Iterator[str]:
    """Learners of edits and of ratings: by cost, and by what their preferences say."""
    for row in part["differences"]:
        cost = _compared(row["ours"], row["theirs"], row["cost"], lower_is_better=True, unit=" tokens a draft")
        said = {1: "says more of the taste", -1: "says less of it", 0: "says as much of it"}[side(row["correlation"])]
        yield (
            f"{row['tastes'].capitalize()}: {cost} By the last rounds it {said}: "
            f"{format_interval(row['correlation'], signed=True)} of correlation."
        )


def alike_sentences(part: Mapping[str, Any]) -> Iterator[str]:
    """Displacement and what it is worth, for CHES against all pairs, fewer labels and the opposite choice."""
    for row in part["differences"]:
        gained = {1: "gain more likelihood", -1: "gain less likelihood", 0: "are not told apart in likelihood"}
        yield (
            f"{row['ours']} against {row['theirs']}: preferred responses {gained[side(row['displaced_training'])]} in "
            f"training ({format_interval(row['displaced_training'], signed=True)} nats), held out "
            f"{format_interval(row['displaced_held_out'], signed=True)}; accuracy "
            f"{format_interval(row['accuracy'], signed=True)}, win rate "
            f"{format_interval(row['win_rate'], signed=True)}."
        )


def _pair_figure(part: Mapping[str, Any]) -> Figure:
    """Accuracy of new users against what they said; of PAL the best K of both features, and K = 1."""
    chosen = [f"{pair_rewards.PAL}, K = {count}, {name}" for name, count in part["best"].items()]
    chosen += [f"{pair_rewards.PAL}, K = 1, {pair_rewards.STATES}", pair_rewards.WALS, pair_rewards.WALS_PRIOR]
    chosen.append(pair_rewards.KNOWN)
    curves = [
        {
            "row": row["row"],
            "metrics": {
                "accuracy of new users": {
                    "step": part["counts"],
                    "value": [row["cells"][f"new {count}"]["mean"] for count in part["counts"]],
                }
            },
        }
        for row in part["table"]
        if row["row"] in dict.fromkeys(chosen)
    ]
    return figures.curves_figure(curves, "pairs or ratings")


def _edit_figure(part: Mapping[str, Any]) -> Figure:
    """Cost and correlation by round, a line for each learner."""
    curves = []
    for learner in _DRAWN:
        metrics = {}
        for curve in part["curves"]:
            if curve["row"] == learner:
                for name in ("cost", "correlation"):
                    steps = list(range(len(curve[name])))
                    metrics[f"{name}, {curve['tastes']}"] = {"step": steps, "value": curve[name]}
        curves.append({"row": learner, "metrics": metrics})
    panels = {name: figures.Panel(name, name.partition(",")[0]) for curve in curves for name in curve["metrics"]}
    return figures.curves_figure(curves, "edits or ratings", panels)
