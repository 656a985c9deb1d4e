"""ELM's pipeline and RLAIF's behind it: what is drawn, scored and rewarded, and what is made of runs."""

import dataclasses
import functools
import io
import json
import sys

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from eagle_jax.base.command_line import load_config
from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import to_settings
from eagle_jax.data.tasks import BEHAVIORAL, SEMANTIC, TASKS, elm_prompt
from eagle_jax.elm import train_stage as elm_stage
from eagle_jax.elm.ask import ask_elm, explorer_of
from eagle_jax.elm.evaluation.answers import ELM_ANSWERS, Respondents
from eagle_jax.elm.evaluation.consistency import read_outputs
from eagle_jax.elm.examples import entities_of
from eagle_jax.elm.model.prompts import EmbeddedPrompt
from eagle_jax.elm.report import report_elm
from eagle_jax.elm.rlaif.report import report_rlaif
from eagle_jax.elm.rlaif.rewards import training_reward
from eagle_jax.elm.rlaif.run import RlaifRun
from eagle_jax.elm.rlaif.settings import RlaifExperiment
from eagle_jax.elm.run import ElmRun
from eagle_jax.elm.settings import TWO_MOVIES
from eagle_jax.embeddings.wals import predict_ratings
from eagle_jax.language_model.generation import Generation
from eagle_jax.pages.elm.space import SpacePoint, load_elm_space
from eagle_jax.reports.verdicts import UNDECIDED

CONFIG = load_config("experiments/configs/rlaif_minilens.py:quick").to_dict()


def tiny() -> RlaifExperiment:
    """Every stage, one shape of batches, a step or two; `start` is the ELM's experiment."""
    config = json.loads(json.dumps(CONFIG))
    start = config["start"]
    start["catalogue"]["minilens"] |= {"num_films": 160, "num_users": 80, "ratings_per_user": 60}
    start["space"] |= {"tasks": ["summary"], "width": 8}
    start["examples"] |= {"per_movie_task": 6, "profiles": 6}
    start["models"] |= {"length_multiple": 96, "batch_size": 4}
    start["elm"] |= {"tokens_per_batch": 192, "adapter_hidden_width": 8}
    for stage in ("stage1", "stage2"):
        start["elm"]["training"][stage] |= {"num_steps": 2, "warmup_steps": 1}
    evaluation = start["evaluation"]
    evaluation |= {"per_movie_task": 2, "profiles": 4}  # 52 answers
    evaluation["sampling"]["max_new_tokens"] = 32
    evaluation["bootstrap"]["num_resamples"] = 50
    evaluation["curves"] |= {"num_paths": 4, "alphas": [0.0, 1.0], "steps": [0.0, 1.0]}
    evaluation["curves"] |= {"how": ["linear"], "tags": ["betrayal"]}
    evaluation["curves"]["cavs"] |= {"min_positives": 2, "num_folds": 2}
    reinforce = config["trainings"]["reinforce"]
    reinforce |= {"num_iterations": 3, "texts_per_iteration": 4, "warmup_iterations": 0, "head_updates": 1}
    reinforce |= {"validate_every": 2, "checkpoint_every": 1}
    reinforce["sampling"]["max_new_tokens"] = 16
    config |= {"trainings": {"reinforce": reinforce}, "seeds": [0, 1]}
    config["evaluation"] |= {"num_entities": 4, "samples_per_task": 1}
    config["evaluation"]["bootstrap"]["num_resamples"] = 20
    return to_settings(RlaifExperiment, config)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    run = ElmRun(tiny().start, tmp_path_factory.mktemp("elm"))
    return run, run.run()


@pytest.fixture(scope="module")
def reinforce(done, tmp_path_factory):
    """Runs RLAIF from the stages of the finished ELM."""

    def run(rlaif):
        folder = tmp_path_factory.mktemp("rlaif")
        for name in ("catalogue", "space", "examples", "elm_0"):
            (folder / name).symlink_to(done[0].workdir / name)
        made = RlaifRun(rlaif, folder)
        return made, made.run()

    return run


@pytest.fixture(scope="module")
def rewarded(reinforce):
    return reinforce(tiny())


def test_every_task_is_scored_for_every_system(done):
    run, results = done
    table = json.loads((results / "consistency.json").read_text())
    found = {(row["group"], row["system"]) for row in table["rows"]}
    systems = {"elm", "teacher", "nearest", "text_only", "text_only_example"}
    assert found >= {(task, system) for task in run.experiment.tasks for system in systems}
    cells = {(row["group"], row["system"]): row["cells"] for row in table["rows"]}
    # The grammar has all slots of its own answers right, whatever a model does.
    assert cells["single-movie tasks", "teacher"]["slots"]["mean"] == 1.0
    assert cells["two-movie tasks", "teacher"]["sc"]["mean"] == pytest.approx(1.0)
    assert set(cells["user_profile", "elm"]) == {"slots", "bc/ndcg", "bc/spearman"}
    assert {curve["name"] for curve in json.loads((results / "curves.json").read_text())} == {
        "between two films, linear",
        "between two users, linear",
        *(f"{who}towards 'betrayal', {kind} CAV" for who in ("", "users ") for kind in ("linear", "ranking")),
    }


def test_held_out_examples_are_held_out(done):
    run, _ = done
    films, users = run.spaces.split.entities, run.spaces.split.users
    for part in ("train", "test"):
        for row in run.examples[part]:
            if row["user"] is not None:
                assert row["user"] in users[part]
            else:
                assert row["items"][0] in films[part]
    seen = [(row["task"], entities_of(row)[0]) for row in run.examples["test"]]
    assert len(seen) == len(set(seen)) == 2 * 25 + 2
    assert {row["task"] for row in run.examples["train"]} == set(run.experiment.tasks)


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
    draw = elm_stage.batch_drawer(run.elms[0], run.examples["train"], run.spaces, 960, seed=3)
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


def test_what_people_rate_is_what_the_elm_of_the_first_seed_wrote(done):
    run, _ = done
    examples = {row["task"]: row for row in run.examples["train"]}
    sampling = run.experiment.evaluation.sampling
    asked = {"elms": run.elms, "reader": run._reader(), "examples": examples, "sampling": sampling}
    answers = run._answer(Respondents(book=run.experiment.book, **asked))
    (elm,) = [one for one in answers if (one.system, one.seed) == ("elm", run.experiment.elm_seeds[0])]
    kept = json.loads((run.workdir / "answers" / ELM_ANSWERS).read_text())["value"]
    assert (kept["texts"], kept["reasons"]) == (elm.texts, elm.reasons)
    assert any(one.texts != elm.texts for one in answers)


def test_a_finished_run_can_be_asked(done, monkeypatch, capsys):
    run, _ = done
    explorer, wals = explorer_of(run), run.spaces.wals
    user = 3
    expected = predict_ratings(wals, np.full(160, user), np.arange(160))
    expected += np.mean(wals.user_bias) - wals.user_bias[user]
    given = run.spaces.split.train.rating
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


def test_the_space_of_a_finished_run_is_read_out_by_its_elm(done):
    run, _ = done
    report_elm(run)
    space = load_elm_space(run.workdir, seed=3)
    told = space.tell(SpacePoint(first="f1", second="f2", alpha=0.5), "summary", 4)
    middle = run.spaces.semantic[[1, 2]].mean(axis=0)
    prompt = EmbeddedPrompt(elm_prompt("compact", TASKS["summary"]), ((SEMANTIC, middle),))
    made = run.elms[0].generate([prompt], run.experiment.evaluation.sampling, 7)
    said = read_outputs("compact", made)
    assert ([told.reply.text], [told.reply.malformed]) == (said.texts, said.reasons)
    assert "betrayal" in space.tags and "user_profile" not in space.tasks and len(space.positions) == 160


def test_only_training_films_are_rewarded_and_only_held_out_ones_are_compared(rewarded):
    run, _ = rewarded
    films = run.spaces.split.entities
    task = run.rewarded_task()
    drawn = task.draw_rows(np.random.default_rng(0), 500)
    assert {row["items"][0] for row in drawn} <= set(films["train"].tolist())
    assert {row["items"][0] for row in task.validation_rows} == set(films["validation"].tolist())
    asked = [row["items"][0] for row in run.held_out_rows()]
    assert set(asked) <= set(films["test"].tolist()) and len(set(asked)) == 4


def test_start_and_trained_are_asked_the_same_and_told_apart(rewarded):
    run, results = rewarded
    first, cooler = json.loads((results / "tables.json").read_text())
    assert (first["temperature"], cooler["temperature"]) == (1.0, 0.3)
    assert cooler["kl"] is None and first["kl"]["start"] == 0.0
    num_outputs = {row["system"]: row["num_outputs"] for row in first["rows"] if row["group"] == "summary"}
    assert num_outputs == {"start": 8, "reinforce": 8}  # four films, two seeds
    (row,) = first["comparisons"]
    assert [one["seed"] for one in row["by_seed"]] == [0, 1]
    assert row["verdict"] == UNDECIDED
    text = report_rlaif(run).with_suffix(".md").read_text(encoding="utf-8")
    assert "Reinforce raises SC over its start: not decided here" in text and "2 of 3 seeds" in text
    assert "The same at temperature 0.3" in text
    assert "MiniLens with 160 films and 80 users." in text and "with 2 seeds. Asked: " in text


def test_profiles_are_rewarded_by_how_they_rank_films(reinforce):
    one_seed = dataclasses.replace(tiny(), reward="bc/ndcg", tasks=("user_profile",), seeds=(0,))
    run, results = reinforce(one_seed)
    first = json.loads((results / "tables.json").read_text())[0]
    assert set(first["rows"][0]["cells"]) == {"slots", "bc/ndcg", "bc/spearman"}
    assert first["comparisons"][0]["system"] == "reinforce"


def wrote(*texts, reason="stop"):
    return [Generation(text=text, token_ids=None, log_probs=None, stop_reason=reason) for text in texts]


def test_behavioral_reward_looks_at_training_ratings_of_training_films(done):
    spaces = done[0].spaces
    rows = [spaces.profile_rows[user] for user in spaces.described_users("test")[:4]]
    films, table = spaces.split.entities["train"], spaces.split.train
    gains = np.zeros((len(rows), len(films)))
    for user, film, rating in zip(table.user_index, table.item_index, table.rating, strict=True):
        for place, row in enumerate(rows):
            if row["user"] == user and film in films:
                gains[place, np.flatnonzero(films == film)[0]] = 2.0**rating - 1
    profiles = np.float64(spaces.user_encoder([row["target"] for row in rows]))
    texts = np.float64(spaces.item_texts[films])
    scores = profiles @ (texts / np.linalg.norm(texts, axis=1, keepdims=True)).T
    given = training_reward("bc/ndcg", 0.0, spaces)(rows, wrote(*(row["target"] for row in rows)))
    assert gains.any(axis=1).all()
    np.testing.assert_allclose(given, [ndcg_score([g], [s]) for g, s in zip(gains, scores, strict=True)], rtol=1e-6)


def test_what_cannot_be_read_gets_the_reward_of_the_settings(done):
    run, _ = done
    row = next(row for row in run.examples["test"] if row["task"] == "summary")
    reward = training_reward("sc", -0.5, run.spaces)
    whole, cut = reward([row, row], [*wrote(row["target"]), *wrote(row["target"], reason="length")])
    target = run.spaces.semantic[row["items"][0]]
    (own,) = run.spaces.embed([row["target"]])
    cosine = own @ target / np.linalg.norm(own) / np.linalg.norm(target)
    assert whole == pytest.approx(cosine, rel=1e-5) and cut == -0.5


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ((), {"tasks": ("user_profile",)}, "'user_profile' has no reward 'sc'"),
        ((), {"seeds": (0, 0)}, "seeds: none twice, got"),
        ((), {"trainings": {}}, "trainings: at least one"),
        (("start",), {"elm_seeds": (1, 1)}, r"elm_seeds: none twice, got \(1, 1\)"),
        (("start", "space"), {"tasks": ("trailer",)}, "'trailer' is none of summary"),
        (("start",), {"tasks": ("summary",)}, "tasks: expected one of user_profile, amazon_user_profile among them"),
        (("start",), {"tasks": ("pitch", "user_profile")}, "'summary' is none of the experiment's tasks, pitch"),
        (("start",), {"tasks": ("amazon_description",)}, "'amazon_description' has no compact wording"),
        (("start",), {"book": "detailed"}, "models.teacher: minilens/teacher answers the compact book"),
    ],
)
def test_settings_name_what_is_wrong(part, changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(functools.reduce(getattr, part, tiny()), **changes)
