"""ELM's pipeline: what is drawn, what is scored, and what is made of a run."""

import dataclasses
import io
import json
import sys

import numpy as np
import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import to_settings
from eagle_jax.data.tasks import BEHAVIORAL, SEMANTIC
from eagle_jax.elm import train_stage as elm_stage
from eagle_jax.elm.ask import ask_elm, explorer_of
from eagle_jax.elm.examples import entities_of
from eagle_jax.elm.report import report_elm
from eagle_jax.elm.run import ElmRun
from eagle_jax.elm.settings import SINGLE_MOVIE, TASK_NAMES, TWO_MOVIES, ElmExperiment
from eagle_jax.embeddings.wals import predict_ratings

CONFIG = load_config("experiments/configs/elm_minilens.py:quick").to_dict()


def tiny() -> ElmExperiment:
    """Every stage, one shape of batches, a step or two."""
    config = json.loads(json.dumps(CONFIG))
    config["catalogue"] |= {"num_films": 160, "num_users": 80, "ratings_per_user": 60}
    config["space"] |= {"tasks": ["summary"], "width": 8}
    config["examples"] |= {"per_movie_task": 6, "profiles": 6}
    config["models"] |= {"length_multiple": 96, "batch_size": 4}
    config["elm"] |= {"tokens_per_batch": 192, "adapter_hidden_width": 8}
    for stage in ("stage1", "stage2"):
        config["elm"]["training"][stage] |= {"num_steps": 2, "warmup_steps": 1}
    evaluation = config["evaluation"]
    evaluation |= {"per_movie_task": 2, "profiles": 4}  # 52 answers
    evaluation["sampling"]["max_new_tokens"] = 32
    evaluation["bootstrap"]["num_resamples"] = 50
    evaluation["curves"] |= {"num_paths": 4, "alphas": [0.0, 1.0], "steps": [0.0, 1.0]}
    evaluation["curves"] |= {"how": ["linear"], "tags": ["betrayal"]}
    evaluation["curves"]["cavs"] |= {"min_positives": 2, "num_folds": 2}
    return to_settings(ElmExperiment, config)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    run = ElmRun(tiny(), tmp_path_factory.mktemp("elm"))
    return run, run.run()


def test_every_task_is_scored_for_every_system(done):
    run, results = done
    table = json.loads((results / "consistency.json").read_text())
    found = {(row["group"], row["system"]) for row in table["rows"]}
    systems = {"elm", "teacher", "nearest", "text_only", "text_only_example"}
    assert found >= {(task, system) for task in TASK_NAMES for system in systems}
    cells = {(row["group"], row["system"]): row["cells"] for row in table["rows"]}
    # The grammar has all slots of its own answers right, whatever a model does.
    assert cells["single-movie tasks", "teacher"]["slots"]["mean"] == 1.0
    assert cells["two-movie tasks", "teacher"]["sc"]["mean"] == pytest.approx(1.0)
    assert set(cells["user_profile", "elm"]) == {"slots", "bc/ndcg", "bc/spearman"}
    names = {curve["name"] for curve in json.loads((results / "curves.json").read_text())}
    assert names == {
        "between two films, linear",
        "between two users, linear",
        "towards 'betrayal', linear CAV",
        "towards 'betrayal', ranking CAV",
        "users towards 'betrayal', linear CAV",
        "users towards 'betrayal', ranking CAV",
    }


def test_held_out_examples_are_held_out(done):
    run, _ = done
    films, users = run.split.entities, run.split.users
    for part in ("train", "test"):
        for row in run.examples[part]:
            if row["user"] is not None:
                assert row["user"] in users[part]
            else:
                assert row["items"][0] in films[part]
    seen = [(row["task"], entities_of(row)[0]) for row in run.examples["test"]]
    assert len(seen) == len(set(seen)) == 2 * len(TASK_NAMES) + 2
    assert {row["task"] for row in run.examples["train"]} == set(TASK_NAMES)


def test_prompts_hold_the_embeddings_of_what_they_are_about(done):
    run, _ = done
    for row in run.examples["test"]:
        (prompt,) = elm_stage.elm_prompts([row], run.spaces)
        tables = {SEMANTIC: run.spaces.semantic, BEHAVIORAL: run.spaces.users}
        assert len(prompt.embeddings) == (2 if row["task"] in TWO_MOVIES else 1)
        for (kind, vector), index in zip(prompt.embeddings, entities_of(row), strict=True):
            np.testing.assert_allclose(vector, tables[kind][index], rtol=1e-6)


def test_batches_depend_on_the_step_only_and_hold_about_as_many_tokens(done):
    run, _ = done
    draw = elm_stage.batch_drawer(run.elm, run.examples["train"], run.spaces, 960, seed=3)
    (first,), (again,), (other,) = draw(5), draw(5), draw(6)
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert first.tokens.shape == (10, 96) and (first.tokens != other.tokens).any()


def test_a_finished_run_is_reported(done):
    run, _ = done
    page = report_elm(run)
    text = page.with_suffix(".md").read_text(encoding="utf-8")
    assert "Of the 3 lines of the bar: 3 not decided here." in text  # one seed
    assert "| convince1 | 0.92 | " in text and "towards 'betrayal'" in text
    curves = run.stages["results"].read_json("curves.json")
    has_text = any(text for c in curves if c["kind"] == SEMANTIC for text in c["texts"])
    assert page.read_text(encoding="utf-8").count("<svg") == 4 + has_text  # with a picture


def test_a_finished_run_can_be_asked(done, monkeypatch, capsys):
    run, _ = done
    explorer = explorer_of(run)
    user = 3
    expected = predict_ratings(run.wals, np.full(160, user), np.arange(160)) + (
        np.mean(run.wals.user_bias) - run.wals.user_bias[user]
    )
    given = run.split.train.rating
    np.testing.assert_allclose(
        explorer.predicted_ratings(run.spaces.users[user]), np.clip(expected, given.min(), given.max()), rtol=1e-5
    )
    # "betrayal" grows in users as it does in films.
    cav = explorer.spaces[BEHAVIORAL].activations["betrayal"]
    assert cav.spread == pytest.approx(np.std(run.spaces.users @ cav.direction))
    monkeypatch.setattr(sys, "stdin", io.StringIO("summary: f0 ~ f1\nuser_profile: u9999\n"))
    ask_elm(run)
    told = capsys.readouterr().out.splitlines()
    assert told[1].startswith("(no answer that can be read: ")  # after two steps of training
    assert told[2].startswith("no user 'u9999': did you mean u")


def test_settings_name_what_is_wrong():
    assert len(SINGLE_MOVIE) == 19 and len(TWO_MOVIES) == 5
    space = tiny().space
    with pytest.raises(UserError, match="'trailer' is none of summary"):
        dataclasses.replace(space, tasks=("trailer",))
    with pytest.raises(UserError, match="elm_seeds: none twice, got \\(1, 1\\)"):
        dataclasses.replace(tiny(), elm_seeds=(1, 1))
