"""ELM as EAGLE's baseline: its stages and row from the command line, and what they compute."""

import json

import numpy as np
import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import SettingsError, to_settings
from eagle_jax.data.prompts import COMPACT, MOVIE, render_blocks
from eagle_jax.eagle.elm_baseline.decoder import PointDecoder, nearest_distance
from eagle_jax.eagle.elm_baseline.search import PointSearch
from eagle_jax.eagle.elm_baseline.settings import ElmSearchSettings
from eagle_jax.eagle.environment import Start
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.embeddings.scorer import Scorer
from eagle_jax.embeddings.utility import UtilitySettings
from eagle_jax.embeddings.utility_search import UtilitySearchSettings
from eagle_jax.language_model.generation import Generation, SamplingSettings

CONFIG = "experiments/configs/eagle_minilens_elm.py:quick"
ROW, CHOICE = "ELM decoder", "Which point the ELM decoder is asked for"
TINY = {
    "decoder.adapter_hidden_width": 16,
    "decoder.batch_size": 16,
    "decoder.training.stage1.num_steps": 0,
    "decoder.training.stage2.num_steps": 6,
    "decoder.training.stage2.warmup_steps": 1,
    "search.num_pairs": 8,
    "search.num_centers": 2,
    "search.radii": "(0.0, 1.0)",
    "search.ascent.num_starts": 1,
    "search.ascent.num_steps": 5,
}
TEXT = render_blocks({block: "word" for block in MOVIE.blocks})
SEARCH = ElmSearchSettings(
    num_pairs=2,
    num_centers=3,
    radii=(1.0,),
    metrics=("euclidean",),
    ridge=0.01,
    ascent=UtilitySearchSettings(num_starts=1, num_steps=5, last_step=0.1),
)


def read(path):
    return json.loads(path.read_text())


def test_the_decoder_gets_stages_a_row_and_comparisons(eagle, finished, tmp_path):
    workdir = finished.copy(tmp_path / "run", without=("evaluation",))
    overrides = [f"--config.elm_baseline.{key}={value}" for key, value in TINY.items()]
    code, _, stderr = eagle.run(workdir, overrides, config=CONFIG)
    assert code == 0, stderr

    facts, chosen = read(workdir / "elm_0" / "facts.json"), read(workdir / "elm_search/facts.json")
    assert facts["num_points"] == 30 and 0 < facts["loss_given_own_point"] < 10
    assert (workdir / "elm_0" / "model" / "embedding_lm.json").exists()
    sweep = read(workdir / "elm_search" / "sweep.json")
    assert [(row["metric"], row["radius"]) for row in sweep] == [
        ("euclidean", 0.0),
        ("euclidean", 1.0),
        ("pull_back", 0.0),
        ("pull_back", 1.0),
    ]
    best = max(sweep, key=lambda row: row["cells"]["train/utility"]["mean"])
    assert (chosen["metric"], chosen["radius"]) == (best["metric"], best["radius"])
    promised = [row["point_utility"] for row in sweep]
    assert promised[0] == pytest.approx(promised[2])  # a ball of radius 0 has no shape
    assert promised[1] > promised[0] and promised[3] > promised[2]
    assert chosen["forward_passes_per_jacobian"] > 1

    table = read(workdir / "evaluation" / "table.json")
    assert [row["row"] for row in table][:2] == ["anchor", ROW]
    assert table[1]["num_pairs"] == table[0]["num_pairs"]
    assert table[1]["cells"]["environment_calls"]["mean"] == 0
    compared = read(workdir / "evaluation" / "comparisons.json")
    pairs = {(c["row"], c["baseline"]) for c in compared if ROW in (c["row"], c["baseline"])}
    assert pairs == {(ROW, "anchor"), ("EAGLE, g_optimal", ROW)}
    report = (workdir / "report.md").read_text()
    assert CHOICE in report and "forward\\_passes\\_per\\_jacobian" in report
    assert "The ELM decoder as a baseline" not in report

    # What was there before is read as it is, and other rows are what they were.
    other = finished.workdir / "agent_g_optimal_0" / "model" / "model.safetensors"
    assert (workdir / other.relative_to(finished.workdir)).read_bytes() == other.read_bytes()
    before = read(finished.workdir / "evaluation" / "table.json")
    assert [row for row in table if row["row"] != ROW] == before


def test_without_it_a_run_knows_nothing_of_it(finished):
    stages = {path.parent.name for path in finished.workdir.glob("*/MANIFEST.json")}
    assert "evaluation" in stages and not any(name.startswith("elm") for name in stages)
    for name in stages:
        manifest = read(finished.workdir / name / "MANIFEST.json")
        assert "elm" not in json.dumps([manifest["settings"], manifest["depends_on"]]), name
    report = (finished.workdir / "report.md").read_text()
    assert CHOICE not in report and "The ELM decoder as a baseline" in report


class Scripted:
    """An ELM that answers each point with a text of its own."""

    def __init__(self, answers):
        self.answers, self.points = answers, None

    def generate(self, prompts, sampling, seed):
        self.points = [prompt.embeddings for prompt in prompts]
        return [
            Generation(text=text, token_ids=None, log_probs=None, stop_reason=reason) for text, reason in self.answers
        ]


def test_a_malformed_text_is_its_anchor_with_the_reason():
    opening, closing = "#BEGIN_PLOT ", " #END_REASONS_TO_DISLIKE"
    good = TEXT.removeprefix(opening).removesuffix(closing)
    elm = Scripted([(good, "stop"), (good, "length"), ("a plot without an end", "stop")])
    sampling = SamplingSettings(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=8)
    decoder = PointDecoder(elm, COMPACT, MOVIE, sampling)
    points = np.arange(6.0).reshape(3, 2)
    steps = decoder.steps(points, ["a", "b", "c"], 0)
    assert [(step.description, step.malformed) for step in steps] == [
        (TEXT, None),
        ("b", "decoder:length"),
        ("c", "decoder:missing_block"),
    ]
    assert all(step.action is None for step in steps)
    for ((kind, vector),), point in zip(elm.points, points, strict=True):
        assert kind == "behavioral" and np.array_equal(vector, point)
    assert decoder.prompt.text == "describe the film <user>. #BEGIN_PLOT"
    assert f"{opening}{decoder.completion(TEXT)}" == TEXT
    assert decoder.completion(TEXT).endswith(decoder.prompt.stop[0])


@pytest.fixture
def search():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(20, 2)).astype(np.float32)
    users = rng.normal(size=(3, 2)).astype(np.float32)
    scorer = Scorer(None, users, embeddings, UtilitySettings(neighbor_weight=0.3, num_neighbors=2))
    return PointSearch(embeddings, np.arange(5, 20), scorer, SEARCH)


def starts(*pairs):
    return [Start(entity, user, "text", "profile") for entity, user in pairs]


def test_centers_are_the_nearest_known_entities_and_never_the_anchor(search):
    given = starts((0, 0), (7, 1))
    for start, centers in zip(given, search.centers(given), strict=True):
        distances = {
            i: np.linalg.norm(search.embeddings[i] - search.embeddings[start.entity_index])
            for i in range(5, 20)
            if i != start.entity_index
        }
        assert list(centers) == sorted(distances, key=distances.get)[:3]


def test_radii_are_multiples_of_the_median_nearest_distance(search):
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]])
    assert nearest_distance(points) == 1.0  # 1, 1 and 3
    given = starts((0, 0), (1, 2))
    centers = search.centers(given)
    metrics = search.metrics("euclidean", centers, None, 0)
    found = search.find(given, centers, metrics, 2.0, 0)
    moved = found.points - search.embeddings[centers[range(2), found.centers]]
    assert np.linalg.norm(moved, axis=1).max() <= 2 * search.unit * (1 + 1e-5)


def test_a_search_that_float64_contradicts_is_an_error(search):
    given = starts((0, 0), (1, 2))
    centers = search.centers(given)
    flat = np.broadcast_to(np.diag([1.0, 1e-14]), (2, 3, 2, 2))
    with pytest.raises(UserError, match="radius 1.0: U in float32 is off .* raise search.ridge"):
        search.find(given, centers, flat, 1.0, 0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("radii", (), "search.radii: at least one"),
        ("radii", (-1.0,), "must be at least 0"),
        ("ridge", 0.0, "ridge must be positive"),
        ("num_pairs", 1, "num_pairs must be"),
        ("metrics", ("cosine",), "config.elm_baseline.search.metrics"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(name, value, message):
    config = load_config(CONFIG).to_dict()
    config["elm_baseline"]["search"][name] = value
    with pytest.raises(SettingsError, match=message):
        to_settings(EagleExperiment, config)
