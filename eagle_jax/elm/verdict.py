"""What a run of ELM says of itself: the bar it was given, and the paper's claims.

Tennenholtz et al. 2024 (ELM), *Demystifying Embedding Spaces using Large Language Models*. All is
made from rows of `consistency_table`: other numbers give other sentences. Nothing is decided by
means alone: of two intervals one must lie above the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from eagle_jax.elm.settings import PROFILES
from eagle_jax.reports.markdown import format_interval
from eagle_jax.reports.verdicts import FAILS, HOLDS, MIN_SEEDS, UNDECIDED

SINGLE, TWO, SUMMARY = "single-movie tasks", "two-movie tasks", "summary"
FILM_MIXTURE, USER_MIXTURE = "film_mixture", "user_mixture"
ELM, TEACHER, NEAREST, TEXT_ONLY = "elm", "teacher", "nearest", "text_only"
TEXT_ONLY_EXAMPLE, CHANCE = "text_only_example", "chance"
SYSTEM_NAMES = {
    ELM: "ELM",
    TEACHER: "teacher",
    NEAREST: "nearest item",
    TEXT_ONLY: "text-only, names",
    TEXT_ONLY_EXAMPLE: "text-only, one example",
    CHANCE: "at random",
}
MEASURE_NAMES = {
    "sc": "semantic consistency",
    "bc/spearman": "behavioral consistency (Spearman)",
    "bc/ndcg": "behavioral consistency (NDCG)",
    "slots": "slots recovered",
}
MET, MISSED = "met", "missed"
MIN_SLOTS, MIN_PROFILE_SHARE = 0.85, 0.9

# Table 2 (movies) and table 4 (products): test scores (SC by cosine, BC by Spearman's correlation).
PAPER_MEASURES = "sc", "bc/spearman"
PAPER_SCORES = {
    "summary": (0.91, 0.94), "positive_review": (0.94, 0.81), "negative_review": (0.93, 0.79),
    "neutral_review": (0.92, 0.76), "five_positive_characteristics": (0.91, 0.80),
    "five_negative_characteristics": (0.89, 0.80), "long_description": (0.91, 0.80),
    "funnier": (0.88, 0.81), "sadder": (0.91, 0.82), "scarier": (0.90, 0.84),
    "improve": (0.91, 0.82), "movie_to_viewer": (0.89, 0.80), "pitch": (0.96, 0.80),
    "criticize": (0.89, 0.77), "convince1": (0.92, 0.96), "convince2": (0.90, 0.88),
    "convince3": (0.88, 0.86), "dissuade1": (0.88, 0.85), "dissuade2": (0.88, 0.87),
    "similarities": (0.86, 0.83), "interpolation": (0.89, 0.80), "why_like_nn": (0.83, 0.48),
    "diff_than_nn": (0.82, 0.48), "common_with_nn": (0.77, 0.46),
    "amazon_description": (0.93, 0.92), "amazon_positive_review": (0.95, 0.89),
    "amazon_negative_review": (0.91, 0.94), "amazon_neutral_review": (0.96, 0.82),
    "amazon_endorsement": (0.90, 0.81), "amazon_user_profile": (0.89, 0.87),
}  # fmt: skip

Rows = Sequence[Mapping[str, Any]]
ElmCell = Mapping[str, float]


class Judged(NamedTuple):
    """One line of the bar: `value` must reach `threshold` (SC: lie above it); None: not measured.

    verdict: MET, MISSED or UNDECIDED.
    """

    name: str
    value: float | None
    threshold: float
    verdict: str
    says: str


class ElmClaim(NamedTuple):
    """found: what was measured, a line each; empty where it was not."""

    claim: str
    source: str
    found: tuple[str, ...]
    verdict: str


def judge_bar(rows: Rows) -> list[Judged]:
    """The three lines of the bar. Fewer than `MIN_SEEDS` seeds of ELM decide none of them."""
    profile = _profile_group(rows)
    return [
        _judge(
            rows,
            SINGLE,
            "SC above the nearest item's, intervals apart, mean of the single-movie tasks",
            0.0,
            _gap_to_nearest(rows),
        ),
        _judge(rows, SUMMARY, "Slots of the film recovered on the summary task", MIN_SLOTS, _summary_slots(rows)),
        _judge(
            rows, profile, "BC of user profiles as a share of the teacher's", MIN_PROFILE_SHARE, _share_of_teacher(rows)
        ),
    ]


def _profile_group(rows: Rows) -> str:
    """The task of this run that describes users."""
    return next((row["group"] for row in rows if row["group"] in PROFILES), PROFILES[0])


def _gap_to_nearest(rows: Rows) -> tuple[float, str] | None:
    elm, nearest = (find_cell(rows, SINGLE, system, "sc") for system in (ELM, NEAREST))
    if elm is None or nearest is None:
        return None
    said = f"ELM {format_interval(elm)}, nearest item {format_interval(nearest)}"
    return elm["low"] - nearest["high"], said


def _summary_slots(rows: Rows) -> tuple[float, str] | None:
    slots = find_cell(rows, SUMMARY, ELM, "slots")
    return None if slots is None else (slots["mean"], format_interval(slots))


def _share_of_teacher(rows: Rows) -> tuple[float, str] | None:
    profile = _profile_group(rows)
    elm, teacher = (find_cell(rows, profile, system, "bc/ndcg") for system in (ELM, TEACHER))
    if elm is None or teacher is None or teacher["mean"] <= 0:
        return None
    said = f"NDCG: ELM {format_interval(elm)}, teacher {format_interval(teacher)}"
    if chance := find_cell(rows, profile, CHANCE, "bc/ndcg"):
        said += f", rankings at random {format_interval(chance)}"
    return elm["mean"] / teacher["mean"], said


def _judge(rows: Rows, group: str, name: str, threshold: float, measured: tuple[float, str] | None) -> Judged:
    if measured is None:
        return Judged(name, None, threshold, UNDECIDED, "not measured in this run")
    value, said = measured
    num_seeds = _row(rows, group, ELM)["num_seeds"]
    if num_seeds < MIN_SEEDS:
        few = f"seeds: {num_seeds}, the bar asks for {MIN_SEEDS}; {said}"
        return Judged(name, value, threshold, UNDECIDED, few)
    is_met = value >= threshold and value > 0  # intervals that touch are not apart
    return Judged(name, value, threshold, MET if is_met else MISSED, said)


def paper_claims(rows: Rows, comparisons: Rows, curves: Rows) -> list[ElmClaim]:
    """What sections 4 and appendix F say of ELM, beside what was found here."""
    return [
        _compare_groups(rows),
        _compare_mixtures(comparisons),
        _follow(
            curves,
            "SC of mixtures is lower far away from both movies",
            "section 4, figure 4",
            ("semantic", "interpolation", "sc/point"),
            _ends_and_middle,
        ),
        _follow(
            curves,
            "SC falls along a CAV",
            "section 4, figure 4",
            ("semantic", "extrapolation", "sc/point"),
            _start_and_end,
        ),
        _follow(
            curves,
            "BC of user profiles rises along a CAV",
            "section 4, figure 5",
            ("behavioral", "extrapolation", "bc/ndcg"),
            lambda points: _start_and_end(points)[::-1],
        ),
    ]


def _compare_groups(rows: Rows) -> ElmClaim:
    claim = "Two-movie tasks are done worse than single-movie tasks", "section 4, table 2"
    one, two = (find_cell(rows, group, ELM, "sc") for group in (SINGLE, TWO))
    if one is None or two is None:
        return ElmClaim(*claim, (), UNDECIDED)
    found = f"{SINGLE}, ELM {format_interval(one)} against {TWO}, ELM {format_interval(two)}"
    return ElmClaim(*claim, (found,), _way(one, two))


def _compare_mixtures(comparisons: Rows) -> ElmClaim:
    """On the same mixtures the ELM is higher; differences are paired by mixture."""
    found, ways = [], []
    for row in comparisons:
        measure = {FILM_MIXTURE: "sc", USER_MIXTURE: "bc/ndcg"}.get(row["group"])
        if row["measure"] != measure or not row["baseline"].startswith(TEXT_ONLY):
            continue
        ways.append(_way(row["difference"], {"low": 0.0, "high": 0.0}))
        found.append(
            f"{row['group'].replace('_', ' ')}: ELM {row['system_mean']['mean']:.3f}, "
            f"{SYSTEM_NAMES[row['baseline']]} {row['baseline_mean']['mean']:.3f}, difference "
            f"{format_interval(row['difference'], signed=True)}"
        )
    claim = "Of mixtures, text-only models are less consistent than ELM"
    return ElmClaim(claim, "section 4, figure 3", tuple(found), _of_all(ways))


def _follow(curves: Rows, claim: str, source: str, which: tuple[str, str, str], choose: Any) -> ElmClaim:
    """The claim: on each curve the first of the two places that `choose` names is higher."""
    kind, path, measure = which
    found, ways = [], []
    for curve in curves:
        if (curve["kind"], curve["path"]) != (kind, path):
            continue
        points = [row for row in curve["rows"] if measure in row["cells"]]
        if len(points) < 2:
            continue
        places = choose(points)
        ways.append(_way(*(row["cells"][measure] for row in places)))
        values = [f"{format_interval(p['cells'][measure])} at {p['position']:g}" for p in places]
        found.append(f"{curve['name']}: {', '.join(values)}")
    return ElmClaim(claim, source, tuple(found), _of_all(ways))


def _ends_and_middle(points: Rows) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The better end could flatter: the worse of both ends, and the place nearest to 0.5."""
    ends = min(points[0], points[-1], key=lambda row: row["cells"]["sc/point"]["mean"])
    return ends, min(points, key=lambda row: abs(row["position"] - 0.5))


def _start_and_end(points: Rows) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Step 0 and the largest one."""
    return min(points, key=lambda row: abs(row["position"])), max(points, key=lambda row: row["position"])


def _way(higher: ElmCell, lower: ElmCell) -> str:
    if higher["low"] > lower["high"]:
        return HOLDS
    return FAILS if higher["high"] < lower["low"] else UNDECIDED


def _of_all(ways: Sequence[str]) -> str:
    """All that are decided agree, and there is one."""
    decided = set(ways) - {UNDECIDED}
    return decided.pop() if len(decided) == 1 else UNDECIDED


def summarize_elm(rows: Rows, bar: Sequence[Judged], claims: Sequence[ElmClaim]) -> Iterator[str]:
    """The report's first sentences: extent, bar, who is above whom, claims."""
    profile = _profile_group(rows)
    groups = (SINGLE, TWO, profile)
    elm_rows = [row for row in rows if row["system"] == ELM and row["group"] in groups]
    if elm_rows:
        extents = "; ".join(
            f"{row['group'].replace('_', ' ')}, {row['num_outputs']} outputs about "
            f"{row['num_entities']} {'users' if row['group'] == profile else 'films'}, seeds: "
            f"{row['num_seeds']}"
            for row in elm_rows
        )
        yield f"ELM was judged on films and users that it was not trained on: {extents}."
    else:
        yield "This run has no output of ELM."
    counts = {v: sum(line.verdict == v for line in bar) for v in (MET, MISSED, UNDECIDED)}
    verdicts = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    yield f"Of the {len(bar)} lines of the bar: {verdicts}."
    for group, measure in ((SINGLE, "sc"), (TWO, "sc"), (profile, "bc/ndcg")):
        yield from _order(rows, group, measure)
    judged = "; ".join(f"{claim.claim}: {claim.verdict}" for claim in claims if claim.found)
    if judged:
        yield f"The paper's claims. {judged}."


def _order(rows: Rows, group: str, measure: str) -> Iterator[str]:
    """A sentence: systems with this measure, the highest mean first."""
    cells = {system: find_cell(rows, group, system, measure) for system in SYSTEM_NAMES}
    known = sorted((s for s, c in cells.items() if c), key=lambda s: -cells[s]["mean"])
    if ELM in known and len(known) > 1:
        order = ", ".join(f"{SYSTEM_NAMES[s]} {format_interval(cells[s])}" for s in known)
        yield f"{heading_of(measure)}, {group.replace('_', ' ')}, highest first: {order}."


def paper_score(tasks: Sequence[str], measure: str) -> float | None:
    """The mean of the paper's scores; None where it has none for some task (user profiles)."""
    if not all(task in PAPER_SCORES for task in tasks):
        return None
    place = PAPER_MEASURES.index(measure)
    return sum(PAPER_SCORES[task][place] for task in tasks) / len(tasks)


def heading_of(measure: str) -> str:
    """The measure's name, its first letter large."""
    name = MEASURE_NAMES[measure]
    return name[0].upper() + name[1:]


def find_cell(rows: Rows, group: str, system: str, measure: str) -> ElmCell | None:
    """{"mean", "low", "high"}, None where the run has no such number."""
    row = _row(rows, group, system)
    return None if row is None else row["cells"].get(measure)


def _row(rows: Rows, group: str, system: str) -> Mapping[str, Any] | None:
    return next((r for r in rows if (r["group"], r["system"]) == (group, system)), None)
