"""The page of preference pairs: its numbers, what models wrote, and what a run does not have."""

import dataclasses
import math

import pytest

from eagle_jax.real.report import RealReport, write_real_report
from eagle_jax.real.settings import GRAMMAR_RATER
from eagle_jax.reports.markdown import fact, to_markdown

_EVIL = "<script>alert(1)</script> | [x](y) **bold**"
_LEVELS = {"random": 0.5, "easy": 0.7, "centroid": 0.6, "hard": 0.4}
_SEEDS = range(2)


def _run(strategy, num_labels, seed):
    value = _LEVELS[strategy] + 0.01 * seed * (strategy != "random") + num_labels / 1e4
    rewards = {"rewards/margin": value, "rewards/accuracy": value}
    row = {"strategy": strategy, "num_labels": num_labels, "seed": seed}
    row |= {"label_error_rate": 0.25, "mean_similarity": 1.0 - value}
    row |= {"train": {"loss": 0.5, **rewards}, "held_out": {"loss": 1.0 - value, **rewards}}
    return row | {"win_rate_true": value, "win_rate_rater": value if seed else None}


_SETTINGS = {
    "minilens": None,
    "files": {"paths": ["/data/own.csv", "more.jsonl"]},
    "supervised": None,
    "models": {"policy": "a-policy"},
    "selection": {"scope": "across", "embedding": "mean"},
    "labels": {"source": "data"},
    "num_labels": [100, 200],
    "rater": None,
}
# Somebody's own data: one seed, one number of labels, no true utility, no rater.
_FEW = RealReport(
    title="Which pairs are worth a label?",
    confidence=0.95,
    num_prompts={"train": 40, "test": 20},
    runs=[
        _run(strategy, 200, 0) | dict.fromkeys(("label_error_rate", "win_rate_true", "win_rate_rater"))
        for strategy in ("random", "easy", "hard")
    ],
    **dict.fromkeys(("curves", "stability", "selection", "pairs", "embeddings", "samples", "stages"), ()),
    settings=_SETTINGS,
    provenance={"commit": "abc"},
)
_WHOLE = dataclasses.replace(
    _FEW,
    runs=[_run(s, n, seed) for s in _LEVELS for n in (100, 200) for seed in _SEEDS],
    curves=[
        {"strategy": s, "num_labels": 200, "seed": seed, "step": steps, "metrics": {"loss": [0.5] * len(steps)}}
        for s in _LEVELS
        for seed in _SEEDS
        for steps in [list(range(0, 30, 2 + seed))]  # the seeds share every sixth step
    ],
    stability=[
        {"strategy": s, "seed": seed, "step": step, "rank_correlation": 1.0 - step / 1e3, "easy_overlap": 0.875}
        | {"quantiles": [0.1, 0.2, 0.3 + step / 1e3, 0.4, 0.5]}
        for s in _LEVELS
        for seed in _SEEDS
        for step in (0, 40)
    ],
    selection=[
        {"strategy": "easy", "num_pairs": 200, "mean_similarity": 0.3125, "mean_true_gap": None, "num_invalid": 7}
    ],
    pairs=[{"strategy": "random", "similarity": i / 200, "true_gap": 1.0, "is_error": i % 4 == 0} for i in range(200)]
    + [{"strategy": "easy", "similarity": 0.5, "true_gap": None, "is_error": None} for _ in range(200)],
    embeddings=[
        {"embedding": "last token", "metric": "euclidean", "strategy": "hard", "num_pairs": 5, "overlap": 0.375}
        | {"mean_similarity": -1.5, "mean_true_gap": 0.25, "label_error_rate": None}
    ],
    samples=[{"prompt": _EVIL, "rows": [{"strategy": "easy", "text": _EVIL, "true_utility": 0.125}]}],
    stages=[{"title": "Read", "facts": [fact("bad rows", 3, _EVIL)]}],
    settings=_SETTINGS
    | {
        "minilens": {"num_train": 40},
        "supervised": {"num_steps": 1},
        "rater": {"model": GRAMMAR_RATER},
        "labels": {"source": "simulated", "temperature": 0.5},
        "selection": {"scope": "within", "embedding": "mean"},
    },
)


def _page(folder, data):
    return write_real_report(folder, data)[1].read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return _page(tmp_path_factory.mktemp("report"), _WHOLE)


def test_tables_hold_the_numbers(text):
    # easy has 0.72 and 0.73 with 200 labels: mean 0.725, s = 0.00707, t of 1 degree of freedom at
    # 97.5 % is 12.706: +- 12.706 * 0.00707 / sqrt(2) = 0.0635. Random has 0.52 twice.
    row = "| easy | 200 | 2 | 0.275 [0.211, 0.339] | 0.725 [0.661, 0.789] |"
    assert text.count(row) == 2  # once among all numbers of labels
    assert text.count("| easy | 100 | 2 | 0.285 [0.221, 0.349] |") == 1
    assert text.count("+0.205 [+0.141, +0.269] ↑ |") == 9
    assert "easy − random: +0.205 [+0.141, +0.269]; easy − hard: +0.300" in text.replace("\\", "")
    assert "0.730 (seeds: 1)" in text  # the rater was asked on one seed only
    assert "| easy | 200 | 0.3125 | – | 7 |" in text
    assert "| last token | euclidean | hard | 5 | -1.5 | 0.25 | – | 0.375 |" in text
    assert "| random | 2 | 40 | 0.3 | 0.34 | 0.960 [0.960, 0.960] | 0.875 [0.875, 0.875] |" in text
    assert "| bad rows | 3 |" in text and "of 200 labels" in text


def test_what_models_wrote_stays_text(text):
    assert text.count(to_markdown(_EVIL)) == 3 and "<script" not in text


def test_what_a_run_is_and_does_not_have_is_said(text, tmp_path):
    for sentence in (
        "A user of MiniLens, told by a profile, asks for a film.",
        "40 prompts to label responses of, 20 held out. Strategies select a pair of the responses "
        "to each prompt, by the embedding 'mean'. The policy is a-policy.",
        "sigmoid(gap in true utility / 0.5)",
        "against the supervised start with 200 labels",
        "The grammar's teacher: ",
    ):
        assert sentence in text
    few = _page(tmp_path, _FEW)
    for sentence in (
        "Prompts and responses of own.csv, more.jsonl. The true preference is what",
        "Strategies select the prompts, each with one pair of responses",
        "The data's own labels or scores are the labels.",
        "What REAL claims of centroid was not measured in this run.",
        "No rater was asked in this run.",
        "labels saved cannot be told.",
        "This run does not know which labels are wrong, or of too few pairs.",
        "No training curves were recorded with 200 labels.",
        "Stability was not measured in this run.",
        "No responses were kept in this run.",
        "- Not part of this run: True utility",
        "- Not part of this run: Win rates by a rater",
    ):
        assert sentence in few and sentence not in text
    assert "| holds |" not in few and "Wrong labels" not in few
    assert "| easy | 200 | 1 | 0.280 | 0.720 |" in few and "All numbers of labels" not in few
    assert [path.name for path in tmp_path.glob("*.png")] == ["report_budget.png"]


def test_a_number_that_is_not_finite_is_refused_by_name(tmp_path):
    for name, change, named in (
        ("runs", {"held_out": {"loss": math.nan}}, "strategy 'random', num_labels 100, seed 0, metric 'held_out/loss'"),
        ("stability", {"quantiles": [0.1, 0.2, math.nan, 0.4, 0.5]}, r"stability\[0\], quantiles\[2\]: nan"),
        ("pairs", {"true_gap": math.inf}, r"pairs\[0\], true_gap: inf"),
    ):
        first, *others = getattr(_WHOLE, name)
        changed = {name: [first | change, *others]}
        with pytest.raises(ValueError, match=named):
            write_real_report(tmp_path, dataclasses.replace(_WHOLE, **changed))
    assert not list(tmp_path.iterdir())
