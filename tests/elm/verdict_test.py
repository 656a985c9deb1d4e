"""ELM's bar and the paper's claims follow from the rows, whichever way these go."""

import pytest

from eagle_jax.data.tasks import TASKS
from eagle_jax.elm.verdict import (
    FILM_MIXTURE,
    MET,
    MISSED,
    PAPER_SCORES,
    SINGLE,
    TWO,
    USER_MIXTURE,
    judge_bar,
    paper_claims,
    summarize_elm,
)
from eagle_jax.reports.verdicts import FAILS, HOLDS, UNDECIDED
from tests.elm.consistency_rows import PROFILE, all_rows, cell, comparison, curve, mixtures

_CURVES = [
    curve("semantic", "interpolation", [0.8, 0.7, 0.8]),
    curve("semantic", "extrapolation", [0.8, 0.7, 0.6]),
    curve("behavioral", "extrapolation", [0.5, 0.6, 0.7]),
]


def test_the_papers_table_is_complete():
    """Table 2 has 24 tasks and table 4 six; the sums of their columns were taken from the paper."""
    movies = [PAPER_SCORES[name] for name, task in TASKS.items() if task.group == "movie"]
    products = [PAPER_SCORES[name] for name, task in TASKS.items() if task.group == "amazon"]
    assert len(movies) == 24 and len(products) == 6 and len(PAPER_SCORES) == 30
    assert sum(sc for sc, _ in movies) == pytest.approx(21.38)
    assert sum(bc for _, bc in movies) == pytest.approx(18.83)
    assert sum(sc for sc, _ in products) == pytest.approx(5.54)
    assert sum(bc for _, bc in products) == pytest.approx(5.25)


def _with(group, system, measure, value):
    """All rows, but for one cell."""
    rows = all_rows()
    (row,) = [r for r in rows if (r["group"], r["system"]) == (group, system)]
    row["cells"][measure] = value
    return rows


def test_the_bar_turns_with_the_numbers():
    bar = judge_bar(all_rows())
    assert [line.verdict for line in bar] == [MET, MET, MISSED]
    # ELM's low end 0.78, the nearest item's high end 0.62; slots; NDCG 0.7 of the teacher's 0.8.
    assert [line.value for line in bar] == pytest.approx([0.16, 0.875, 0.875])

    def verdicts(*change):
        return [line.verdict for line in judge_bar(_with(*change))]

    # A higher mean is not enough while the intervals meet.
    assert verdicts(SINGLE, "nearest", "sc", cell(0.7, 0.09)) == [MISSED, MET, MISSED]
    assert verdicts("summary", "elm", "slots", cell(0.8499)) == [MET, MISSED, MISSED]
    assert verdicts("summary", "elm", "slots", cell(0.85)) == [MET, MET, MISSED]
    assert verdicts(PROFILE, "elm", "bc/ndcg", cell(0.73)) == [MET, MET, MET]
    few = [row | {"num_seeds": 2} if row["group"] == SINGLE else row for row in all_rows()]
    assert [line.verdict for line in judge_bar(few)] == [UNDECIDED, MET, MISSED]


def test_the_bar_says_what_was_not_measured():
    assert [(line.value, line.verdict) for line in judge_bar([])] == [(None, UNDECIDED)] * 3
    rows = [row for row in all_rows() if row["system"] != "teacher"]
    assert [line.verdict for line in judge_bar(rows)] == [MET, MET, UNDECIDED]
    assert judge_bar(rows)[2].says == "not measured in this run"


def test_claims_turn_with_the_numbers():
    rows, compared, curves = all_rows(), mixtures(), _CURVES

    def verdicts(rows, curves, compared=compared):
        return [claim.verdict for claim in paper_claims(rows, compared, curves)]

    assert verdicts(rows, curves) == [HOLDS] * 5
    assert verdicts([], [], []) == [UNDECIDED] * 5
    assert all(claim.found == () for claim in paper_claims([], [], []))
    assert verdicts(_with(TWO, "elm", "sc", cell(0.9)), curves)[0] == FAILS
    assert verdicts(_with(TWO, "elm", "sc", cell(0.79)), curves)[0] == UNDECIDED
    # Text-only above ELM on one of three comparisons: they do not agree.
    *others, users = compared
    above = [*others, comparison(USER_MIXTURE, "text_only", "bc/ndcg", -0.1)]
    assert verdicts(rows, curves, above)[1] == UNDECIDED
    # One that is not decided takes nothing away; all of them decided the other way do.
    close = comparison(FILM_MIXTURE, "text_only", "sc", 0.01)
    assert verdicts(rows, curves, [users, close])[1] == HOLDS
    assert verdicts(rows, curves, above[-1:])[1] == FAILS
    opposite = [
        curve("semantic", "interpolation", [0.7, 0.8, 0.7]),
        curve("semantic", "extrapolation", [0.6, 0.7, 0.8]),
        curve("behavioral", "extrapolation", [0.7, 0.6, 0.5]),
    ]
    assert verdicts(rows, opposite)[2:] == [FAILS] * 3
    assert verdicts(rows, [*curves, *opposite])[2:] == [UNDECIDED] * 3
    # One end is no better than the middle.
    uneven = [curve("semantic", "interpolation", [0.9, 0.8, 0.8])]
    assert verdicts(rows, uneven)[2] == UNDECIDED


def test_the_summary_says_what_the_rows_say():
    rows = all_rows()
    said = list(summarize_elm(rows, judge_bar(rows), paper_claims(rows, [], _CURVES)))
    assert said[1] == "Of the 3 lines of the bar: 2 met, 1 missed."
    assert said[2].startswith(
        "Semantic consistency, single-movie tasks, highest first: teacher 0.900 [0.880, 0.920], ELM 0.800"
    )
    assert list(summarize_elm([], judge_bar([]), paper_claims([], [], []))) == [
        "This run has no output of ELM.",
        "Of the 3 lines of the bar: 3 not decided here.",
    ]
