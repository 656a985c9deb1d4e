"""What an older version wrote is read, gone on from, or refused in one sentence and left alone.

`made_by_d862271` holds two stages of that commit, before there were versions: `numbers` is done,
`sums` reads it and has one of two parts.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from eagle_jax.base import schema
from eagle_jax.base.atomic_files import checksums
from eagle_jax.base.command_line import load_config
from eagle_jax.base.errors import StaleArtifactError, UserError
from eagle_jax.base.work_directory import StageFolder

OLD = Path(__file__).with_name("made_by_d862271")
SENTENCE = "size is called width"


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "old"))


@pytest.fixture
def renamed(monkeypatch):
    """A second version, in which the setting `size` of the stage `numbers` is called `width`."""

    def before(stage, settings):
        names = {"width": "size"} if stage == "numbers" else {}
        return {names.get(name, name): value for name, value in settings.items()}

    monkeypatch.setattr(schema, "SCHEMA", 2)
    monkeypatch.setattr(schema, "CHANGES", {2: schema.Change(SENTENCE, before, True)})


def stages(root, **settings):
    numbers = StageFolder(root / "numbers", {**settings, "experiment_seed": 0})
    return numbers, StageFolder(root / "sums", {"of": "numbers", "experiment_seed": 0}, [numbers])


def assert_is_gone_on_from(root, numbers, sums):
    manifest = json.loads((OLD / "numbers" / "MANIFEST.json").read_text())
    assert numbers.digest == manifest["digest"]  # which checkpoints are saved under, too
    assert numbers.is_complete()
    np.testing.assert_array_equal(numbers.read_arrays("numbers.npz")["numbers"], [0, 1, 2])
    assert not sums.is_complete()
    assert [sums.chunk(index, lambda: {"sum": 3}) for index in (0, 1)] == [{"sum": 1}, {"sum": 3}]
    sums.finish()
    assert json.loads((root / "sums" / "MANIFEST.json").read_text())["schema"] == 1
    for stage in ("numbers", "sums"):
        kept = (root / stage / "SETTINGS.json").read_bytes()
        assert kept == (OLD / stage / "SETTINGS.json").read_bytes()


def test_what_carries_no_version_is_of_the_first(old):
    assert_is_gone_on_from(old, *stages(old, size=3))


def test_settings_that_have_other_names_now_are_told_by_the_old_ones(old, renamed):
    assert_is_gone_on_from(old, *stages(old, width=3))
    with pytest.raises(StaleArtifactError, match="size: 3 there, 4 now"):
        stages(old, width=4)[0].is_complete()


def test_a_stage_made_anew_is_of_the_version_of_now(old, renamed):
    shutil.rmtree(old / "numbers")
    numbers, _ = stages(old, width=3)
    numbers.write_json("value.json", 1)
    told = json.loads((old / "numbers" / "SETTINGS.json").read_text())
    assert told["schema"] == 2 and told["settings"]["width"] == 3
    numbers.finish()
    again, sums = stages(old, width=3)
    assert again.is_complete()
    with pytest.raises(StaleArtifactError, match="the stage 'numbers' that it reads differs"):
        sums.is_complete()


def test_a_change_without_a_way_back_is_refused_in_a_sentence(old, monkeypatch):
    monkeypatch.setattr(schema, "SCHEMA", 3)
    changes = {
        2: schema.Change(SENTENCE, lambda stage, settings: settings, True),
        3: schema.Change("numbers are float", lambda stage, given: None if stage == "numbers" else given, False),
    }
    monkeypatch.setattr(schema, "CHANGES", changes)
    before = checksums(old)
    with pytest.raises(StaleArtifactError) as refused:
        stages(old, size=3)
    assert str(refused.value) == (
        f"{old / 'numbers'} is of schema 1, now it is 3: {SENTENCE}; numbers are float. "
        "Remove it to make it anew, or choose another work directory"
    )
    assert checksums(old) == before
    # Made anew it is of now, what nothing changed about is of then, and both are gone on from.
    shutil.rmtree(old / "numbers")
    for stage in stages(old / "new", size=3):
        stage.write_json("value.json", 1)
    assert [stage.is_complete() for stage in stages(old / "new", size=3)] == [False, False]
    told = [
        json.loads((old / "new" / name / "SETTINGS.json").read_text()).get("schema") for name in ("numbers", "sums")
    ]
    assert told == [3, None]


def test_evaluations_whose_rows_have_no_fields_are_refused(tmp_path):
    """Of the changes there were: all other stages of d862271 are read as they are."""
    for name in ("evaluation", "candidates"):
        shutil.copytree(OLD / "numbers", tmp_path / name)
    settings = {"size": 3, "experiment_seed": 0}
    assert StageFolder(tmp_path / "candidates", settings).is_complete()
    with pytest.raises(StaleArtifactError, match="is of schema 1, now it is .*: rows of an eval"):
        StageFolder(tmp_path / "evaluation", settings)
    with_kl = {"seed": 0, "training": {"horizon": 5, "kl_estimator": "exact"}}
    without = {"seed": 0, "training": {"horizon": 5}}
    assert schema.settings_of(1, Path("agent_g_optimal_0"), without) == with_kl


def test_sampling_that_came_later_is_what_it_was_where_it_is_off():
    before = {"rater": {"temperature": 0.5, "top_k": 0}, "seeds": [1], "min_p": 0.0}
    now = before | {"rater": before["rater"] | {"min_p": 0.0, "repetition_penalty": 1.0}}
    assert schema.settings_of(3, Path("profiles"), now) == before
    on = now | {"rater": now["rater"] | {"min_p": 0.1}}
    assert schema.settings_of(3, Path("profiles"), on)["rater"]["min_p"] == 0.1


def test_elm_of_minilens_is_read_as_before_it_took_other_catalogues_and_teachers():
    before = {
        "space": {"space": {"width": 8}, "teacher": "MiniLens' grammar", "asked": {"max_tries": 3}},
        "examples": {"examples": {"profiles": 6}, "asked": {"max_tries": 3}},
        "elm_0": {"models": {"reader": "minilens/reader"}, "elm": {"lora": None}},
    }
    tasks = [f"task {number}" for number in range(25)]
    asked = {"shows": "title", "max_tries": 3}
    now = {
        "space": {"space": {"asked_about": "all", "width": 8}, "teacher": "MiniLens' grammar", "asked": asked}
        | {"book": "compact", "profile_task": "user_profile"},
        "examples": {"examples": {"profiles": 6}, "asked": asked, "tasks": tasks},
        "elm_0": {"models": {"reader": "minilens/reader", "teacher": "minilens/teacher"}, "elm": {"lora": None}},
    }
    for stage, settings in now.items():
        assert schema.settings_of(3, Path(stage), settings) == before[stage]
    for stage, change in {"space": {"book": "detailed"}, "examples": {"tasks": tasks[:5]}}.items():
        assert schema.settings_of(3, Path(stage), now[stage] | change) == before[stage] | change


def test_what_a_later_program_wrote_is_refused(old):
    path = old / "numbers" / "SETTINGS.json"
    path.write_text(json.dumps({"schema": 99, **json.loads(path.read_text())}))
    with pytest.raises(StaleArtifactError, match="is of schema 99, which a later program wrote"):
        stages(old, size=3)


def test_a_config_of_another_version_is_refused_with_what_changed(tmp_path, renamed, monkeypatch):
    body = "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict()\n"
    config = tmp_path / "config.py"
    for first_line in ("", "SCHEMA = 1\n"):
        config.write_text(first_line + body)
        with pytest.raises(UserError) as refused:
            load_config(str(config))
        assert str(refused.value) == (
            f"--config={config}: {config} is of schema 1, now it is 2: {SENTENCE}. "
            "Bring it up to date and write SCHEMA = 2 in it"
        )
    config.write_text("SCHEMA = 2\n" + body)
    assert load_config(str(config)).is_locked
    config.write_text(body)
    monkeypatch.setattr(schema, "CHANGES", {2: schema.CHANGES[2]._replace(is_of_configs=False)})
    assert load_config(str(config)).is_locked


def test_what_came_with_the_films_is_off_where_nothing_names_it():
    now = {"user_space": {"halves": True, "independent": False}, "rewriting": {"format": "chat", "fields_file": None}}
    before = {"user_space": {"halves": True}, "rewriting": {"format": "chat"}}
    assert schema.settings_of(5, Path("encoders"), now) == before and schema.oldest_alike("x", before) < 6
    used = {"user_space": {"independent": True}, "evaluation": {"resampled": "anchors_and_users"}}
    assert schema.settings_of(5, Path("encoders"), used) == used


def test_an_agent_of_one_update_an_iteration_is_read_as_before_there_could_be_several():
    before = {"training": {"horizon": 5}, "seed": 0}
    now = {"training": {"horizon": 5, "policy_updates": 1, "clip_range": 0.2}, "seed": 0}
    assert schema.settings_of(6, Path("agent_g_optimal_0"), now) == before
    several = {"training": {"horizon": 5, "policy_updates": 4, "clip_range": 0.2}, "seed": 0}
    assert schema.settings_of(6, Path("agent_g_optimal_0"), several) == several
