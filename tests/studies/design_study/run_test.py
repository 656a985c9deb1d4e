"""The study from its shipped config to its page: made, read from an EAGLE run, refused."""

import json

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import SettingsError, to_settings
from eagle_jax.stages.run import Run
from eagle_jax.studies.design_study.measures import DELTAS, EMBEDDINGS, EXCHANGE
from eagle_jax.studies.design_study.run import DesignStudySettings, run_design_study
from eagle_jax.studies.design_study.sets import (
    MovieLensSettings,
    SetSizes,
    SyntheticSettings,
    movielens_set,
    synthetic_sets,
)
from eagle_jax.studies.design_study.verdict import study_verdict
from experiments.configs import design_study as shipped
from experiments.configs import eagle_movielens

_SIZES = SetSizes(num_problems=3, num_users=2)


def _config():
    """The quick variant, smaller still: few lengths and batch sizes, so little compilation."""
    config = shipped.get_config("quick")
    with config.unlocked():
        config.sizes.num_problems = 3
        config.study.num_draws = 20
        config.study.bootstrap.num_resamples = 50
        config.shown_num_candidates = 20
        config.synthetic.num_candidates = (20,)
        config.minilens.num_candidates = (20,)
        experiment = config.minilens.experiment
        experiment.catalogue.minilens.num_films = 300
        experiment.models.batch_size = 32
        experiment.models.length_multiple = 128
        experiment.profiles.titles_per_side = 4
        experiment.candidates.num_entities = 4
        experiment.candidates.candidates.num_generic = 12
        experiment.candidates.candidates.num_personalised = 12
    return config


def _settings(config, workdir=""):
    values = config.to_dict()
    if values["minilens"] is not None:
        values["minilens"]["eagle_workdir"] = str(workdir)
    return to_settings(DesignStudySettings, values)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    run_design_study(_settings(_config()), folder)
    return folder


@pytest.fixture(scope="module")
def cells(finished):
    return json.loads((finished / "subsets" / "cells.json").read_text())


def test_every_set_footing_and_size_has_its_cell(cells):
    found = {(c["set"], c["footing"], c["width"], c["num_kept"]) for c in cells}
    assert found == {
        *(
            (f"{kind}, n = {n}", EMBEDDINGS, n, k)
            for kind in ("isotropic", "clustered")
            for n in (4, 8)
            for k in (5, 12)
        ),
        *(("MiniLens, n = 8", footing, n, k) for footing, n in ((EMBEDDINGS, 8), (DELTAS, 4)) for k in (5, 12)),
    }
    assert len(found) == len(cells)


def test_report_holds_the_numbers_of_the_study(finished, cells):
    text = (finished / "report.md").read_text(encoding="utf-8")
    plain = text.replace("\\", "").replace("&gt;", ">")
    for sentence in study_verdict(cells, rank=4, num_draws=20):
        assert sentence in plain
    (cell,) = [c for c in cells if (c["footing"], c["num_kept"]) == (DELTAS, 12)]
    value = cell["rules"][EXCHANGE]["measures"]["volume"]
    assert f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" in text
    assert "MovieLens: config.movielens is None" in plain
    assert (finished / "report.html").read_text(encoding="utf-8").count("<svg") == 4


def test_candidates_of_an_eagle_run_are_read_not_made(finished, tmp_path, capsys):
    before = sorted((finished / "minilens").rglob("*"))
    run_design_study(_settings(_config(), finished / "minilens"), tmp_path)
    assert "candidates:" not in capsys.readouterr().err
    assert not (tmp_path / "minilens").exists()
    assert sorted((finished / "minilens").rglob("*")) == before
    first, second = (dict(np.load(folder / "minilens_rows" / "rows.npz")) for folder in (finished, tmp_path))
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)


def test_settings_after_the_candidates_make_nothing_stale(finished):
    config = _config()
    with config.unlocked():
        config.minilens.experiment.design.num_kept = 9
        config.minilens.experiment.agent.seeds = (5,)
    before = (finished / "minilens_rows" / "MANIFEST.json").read_bytes()
    run_design_study(_settings(config), finished)
    assert (finished / "minilens_rows" / "MANIFEST.json").read_bytes() == before


def test_too_few_usable_anchors_are_an_error(finished, tmp_path):
    config = _config()
    with config.unlocked():
        config.minilens.num_candidates = (20, 25)  # 24 are asked for
    with pytest.raises(UserError, match="0 of 4 anchors have 25 well-formed candidates"):
        run_design_study(_settings(config, finished / "minilens"), tmp_path)


@pytest.mark.parametrize(
    ("group", "change", "said"),
    [
        ("synthetic", {"num_candidates": (30,)}, r"shown_num_candidates \(20\) must be one of"),
        ("study", {"subset_sizes": (5, 12, 20)}, r"\(5, 12, 20\) must all be below every"),
        ("study", {"subset_sizes": (5,)}, r"shown_num_kept \(12\) must be one of"),
    ],
)
def test_settings_that_do_not_fit_are_refused(group, change, said):
    values = _config().to_dict()
    values[group] |= change
    with pytest.raises(SettingsError, match=said):
        to_settings(DesignStudySettings, values)


def test_synthetic_rows_are_what_they_are_called():
    settings = SyntheticSettings(widths=(3,), num_candidates=(50, 400), num_clusters=4, cluster_spread=0.01)
    isotropic, clustered = synthetic_sets(settings, SetSizes(num_problems=2, num_users=1), 0)
    assert isotropic.next_embeddings.shape == clustered.next_embeddings.shape == (2, 400, 3)
    np.testing.assert_allclose(np.cov(isotropic.next_embeddings[0].T), np.eye(3), atol=0.2)
    # Each row of a problem has its cluster next to it: of 400 others about 100.
    rows = clustered.next_embeddings[0]
    near = np.linalg.norm(rows[:, None] - rows[None], axis=2) < 0.1
    assert len({tuple(row) for row in near}) == 4 and near.sum(axis=1).min() > 50


@pytest.fixture
def movielens(tmp_path):
    """40 films by 30 users in MovieLens' layout, made up; the last film has one rating only."""
    rng = np.random.default_rng(0)
    films = range(1, 41)
    ratings = [
        f"{user},{film},{rng.integers(1, 6)}.0,{user + film}"
        for user in range(1, 31)
        for film in films
        if rng.random() < 0.6 and film < 40
    ] + ["1,40,3.0,1"]
    for name, header, rows in (
        ("movies.csv", "movieId,title,genres", [f"{f},Film {f} (2000),Drama" for f in films]),
        ("ratings.csv", "userId,movieId,rating,timestamp", ratings),
        ("tags.csv", "userId,movieId,tag,timestamp", []),
        ("texts.csv", "movieId,overview", [f"{f},A film." for f in films]),
    ):
        (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
    of_eagle = eagle_movielens.get_config().to_dict()
    of_eagle["catalogue"]["movielens"] = {"folder": str(tmp_path), "texts_file": str(tmp_path / "texts.csv")}
    own = {"widths": (4,), "num_candidates": (10, 20), "min_ratings": 5}
    return to_settings(MovieLensSettings, {name: of_eagle[name] for name in ("catalogue", "wals", "utility")} | own)


def test_movielens_candidates_are_the_nearest_films(movielens, tmp_path):
    run = Run(tmp_path / "run")
    found = movielens_set(movielens, _SIZES, run, 0, 4)
    assert run.stages["movielens_rows_4"].is_complete() and found.name == "MovieLens, n = 4"
    assert "39 films" in found.origin and "not edits by a language model" in found.origin
    assert found.next_embeddings.shape == (3, 20, 4) and found.gains.shape == (3, 2, 20)
    distances = np.linalg.norm(found.next_embeddings - found.anchor_embeddings[:, None], axis=2)
    assert (np.diff(distances, axis=1) >= 0).all() and (distances > 0).all()
    again = movielens_set(movielens, _SIZES, run, 0, 4)
    np.testing.assert_array_equal(again.next_embeddings, found.next_embeddings)
    with pytest.raises(UserError, match="39 films have 5 ratings, more than 50 are needed"):
        movielens_set(movielens, SetSizes(num_problems=50, num_users=2), Run(tmp_path / "r"), 0, 4)
