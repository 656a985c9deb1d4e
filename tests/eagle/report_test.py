"""The report can be read by a browser without a network, and by a person without the code."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from eagle_jax.eagle import report
from eagle_jax.eagle.environment import Step
from eagle_jax.eagle.evaluation.episodes import EpisodeRecord
from eagle_jax.eagle.evaluation.rater_form import RaterScores
from eagle_jax.eagle.evaluation.table import compare, malformed_counts, summarize
from eagle_jax.reports import figures
from eagle_jax.reports.statistics import BootstrapSettings

_BOOTSTRAP = BootstrapSettings(num_resamples=200, confidence=0.95, seed=0)
_ROWS = {"anchor": 0.0, "reference policy, uniform": 0.2, "EAGLE, uniform": 1.0}
_EVIL = "<script>alert(1)</script> | [x](y) **bold** <img src=http://a.example/x.png>"
_ASKED = RaterScores(user_utility=1.0, distance_score=0.25, rater_utility=0.0, consistency=0.75)
_ANCHOR = (
    "#BEGIN_PLOT a grim noir film. #END_PLOT #BEGIN_REASONS_TO_LIKE the score. #END_REASONS_TO_LIKE"
)


def _record(row, gain, pair, seed):
    rng = np.random.default_rng([pair, seed])
    first, last = rng.normal(scale=0.1, size=2) + (0.0, gain)
    grand = _ANCHOR.replace("grim", "grand")
    steps = (
        Step(action="make it grand.", description=grand, malformed=None),
        Step(action=None, description=grand, malformed="action:length"),
        Step(action=_EVIL, description=_ANCHOR.replace("grim", _EVIL), malformed=None),
    )
    steps = () if row == "anchor" else steps
    utilities = np.linspace(first, last if steps else first, 1 + len(steps)).tolist()
    path = tuple({"utility": u, "user_term": u, "neighbor_distance_term": 0.5} for u in utilities)
    return EpisodeRecord(
        seed=seed, entity_index=pair, user_index=0, anchor=_ANCHOR, profile=_EVIL,
        steps=steps, scores={"train": path, "held_out": path}, distance=gain,
        num_steps=len(steps), environment_calls=2 if steps else 0,
        malformed={"action:length": 1} if steps else {},
        rater=dataclasses.asdict(_ASKED) if steps and pair else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data():
    records = {
        row: [_record(row, gain, pair, seed) for pair in range(12) for seed in range(2)]
        for row, gain in _ROWS.items()
    }
    rng = np.random.default_rng(0)
    metrics = [{"step": s, "kl": 0.1 * s, **({"val": 1.0 * s} if s % 2 else {})} for s in range(6)]
    return report.ReportData(
        title="A run <of> ours",
        confidence=0.95,
        table=summarize(records, _BOOTSTRAP),
        comparisons=compare(
            records,
            [("EAGLE, uniform", "anchor"), ("reference policy, uniform", "EAGLE, uniform")],
            _BOOTSTRAP,
        ),
        malformed=malformed_counts(records, {row: {"missing_block": 2} for row in records}),
        episodes=[{"row": "EAGLE, uniform"} | records["EAGLE, uniform"][0].to_json()],
        curves=[
            figures.learning_curve("EAGLE, uniform", s, metrics, ["kl", "val"]) for s in (0, 1)
        ],
        embedding_picture=figures.embedding_picture(
            rng.normal(size=(30, 4)), {"A": rng.normal(size=(4, 4)), "B": rng.normal(size=(2, 4))}
        ),
        stages=[
            {"title": "E_D", "facts": [{"name": "R^2", "value": 0.81234567, "meaning": _EVIL}]}
        ],
        rater="Here a model <b>rates</b>.",
        remote=[
            {
                "name": "remote/large", "model": _EVIL, "base_url": "https://a.example/v1",
                "num_requests": 12, "num_answered": 9, "num_cached": 4, "num_uncounted": 1,
                "failed": {"http_429": 2, "timeout": 1}, "prompt_tokens": 4321,
                "completion_tokens": 765, "cost": cost,
            }
            for cost in (0.0123456, None)
        ],
        decoder_sweep=[
            {
                **row, "metric": "pull_back", "radius": 0.25, "length": 0.1, "point_utility": 1.875,
                "chosen": row["row"] == "anchor",
            }
            for row in summarize(records, _BOOTSTRAP)[:2]
        ],
        not_reproduced=["raters <people>"],
        settings={"design": {"kind": "g_optimal", "num_kept": 10}, "seed": 0},
        provenance={"commit": "abc"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def written(data, tmp_path_factory):
    paths = report.write_report(tmp_path_factory.mktemp("report"), data)
    return [path.read_text(encoding="utf-8") for path in paths], paths[0].parent


class _Page(HTMLParser):
    """Checks that tags nest, and collects what a browser would fetch or run."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.ids, self.texts = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


@pytest.fixture(scope="module")
def page(written):
    parser = _Page()
    parser.feed(written[0][0])
    parser.close()
    return parser


def test_html_nests_and_ids_are_unique(page):
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def test_what_remote_models_took_is_told_and_an_unknown_cost_is_not_zero(written):
    html, markdown = written[0]
    (table,) = re.findall(r"<h3>Remote language models</h3>.*?<tbody>(.*?)</tbody>", html, re.S)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", table)
    told = ["12", "9", "http_429: 2, timeout: 1", "4", "4321", "765", "1"]
    assert cells == [*told, "0.01235", *told, "–"]
    rows = [line for line in markdown.splitlines() if line.startswith("| remote/large")]
    assert [row.split(" | ")[-1] for row in rows] == ["0.01235 |", "– |"]


def test_references_within_the_page_point_somewhere(page):
    targets = {value[1:] for name, value in page.attributes if name == "href"}
    targets |= set(re.findall(r"url\(#([^)]+)\)", " ".join(v or "" for _, v in page.attributes)))
    assert targets and targets <= set(page.ids)


def test_html_loads_and_runs_nothing(page, written):
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    loaders = {"src", "srcset", "action", "data", "xlink:href"}
    assert not [name for name, _ in page.attributes if name in loaders or name.startswith("on")]
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert "@import" not in written[0][0]
    assert all("//" not in (value or "") for _, value in page.attributes)


def test_text_of_language_models_is_escaped_and_still_all_there(page, written):
    assert "<script" not in written[0][0] and "<script" not in written[0][1]
    text = " ".join("".join(page.texts).split())
    assert " ".join(_EVIL.split()) in text


def test_figures_have_descriptions(page):
    assert page.tags.count("svg") == 3
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert len([label for label in labels if len(label) > 40]) == 3


def test_markdown_has_the_table_and_its_figures(written, data):
    markdown, folder = written[0][1], written[1]
    cell = data.table[2]["cells"]["train/utility"]
    expected = f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"
    lines = [line for line in markdown.splitlines() if line.startswith("| EAGLE, uniform | 24 |")]
    assert expected in lines[0]
    for name in re.findall(r"!\[[^\]]+\]\((.+?)\)", markdown):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    # All tables are tables: every line of a block has as many cells as its header.
    blocks = re.findall(r"(?:^\|.*\n)+", markdown, re.M)
    assert len(blocks) >= 8
    for block in blocks:
        lines = [re.sub(r"\\\|", "", line) for line in block.splitlines()]
        assert set(re.sub(r"[|\s:-]", "", lines[1])) == set()
        assert len({line.count("|") for line in lines}) == 1, block


def test_summary_says_which_intervals_are_separated(page):
    text = "".join(page.texts)
    assert re.search(
        r"EAGLE, uniform against anchor\. Training encoder: higher, intervals separated, "
        r"\+[\d.]+ \[\+[\d.]+, \+[\d.]+\]; held-out encoder: higher",
        text,
    )
    assert "reference policy, uniform against EAGLE, uniform. Training encoder: lower, -" in text


def test_report_is_made_again_from_json(data, written, tmp_path):
    again = report.ReportData(**json.loads(json.dumps(dataclasses.asdict(data))))
    paths = report.write_report(tmp_path, again)
    assert [path.read_text(encoding="utf-8") for path in paths] == written[0]


def test_papers_numbers_stand_beside_ours(page):
    text = " ".join("".join(page.texts).split())
    assert "0.74 ± 0.03" in text and "different scales" in text


def test_raters_answers_stand_beside_the_papers(page, written, data, tmp_path):
    text = " ".join("".join(page.texts).split())
    assert "Here a model <b>rates</b>." in text and "Ours: user utility" in text
    own = "| 1.000 [1.000, 1.000] | 0.000 [0.000, 0.000] | 0.250 [0.250, 0.250] |"
    markdown = written[0][1]
    (paper,) = [s for s in markdown.splitlines() if s.startswith("| EAGLE, uniform | 0.65")]
    assert paper.endswith(own)
    (rated,) = [s for s in markdown.splitlines() if s.startswith("| EAGLE, uniform |") and own in s
                and s != paper]  # fmt: skip
    assert rated.endswith("0.750 [0.750, 0.750] |")
    # 11 of 12 pairs with 2 seeds, and two malformed answers; 72 steps, 24 of them malformed.
    assert "| EAGLE, uniform | 72 | 24 | 24 | 2 |" in markdown
    # Without a rater there is no trace of these columns.
    table = json.loads(json.dumps(data.table))
    for row in table:
        row["cells"] |= {name: None for name in row["cells"] if name.startswith("rater/")}
    paths = report.write_report(tmp_path, dataclasses.replace(data, table=table))
    for path in paths:
        content = path.read_text(encoding="utf-8")
        assert "ated distance" not in content and "Rater forms" not in content


def test_the_decoders_sweep_is_told_where_there_is_one(page, written, data, tmp_path):
    rows = [s for s in written[0][1].splitlines() if s.startswith("| pull\\_back | 0.25 |")]
    assert [s.endswith(" yes |") for s in rows] == [True, False]
    assert all("| 0.100 | 1.875 |" in s for s in rows)
    text = " ".join("".join(page.texts).split())
    assert "Which point the ELM decoder is asked for" in text and "1.875" in text
    paths = report.write_report(tmp_path, dataclasses.replace(data, decoder_sweep=[]))
    for path in paths:
        assert "is asked for" not in path.read_text(encoding="utf-8")


def test_nan_in_the_table_is_refused(data, tmp_path):
    table = json.loads(json.dumps(data.table))
    table[1]["cells"]["train/gain"]["high"] = float("nan")
    with pytest.raises(ValueError, match="reference policy, uniform.*train/gain"):
        report.write_report(tmp_path, dataclasses.replace(data, table=table))
    assert not list(tmp_path.iterdir())


def test_changed_words_are_marked():
    after = _ANCHOR.replace("grim noir", "warm noir").replace("the score", "the drums")
    assert report.changed_words(_ANCHOR, after) == [
        ("label", "Plot"), ("same", "a"), ("gone", "grim"), ("new", "warm"), ("same", "noir film."),
        ("label", "Reasons to like"), ("same", "the"), ("gone", "score."), ("new", "drums."),
    ]  # fmt: skip


def test_learning_curve_keeps_the_steps_where_a_metric_was_written():
    rows = [{"step": 1, "kl": 0.1}, {"step": 2, "kl": 0.2, "val": 3.0}]
    curve = figures.learning_curve("EAGLE", 0, rows, ["val", "kl"])
    assert curve["metrics"]["val"] == {"step": [2], "value": [3.0]}
    with pytest.raises(ValueError, match="'loss'.*never written"):
        figures.learning_curve("EAGLE", 0, rows, ["loss"])


def test_picture_shows_the_two_directions_of_largest_variance():
    rng = np.random.default_rng(1)
    catalogue = rng.normal(size=(200, 3)) * (5.0, 0.1, 2.0)
    picture = figures.embedding_picture(catalogue, {"A": catalogue[:2]})
    variances = np.sort(np.linalg.eigvalsh(np.cov(catalogue.T)))[::-1]
    covariance = np.cov(np.transpose(picture["catalogue"]))
    np.testing.assert_allclose(covariance, np.diag(variances[:2]), atol=1e-9)
    np.testing.assert_allclose(picture["explained_variance"], variances[:2] / variances.sum())
    np.testing.assert_allclose(picture["trajectories"][0]["points"], picture["catalogue"][:2])
