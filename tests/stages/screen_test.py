"""The plan that a run shows: what is there, what goes on, what is to do."""

from eagle_jax.stages.screen import plan_lines

NAMES = ("catalogue", "encoders", "agent")


def make(workdir, name, *files):
    (workdir / name).mkdir()
    for file in files:
        (workdir / name / file).write_text("{}")


def test_stages_are_told_by_how_far_they_are(tmp_path):
    make(tmp_path, "catalogue", "SETTINGS.json", "MANIFEST.json")
    make(tmp_path, "encoders", "SETTINGS.json")
    assert plan_lines(tmp_path, NAMES) == [
        f"{tmp_path}: 3 stages",
        "  there already: catalogue",
        "  goes on:       encoders",
        "  to do:         agent",
    ]


def test_what_has_no_stage_is_not_told(tmp_path):
    assert plan_lines(tmp_path / "new", NAMES) == [
        f"{tmp_path / 'new'}: 3 stages",
        "  to do:         catalogue, encoders, agent",
    ]


def test_a_finished_run_says_that_all_is_there(tmp_path):
    for name in NAMES:
        make(tmp_path, name, "SETTINGS.json", "MANIFEST.json")
    assert plan_lines(tmp_path, NAMES) == [f"{tmp_path}: all 3 stages are there already; the report is written anew"]


def test_many_stages_take_several_lines_of_one_indentation(tmp_path):
    lines = plan_lines(tmp_path / "new", [f"agent_g_optimal_{seed}" for seed in range(20)])
    assert len(lines) > 2 and all(len(line) <= 100 for line in lines[1:])
    assert all(line.startswith(" " * 17 + "agent_") for line in lines[2:])
