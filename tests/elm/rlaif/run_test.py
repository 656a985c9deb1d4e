"""RLAIF's pipeline: what is rewarded, what is held out, what is compared."""

import dataclasses
import json

import numpy as np
import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import to_settings
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.elm.rlaif import rewards as rlaif_rewards
from eagle_jax.elm.rlaif.report import report_rlaif
from eagle_jax.elm.rlaif.run import RlaifRun
from eagle_jax.elm.rlaif.settings import RlaifExperiment
from eagle_jax.language_model.generation import Generation
from eagle_jax.reports.verdicts import UNDECIDED

CONFIG = load_config("experiments/configs/rlaif_minilens.py:quick").to_dict()


def tiny(reward: str = "sc") -> RlaifExperiment:
    """Every stage, one shape of batches, a step or two."""
    config = json.loads(json.dumps(CONFIG))
    start = config["start"]
    start["catalogue"] |= {"num_films": 160, "num_users": 80, "ratings_per_user": 60}
    start["space"] |= {"tasks": ["summary"], "width": 8}
    start["examples"] |= {"per_movie_task": 6, "profiles": 6}
    start["models"] |= {"length_multiple": 64, "batch_size": 4}
    start["elm"] |= {"tokens_per_batch": 64, "adapter_hidden_width": 8}
    start["elm"]["training"]["stage1"] |= {"num_steps": 1, "warmup_steps": 0}
    start["elm"]["training"]["stage2"] |= {"num_steps": 1, "warmup_steps": 0}
    start["evaluation"] |= {"per_movie_task": 2, "profiles": 2}
    config["trainings"] = {"reinforce": config["trainings"]["reinforce"]}
    config["trainings"]["reinforce"] |= {
        "num_iterations": 3,
        "texts_per_iteration": 4,
        "warmup_iterations": 0,
        "head_updates": 1,
        "validate_every": 2,
        "checkpoint_every": 1,
    }
    config["trainings"]["reinforce"]["sampling"]["max_new_tokens"] = 16
    config["seeds"] = [0, 1]
    config["evaluation"] |= {"num_entities": 4, "samples_per_task": 1}
    config["evaluation"]["bootstrap"]["num_resamples"] = 20
    if reward != "sc":
        config |= {"reward": reward, "tasks": ["user_profile"]}
    return to_settings(RlaifExperiment, config)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    run = RlaifRun(tiny(), tmp_path_factory.mktemp("rlaif"))
    return run, run.run()


def test_only_training_films_are_learned_from_and_only_held_out_ones_are_compared(done):
    run, _ = done
    films = run.split.entities
    task = run.rewarded_task()
    drawn = task.draw_rows(np.random.default_rng(0), 500)
    assert {row["items"][0] for row in drawn} <= set(films["train"].tolist())
    assert {row["items"][0] for row in task.validation_rows} == set(films["validation"].tolist())
    asked = [row["items"][0] for row in run.held_out_rows()]
    assert len(set(asked)) == 4 and set(asked) <= set(films["test"].tolist())


def test_start_and_trained_are_asked_the_same_and_told_apart(done):
    run, results = done
    first, cooler = json.loads((results / "tables.json").read_text())
    assert (first["temperature"], cooler["temperature"]) == (1.0, 0.3)
    assert cooler["kl"] is None and first["kl"]["start"] == 0.0
    cells = {row["system"]: row["num_outputs"] for row in first["rows"]}
    assert cells == {"start": 8, "reinforce": 8}  # of one task: four films, two seeds
    (row,) = first["comparisons"]
    assert [one["seed"] for one in row["by_seed"]] == [0, 1]
    assert row["verdict"] == UNDECIDED


def test_a_finished_run_is_reported(done):
    run, _ = done
    text = report_rlaif(run).with_suffix(".md").read_text(encoding="utf-8")
    assert "Reinforce raises SC over its start: not decided here" in text and "2 of 3 seeds" in text
    assert "The same at temperature 0.3" in text
    assert "MiniLens with 160 films and 80 users." in text and "with 2 seeds. Asked: " in text


def test_profiles_are_rewarded_by_how_they_rank_films(done, tmp_path):
    run, _ = done
    for name in ("catalogue", "space", "examples", "elm_0"):
        (tmp_path / name).symlink_to(run.workdir / name)
    results = RlaifRun(tiny("bc/ndcg"), tmp_path).run()
    first = json.loads((results / "tables.json").read_text())[0]
    assert set(first["rows"][0]["cells"]) == {"slots", "bc/ndcg", "bc/spearman"}
    assert first["comparisons"][0]["system"] == "reinforce"


def test_behavioral_reward_by_hand():
    # Films 1 and 3 are ranked; user 1 gave film 3 five stars and did not rate film 1: gains 0, 31.
    # A profile along film 3 ranks it first, NDCG 1; one along film 1 second, 1 / log2(3).
    ratings = RatingTable(
        user_names=("a", "b"),
        item_names=("0", "1", "2", "3"),
        user_index=np.array([0, 1]),
        item_index=np.array([1, 3]),
        rating=np.array([5.0, 5.0], np.float32),
    )
    item_texts = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    vectors = {"third": [0.1, 2.0], "first": [2.0, 0.1]}
    score = rlaif_rewards.behavioral_score(
        lambda texts: np.array([vectors[text] for text in texts]), item_texts, ratings, np.array([1, 3])
    )
    rows = [{"user": 1}, {"user": 1}, {"user": 0}]
    np.testing.assert_allclose(score(rows, ["third", "first", "first"]), [1.0, 1 / np.log2(3), 1.0], rtol=1e-9)


def test_what_cannot_be_read_gets_the_reward_of_the_settings(done):
    run, _ = done
    rows = run.held_out_rows()
    reward = rlaif_rewards.training_reward("sc", -0.5, run.spaces, run.split)
    made = [
        Generation(text=rows[0]["target"], token_ids=None, log_probs=None, stop_reason=reason)
        for reason in ("stop", "length")
    ]
    whole, cut = reward([rows[0], rows[0]], made)
    target = run.spaces.semantic[rows[0]["items"][0]]
    (own,) = run.spaces.embed([rows[0]["target"]])
    cosine = own @ target / np.linalg.norm(own) / np.linalg.norm(target)
    assert whole == pytest.approx(cosine, rel=1e-5) and cut == -0.5


def test_settings_name_what_is_wrong():
    experiment = tiny()
    for changes, message in (
        ({"tasks": ("user_profile",)}, "'user_profile' has no reward 'sc'"),
        ({"seeds": (0, 0)}, "seeds: none twice, got"),
        ({"trainings": {}}, "trainings: at least one"),
    ):
        with pytest.raises(UserError, match=message):
            dataclasses.replace(experiment, **changes)
