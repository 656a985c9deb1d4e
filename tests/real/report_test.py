"""The report of preference pairs stands alone, escapes what models wrote, and works in parts."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser

import pytest

from eagle_jax.real.report import RealReport, write_real_report

_EVIL = "<script>alert(1)</script> | [x](y) **bold** <img src=http://a.example/x.png>"
_LEVELS = {"random": 0.5, "easy": 0.7, "centroid": 0.6, "hard": 0.4}


def _run(strategy, num_labels, seed):
    value = _LEVELS[strategy] + 0.01 * seed * (strategy != "random") + num_labels / 1e4
    rewards = {"rewards/margin": value, "rewards/accuracy": value}
    return {
        "strategy": strategy, "num_labels": num_labels, "seed": seed,
        "label_error_rate": 0.25, "mean_similarity": 1.0 - value,
        "train": {"loss": 0.5, **rewards},
        "held_out": {"loss": 1.0 - value, "rewards/chosen": value / 2,
                     "rewards/rejected": -value / 2, **rewards},
        "win_rate_true": value, "win_rate_rater": value if seed else None, "rater_agreement": 0.75,
        "mean_true_utility": 1.5, "malformed_share": 0.0,
    }  # fmt: skip


def _curve(strategy, seed):
    steps = list(range(0, 30, 2 + seed))  # seeds share every sixth step
    return {
        "strategy": strategy, "num_labels": 200, "seed": seed, "step": steps,
        "metrics": {"loss": [0.7 - 0.01 * s for s in steps], "rewards/margin": [0.1] * len(steps)},
    }  # fmt: skip


def _stability(strategy, seed, step):
    return {
        "strategy": strategy, "seed": seed, "step": step,
        "quantiles": [0.1, 0.2, 0.3 + step / 1e3, 0.4, 0.5],
        "rank_correlation": 1.0 - step / 1e3, "easy_overlap": 0.875,
    }  # fmt: skip


@pytest.fixture(scope="module")
def data():
    """As it is read from the artifacts of a run: all of it went through JSON."""
    seeds = range(2)
    made = RealReport(
        title="Which pairs <are> worth a label?",
        task="Films for users.",
        labels="A simulated annotator gave the labels.",
        opponent="the start <policy>",
        rater=f"Rated by {_EVIL}",
        confidence=0.95,
        claim_num_labels=200,
        runs=[_run(s, n, seed) for s in _LEVELS for n in (100, 200) for seed in seeds],
        curves=[_curve(s, seed) for s in _LEVELS for seed in seeds],
        stability=[_stability(s, i, step) for s in _LEVELS for i in seeds for step in (0, 40)],
        selection=[
            {"strategy": "easy", "num_pairs": 200, "mean_similarity": 0.3125,
             "mean_true_gap": None, "num_invalid": 7}
        ],
        pairs=[
            {"strategy": "random", "similarity": i / 200, "true_gap": 1.0, "is_error": i % 4 == 0}
            for i in range(200)
        ] + [
            {"strategy": "easy", "similarity": 0.5, "true_gap": None, "is_error": None}
            for _ in range(200)
        ],
        embeddings=[
            {"embedding": "last token", "metric": "euclidean", "strategy": "hard", "num_pairs": 5,
             "mean_similarity": -1.5, "mean_true_gap": 0.25, "label_error_rate": None,
             "overlap": 0.375}
        ],
        samples=[
            {"prompt": _EVIL, "rows": [{"strategy": "easy", "text": _EVIL, "true_utility": 0.125}]}
        ],
        stages=[
            {"title": "Read", "facts": [{"name": "bad rows", "value": 3, "meaning": _EVIL}]}
        ],
        left_out=["no people"],
        not_reproduced=["GPT-4 as a judge", "llama-2-7b"],
        settings={"dpo": {"beta": 0.1}},
        provenance={"commit": "abc"},
    )  # fmt: skip
    return RealReport(**json.loads(json.dumps(dataclasses.asdict(made))))


@pytest.fixture(scope="module")
def written(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return folder, *(p.read_text(encoding="utf-8") for p in write_real_report(folder, data))


class _Page(HTMLParser):
    """Checks that tags nest, and collects what a browser would show, fetch or run."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


def _page(source):
    page = _Page()
    page.feed(source)
    page.close()
    assert page.open == []
    return page


def test_page_needs_nothing_beside_it(written):
    page = _page(written[1])
    assert page.tags.count("svg") == 5
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    names = {name: [v for n, v in page.attributes if n == name] for name in ("id", "href")}
    assert len(names["id"]) == len(set(names["id"]))
    assert all(value.startswith("#") for value in names["href"])
    assert {value[1:] for value in names["href"]} <= set(names["id"])
    assert "http" not in re.sub(r"&lt;img.*?&gt;", "", written[1])


def test_what_models_wrote_is_shown_as_it_is(written):
    _, source, text = written
    seen = " ".join("".join(_page(source).texts).split())
    assert seen.count(_EVIL) == 4
    assert "<script" not in source and "<script" not in text and "<img" not in text
    assert r"\*\*bold\*\*" in text and r"\| \[x\](y)" in text


def test_tables_hold_the_numbers(written):
    _, source, text = written
    seen = " ".join("".join(_page(source).texts).split())
    # easy has 0.72 and 0.73 with 200 labels: mean 0.725, s = 0.00707, t of 1 degree of freedom at
    # 97.5 % is 12.706: +- 12.706 * 0.00707 / sqrt(2) = 0.0635. Random has 0.52 twice.
    assert "| easy | 200 | 2 | 0.275 [0.211, 0.339] | 0.725 [0.661, 0.789] |" in text
    assert "0.7250.661 to 0.789" in seen and "+0.205 ↑+0.141 to +0.269" in seen
    assert "+0.205 [+0.141, +0.269] ↑ |" in text
    assert "easy − random: +0.205 [+0.141, +0.269]; easy − hard: +0.300" in text.replace("\\", "")
    assert "0.730 (seeds: 1)" in text  # the rater was asked on one seed only
    assert "| easy | 200 | 0.3125 | – | 7 |" in text
    assert "| last token | euclidean | hard | 5 | -1.5 | 0.25 | – | 0.375 |" in text
    assert "| random | 2 | 40 | 0.3 | 0.34 | 0.960 [0.960, 0.960] | 0.875 [0.875, 0.875] |" in text
    assert "| bad rows | 3 |" in text and "- GPT-4 as a judge" in text
    assert "of 200 labels" in seen and "the start <policy>" in seen


def test_markdown_has_its_figures_and_regular_tables(written):
    folder, _, text = written
    names = re.findall(r"!\[[^\]]+\]\((.+?)\)", text)
    assert len(names) == 5
    for name in names:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        lines = [re.sub(r"\\\|", "", line) for line in block.splitlines()]
        assert set(re.sub(r"[|\s:-]", "", lines[1])) == set()
        assert len({line.count("|") for line in lines}) == 1, block


def test_run_on_other_peoples_data_has_fewer_parts(data, tmp_path):
    """One seed, one number of labels, no true utility, no rater, strategies across prompts."""
    absent = dict.fromkeys(
        ("label_error_rate", "win_rate_true", "win_rate_rater", "rater_agreement",
         "mean_true_utility", "malformed_share")
    )  # fmt: skip
    few = dataclasses.replace(
        data, rater=None, curves=[], stability=[], selection=[], pairs=[], embeddings=[],
        samples=[], runs=[_run(s, 200, 0) | absent for s in ("random", "easy", "hard")],
    )  # fmt: skip
    html, markdown = write_real_report(tmp_path, few)
    source, text = html.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")
    assert _page(source).tags.count("svg") == 1
    for sentence in (
        "Fewer than 3 seeds decide nothing.",
        "What REAL claims of centroid was not measured in this run.",
        "No rater was asked in this run.",
        "labels saved cannot be told.",
        "This run does not know which labels are wrong, or of too few pairs.",
        "No training curves were recorded with 200 labels.",
        "Stability was not measured in this run.",
        "No responses were kept in this run.",
    ):
        assert sentence in source and sentence in text
    assert "holds</td>" not in source and "| holds |" not in text
    assert "Wrong labels" not in text and "| easy | 200 | 1 | 0.280 | 0.720 |" in text
    assert not list(tmp_path.glob("report_wins*"))


def _with(rows, place, **changes):
    return [row | changes if i == place else row for i, row in enumerate(rows)]


def test_a_number_that_is_not_finite_is_refused_by_name(data, tmp_path):
    runs = [*data.runs[:-1], data.runs[-1] | {"held_out": {"loss": math.nan}}]
    stability = _with(data.stability, 1, quantiles=[0.1, 0.2, math.nan, 0.4, 0.5])
    for changes, named in (
        ({"runs": runs}, "strategy 'hard', num_labels 200, seed 1, metric 'held_out/loss'"),
        ({"stability": stability}, r"stability\[1\], quantiles\[2\]: nan"),
        ({"pairs": _with(data.pairs, 3, true_gap=math.inf)}, r"pairs\[3\], true_gap: inf"),
        ({"claim_num_labels": 300}, r"no run has 300 labels, the runs have \[100, 200\]"),
    ):
        with pytest.raises(ValueError, match=named):
            write_real_report(tmp_path, dataclasses.replace(data, **changes))
    assert not list(tmp_path.iterdir())
