"""The ceiling of the small world: what its page says, that it resumes, and that nothing is gained by doing nothing."""

import dataclasses

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.prompts import COMPACT, MOVIE
from eagle_jax.eagle.ceiling import stage as stage_module
from eagle_jax.eagle.ceiling.report import ceiling_facts, ceiling_sentences
from eagle_jax.eagle.ceiling.settings import CeilingSettings
from eagle_jax.eagle.ceiling.stage import is_above_noise, run_ceiling_stage
from eagle_jax.eagle.environment import LLMEnvironment
from eagle_jax.eagle.roles.listed_actions import ListedActionSettings
from eagle_jax.language_model.generation import ScriptedGenerator
from eagle_jax.reports.statistics import BootstrapSettings
from tests.eagle.scripted_environment import rewrite
from tests.same_run import Interrupted
from tests.small_world import SAMPLING

BOOTSTRAP = BootstrapSettings(num_resamples=200, confidence=0.95, seed=0)
SETTINGS = CeilingSettings(
    num_anchors=3, num_users=9, instructions=ListedActionSettings(file="", num_candidates=4), stops=True
)


@pytest.fixture
def run(world, tmp_path):
    """Runs the stage in a folder, with what plays the environment."""

    def run_stage(folder, answer):
        environment = LLMEnvironment(
            generator=ScriptedGenerator(answer), book=COMPACT, entity_format=MOVIE, sampling=SAMPLING
        )
        stage = StageFolder(tmp_path / folder / "ceiling", {})
        played = dataclasses.replace(
            world, environment=environment, scorers={"train": world.scorer, "held_out": world.scorer}
        )
        return stage, run_ceiling_stage(stage, played, SETTINGS, BOOTSTRAP, 5)

    return run_stage


def with_action(prompt, rng):
    return rewrite(prompt.text).removeprefix("#BEGIN_PLOT")


def test_the_reward_chooses_among_the_same_instructions_for_each_held_out_anchor(run, world):
    stage, found = run("whole", with_action)
    rows = stage.read_jsonl("rewrites.jsonl")
    assert len(rows) == found["num_anchors"] == 3 and found["num_rewrites"] == 12 and found["malformed"] == {}
    assert {row["entity_index"] for row in rows} <= set(world.split.entities["validation"].tolist())
    assert len({tuple(row["actions"]) for row in rows}) == 1
    for row in rows:
        assert row["entity_index"] not in row["others"] and len(set(row["others"])) == len(row["others"])
        for action, text in zip(row["actions"], row["texts"], strict=True):
            assert action in text
    (best,) = (row["cells"] for row in found["rows"] if row["choice"] == "best")
    assert best["train/utility"] == best["held_out/utility"] and best["train/utility"]["mean"] >= 0


def test_an_interrupted_one_ends_with_the_same_numbers_and_asks_for_no_text_twice(run):
    whole, _ = run("whole", with_action)
    asked = []

    def until_killed(prompt, rng):
        asked.append(prompt.text)
        if len(asked) == 6:  # in the second anchor
            raise Interrupted
        return with_action(prompt, rng)

    with pytest.raises(Interrupted):
        run("killed", until_killed)
    first = len(asked)
    stage, _ = run("killed", lambda prompt, rng: asked.append(prompt.text) or with_action(prompt, rng))
    assert len(asked) - first == 8  # the first anchor's four are kept
    for file in ("facts.json", "rewrites.jsonl"):
        assert (stage.path / file).read_bytes() == (whole.path / file).read_bytes()


def test_an_environment_that_changes_nothing_has_its_ceiling_within_noise(run):
    stage, found = run("silent", lambda prompt, rng: "nothing that can be read")
    assert sum(found["malformed"].values()) == found["num_rewrites"] and found["anchor_share"] == 1
    assert not is_above_noise(found)
    facts = {line["name"]: line["value"] for line in ceiling_facts(stage)}
    assert facts["rewritings that were accepted"] == "0 of 12"
    assert facts["gain by the best rewriting"]["mean"] == 0


def test_one_instruction_is_no_choice():
    with pytest.raises(ValueError, match=r"instructions\.num_candidates must be at least 2"):
        dataclasses.replace(SETTINGS, instructions=ListedActionSettings(file="", num_candidates=1))


def test_a_split_with_one_validation_anchor_is_refused_before_anything_is_asked(world, tmp_path):
    one = dict(world.split.entities, validation=world.split.entities["validation"][:1])
    few = dataclasses.replace(world, split=dataclasses.replace(world.split, entities=one))
    with pytest.raises(UserError, match="1 validation anchors"):
        run_ceiling_stage(StageFolder(tmp_path / "ceiling", {}), few, SETTINGS, BOOTSTRAP, 5)


def test_where_texts_have_fields_each_gain_is_told_once_more_with_these_held(run, monkeypatch):
    _, found = run("plain", with_action)
    assert not any("plot" in name for name in found["rows"][0]["cells"])
    monkeypatch.setattr(stage_module, "field_edits", lambda text: {"also told": text + " told"})
    monkeypatch.setattr(stage_module, "with_fields_of", lambda anchor, text: text.removesuffix(" told"))
    stage, found = run("fields", with_action)
    rows = {row["choice"]: row["cells"] for row in found["rows"]}
    for encoder in ("train", "held_out"):
        assert rows["field change"][f"{encoder}_plot/utility"]["mean"] == 0
        assert rows["best"][f"{encoder}_plot/utility"] == rows["best"][f"{encoder}/utility"]
    assert list(found["reliability"]) == ["held_out"]
    assert any("held at the anchor's" in sentence for sentence in ceiling_sentences(found))
    assert sorted(found["instructions"]) == sorted(stage.read_jsonl("rewrites.jsonl")[0]["actions"])
