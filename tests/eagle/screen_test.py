"""What the terminal shows of an EAGLE run."""

import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.settings import to_settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.eagle.screen import key_figure, leaving_lines, planned_stages, result_lines
from eagle_jax.eagle.settings import EagleExperiment


def planned(name, variant="", **options):
    values = load_config(f"experiments/configs/{name}.py{variant}")
    return planned_stages(to_settings(EagleExperiment, values), **options)


def test_every_part_that_a_config_has_is_a_stage_in_its_place():
    assert planned("eagle_minilens", ":quick") == [
        *("catalogue", "encoders", "profiles", "candidates", "design"),
        *("reference_g_optimal", "agent_g_optimal_0", "evaluation"),
    ]
    films = planned("eagle_films")
    assert films[:5] == ["catalogue", "encoders", "profiles", "ceiling", "candidates"]
    assert films[-4:] == ["expert_g_optimal_0", "agent_g_optimal_0", "planner_0", "evaluation"]
    assert planned("eagle_minilens_dpo", ":quick")[-3:-1] == ["agent_g_optimal_0", "preference_agent_g_optimal_0"]
    assert planned("eagle_minilens_elm", ":quick")[-3:] == ["elm_0", "elm_search", "evaluation"]


def leaving(name, variant=""):
    values = load_config(f"experiments/configs/{name}.py{variant}")
    return leaving_lines(to_settings(EagleExperiment, values))


def test_what_leaves_the_machine_is_told_with_where_it_goes():
    generator, environment, rater, last = leaving("eagle_remote", ":openai")
    assert generator.startswith("  remote/openai (generator, https://api.openai.com/v1) is sent: items' texts, titles ")
    assert "texts to rewrite" in environment and rater.endswith("users' profiles") and "user_data_stays" in last


def test_nothing_is_told_where_nothing_leaves():
    assert leaving("eagle_minilens") == []


def test_a_run_that_ends_with_its_ceiling_has_no_later_stages():
    assert planned("eagle_films", stop_after="ceiling")[-1] == "ceiling"


@pytest.mark.parametrize(
    ("passed", "told"),
    [
        (True, "check passed: their error 0.40 is below 0.55, the distance of nearest users"),
        (False, "CHECK FAILED: their error 0.40 is not below 0.55, the distance of nearest users"),
    ],
)
def test_the_check_of_profiles_is_told_either_way(tmp_path, passed, told):
    stage = StageFolder(tmp_path / "profiles", {})
    stage.write_json("facts.json", {"held_out_error": 0.4, "nearest_neighbor_distance": 0.55, "passed": passed})
    assert key_figure(stage).startswith(told)


def test_ratings_of_which_none_is_held_out_have_no_error(tmp_path):
    stage = StageFolder(tmp_path / "catalogue", {})
    facts = {"num_entities": 1200, "num_users": 8, "num_training_ratings": 99417, "held_out_rmse": None}
    stage.write_json("facts.json", facts | {"baseline_rmse": None})
    assert key_figure(stage) == "1,200 items, 8 users, 99,417 ratings"


@pytest.mark.parametrize(("facts", "twice"), [({"candidates": 48}, 0), ({"candidates": 48, "duplicates": 3}, 3)])
def test_candidates_may_all_differ(tmp_path, facts, twice):
    stage = StageFolder(tmp_path / "candidates", {})
    stage.write_json("facts.json", facts)
    assert key_figure(stage) == f"48 actions, {twice} of them twice"


def test_a_stage_without_a_figure_has_none(tmp_path):
    assert key_figure(StageFolder(tmp_path / "design", {})) == ""


def test_the_table_of_results_stands_in_columns_with_its_most_independent_judge():
    cell = {"mean": 0.5, "low": 0.4, "high": 0.6}
    cells = {"train/utility": cell, "held_out/utility": {"mean": 0.25, "low": None, "high": None}}
    rows = [{"row": "anchor", "cells": cells}, {"row": "EAGLE, g_optimal", "cells": cells}]
    assert result_lines(rows) == [
        "                  U                        U, held-out encoder",
        "anchor            0.500 [0.400, 0.600]     0.250",
        "EAGLE, g_optimal  0.500 [0.400, 0.600]     0.250",
    ]
