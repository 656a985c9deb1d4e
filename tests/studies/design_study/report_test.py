"""The study's report says what its cells say, and other cells make it say something else."""

import copy
import dataclasses

import pytest

from eagle_jax.reports.markdown import to_markdown
from eagle_jax.studies.design_study.measures import ALL, DELTAS, EMBEDDINGS, EXCHANGE, RANDOM, TOP_K, subsample_rule
from eagle_jax.studies.design_study.report import StudyData, factor_text, write_study_report
from eagle_jax.studies.design_study.verdict import MEASURE_TITLES, study_verdict

_EVIL = "<script>alert(1)</script> | [x](y) **bold**"
_PAPER, _LARGER = subsample_rule(1.0), subsample_rule(1.5)


def _rule(factor, difference, missed=0.0, utility=True):
    names = list(MEASURE_TITLES)[: None if utility else 3]
    width = 0.01 * bool(difference)
    against = {"mean": difference, "low": difference - width, "high": difference + width}
    return {
        "median_factor": factor,
        "worst_finite_factor": None if missed else 2 * factor,
        "missed_share": missed,
        "rank_share": 0.625 if missed else 1.0,
        "measures": dict.fromkeys(names, {"mean": 0.5 + difference, "low": 0.4 + difference, "high": 0.6 + difference}),
        "against_random": dict.fromkeys(names, against),
    }


def _cell(name, footing, width, num_kept, *, utility=True):
    few = num_kept <= width
    missed = float(num_kept < width)
    factors = {
        RANDOM: (12.5, 0.0),
        _PAPER: (12.5, 0.0),
        _LARGER: (25.0, 0.0),
        TOP_K: (2.5, 0.2),
        EXCHANGE: (1.625, 0.3),
    }
    rules = {
        rule: _rule(None if missed else factor, difference, missed, utility)
        for rule, (factor, difference) in factors.items()
    }
    leverage = num_kept / width
    paper = [
        {"subsample_factor": 1.0, "accepted": float(few), "accepted_over_all": 0.03125, "num_given_up": 4 * (not few)},
        {"subsample_factor": 1.5, "accepted": 1.0 if leverage <= 1.5 else 0.25, "accepted_over_all": 0.0}
        | {"num_given_up": 0},
    ]
    return {
        **{"set": name, "footing": footing, "width": width, "num_candidates": 100, "num_kept": num_kept},
        **{"num_problems": 4, "num_draws": 400, "rank": float(width), "paper": paper},
        "largest_kept_leverage_over_n": {
            "smallest": leverage if few else 1.25,
            "median": leverage,
            "largest": leverage,
        },
        "rules": rules | {ALL: _rule(1.1, 0.1, utility=utility)},
    }


@pytest.fixture
def cells():
    return [
        _cell("isotropic, n = 16", EMBEDDINGS, 16, 10, utility=False),
        _cell("isotropic, n = 4", EMBEDDINGS, 4, 10, utility=False),
        _cell("MiniLens, n = 16", EMBEDDINGS, 16, 10),
        _cell("MiniLens, n = 16", DELTAS, 8, 10),
    ]


@pytest.fixture
def data(cells):
    return StudyData(
        title="A study <of> ours",
        confidence=0.95,
        rank=8,
        num_draws=100,
        shown_num_candidates=100,
        shown_num_kept=10,
        cells=cells,
        sets=[{"name": "MiniLens, n = 16", "origin": _EVIL}],
        left_out=[f"MovieLens: {_EVIL}"],
        settings={"seed": 0, "study": {"num_draws": 100}},
        provenance={"commit": _EVIL},
    )


def _said(cells):
    return " ".join(study_verdict(cells, rank=8, num_draws=100))


def test_verdict_tells_what_the_cells_hold(cells):
    said = _said(cells)
    for sentence in (
        "k ≤ n, C = 1 (2 cells, 800 draws): the paper's rule accepted 100 % of the draws: there it "
        "is random_subset under another name. 100 % of what it keeps misses a direction",
        "k > n, C = 1 (2 cells, 800 draws): the paper's rule accepted 0 % of the draws: there it "
        "never finds what it looks for. The largest leverage of a draw was at least 1.250 n. After "
        "100 draws it had given up on 8 of 8 problems",
        "C = 1 accepts 3.1 % with k ≤ n and 3.1 % with k > n.",
        "C = 1.5 accepts 100 % with k ≤ C n and 25 % with k > C n. Where it chooses (1 cells) it "
        "does worse than random subsets: its median factor is 2.00 times theirs in the median "
        "cell, that of exchange 0.13 times.",
        "C = 1 accepts 100 % of the draws on the embeddings z and 0 % of the draws on the "
        "projected changes (r = 8); in 2 of 2 cells",
        "in 0 of 12 comparisons (cells times measures) what the paper's rule, C = 1, keeps differs "
        "from random_subset: it does nothing to exploration.",
        "random_subset 12.50 (0 % inf), top_k 2.50 (0 % inf), exchange 1.62 (0 % inf). exchange "
        "has the lower median factor in 2 of 2 cells against random_subset, in 2 against top_k.",
        "k ≥ r (1 cells): Distance: higher in 1, lower in 0;",
    ):
        assert sentence in said


def test_other_cells_make_another_verdict(cells):
    flipped = copy.deepcopy(cells)
    for cell in flipped:
        few = cell["num_kept"] <= cell["width"]
        cell["paper"][0] |= {"accepted": 0.0 if few else 0.5, "num_given_up": 4 if few else 0}
        for rule in (EXCHANGE, TOP_K):
            cell["rules"][rule] = _rule(50.0, -0.3)
        cell["rules"][_LARGER]["median_factor"] = 5.0
    alike = copy.deepcopy(flipped)
    alike[1]["rules"][_LARGER]["median_factor"] = 12.0
    assert "it does about as well as random subsets: its median factor is 0.96" in _said(alike)
    flipped[3]["rules"][_PAPER] = _rule(3.0, 0.4)
    said = _said(flipped)
    for sentence in (
        "accepted 0 % of the draws: there it never finds what it looks for. 100 % of",
        "accepted 50 % of the draws: there it makes a choice.",
        "given up on 0 of 8 problems",
        "it does better than random subsets: its median factor is 0.40 times theirs",
        "in 0 of 2 cells it accepts all if k ≤ n",
        "in 6 of 12 comparisons (cells times measures) what the paper's rule, C = 1, keeps differs "
        "from random_subset. ",
        "exchange 50.00 (0 % inf). exchange has the lower median factor in 0 of 2 cells",
        "Distance: higher in 0, lower in 1;",
    ):
        assert sentence in said
    assert "under another name" not in said and "does nothing" not in said


def test_a_factor_is_told_with_what_it_hides():
    assert factor_text(_rule(None, 0.0, 1.0)) == "inf (100 % inf, rank covered 62.5 %)"
    assert factor_text(_rule(1.5, 0.0)) == "1.50 (worst 3)"


def test_the_report_holds_the_sentences_and_the_numbers(data, tmp_path):
    html, markdown = write_study_report(tmp_path, data)
    text = markdown.read_text(encoding="utf-8")
    assert text.count(to_markdown(_EVIL)) == 3 and "<script" not in text
    for sentence in study_verdict(data.cells, rank=8, num_draws=100):
        assert f"- {to_markdown(sentence)}\n" in text
    assert "| exchange | 0.800 [0.700, 0.900] ↑ |" in text
    assert "| MiniLens, n = 16 | changes | 8 | 100 | 10 | k > n | 0 % | 100 % | 3.1 % | 1.25 | 4 of 4 |" in text
    row = "| MiniLens, n = 16 | changes | 8 | 100 | 10 | 12.50 (worst 25) |"
    assert text.count(row) == 2  # as shown, and among all cells
    assert html.read_text(encoding="utf-8").count("<svg") == text.count("![") == 4


def test_report_of_made_up_sets_only(data, tmp_path):
    _, markdown = write_study_report(
        tmp_path, dataclasses.replace(data, cells=[c for c in data.cells if "iso" in c["set"]])
    )
    text = markdown.read_text(encoding="utf-8")
    assert "No set of this run has utilities." in text and "On the sets with utilities" not in text
