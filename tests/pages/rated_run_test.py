"""What of a run is rated, and in one sentence why a folder cannot be."""

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.pages.rate import rating_command
from eagle_jax.pages.rated_run import read_rated_run
from tests.pages.made_up_run import EAGLE_ROW, record, write_run
from tests.programs import run_module


def test_texts_that_differ_from_their_anchors_are_rated(tmp_path):
    back_again = record("there and back", 0) | {"steps": [{"description": record("x", 0)["anchor"]}]}
    run = read_rated_run(write_run(tmp_path, rows=(EAGLE_ROW, "best of 5"), noun_records=[back_again]))
    assert [item.name for item in run.items][:2] == [(EAGLE_ROW, "0", "0", "100"), (EAGLE_ROW, "0", "1", "101")]
    assert {item.row for item in run.items} == {EAGLE_ROW, "best of 5"} and len(run.items) == 8
    first = run.items[0]
    assert first.anchor == {"PLOT": "anchor 0", "REASONS_TO_LIKE": "it is warm", "REASONS_TO_DISLIKE": "it is slow"}
    assert first.generated["PLOT"] == f"new text 0 of {EAGLE_ROW}" and first.about == {
        "The user": {"": "user 0 loves deserts"}
    }
    assert run.noun == "film" and run.measured["U"][EAGLE_ROW]["mean"] == 0.5


def test_the_first_starts_are_the_same_for_all_rows(tmp_path):
    run = read_rated_run(write_run(tmp_path, rows=(EAGLE_ROW, "best of 5")), num_starts=2)
    assert [item.name[2] for item in run.items] == ["0", "1", "0", "1"]


def without_records(path):
    stage = StageFolder(path / "evaluation", {})
    stage.write_json("table.json", [])
    stage.finish()


def unfinished(path):
    write_run(path)
    (path / "evaluation" / "MANIFEST.json").unlink()


def changed(path):
    write_run(path)
    with open(path / "evaluation" / "records.jsonl", "a") as file:
        file.write("\n")


def unlike(path):
    write_run(path, noun_records=[record("EAGLE", 0) | {"steps": [{"description": "no blocks"}]}])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.rmdir(), "there is no such folder"),
        (lambda path: None, "has no finished evaluation of EAGLE"),
        (without_records, "is not a run of experiments.eagle"),
        (unfinished, "has no finished evaluation of EAGLE"),
        (changed, "records.jsonl: has "),
        (unlike, "records.jsonl, line 9: the texts do not have the same blocks"),
        (lambda path: write_run(path, rows=()), "no text differs from its anchor"),
    ],
)
def test_a_folder_that_cannot_be_rated_is_refused_and_left_alone(make, said, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    make(folder)
    with pytest.raises(UserError, match=said):
        rating_command([f"--workdir={folder}", "--port=0"])
    assert not list(tmp_path.rglob("ratings.sqlite"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--raters=0"], "--raters=0: must be at least 1"),
        (["--port=-1"], "--port=-1: must be at least 0"),
        (["--port=99999"], "--port=99999: "),
        (["--consent=nowhere"], "--consent=nowhere: No such file"),
        (["--rater=3"], "unrecognized arguments: --rater=3; eagle-jax rate --help"),
    ],
)
def test_wrong_flags_are_named(flags, said, tmp_path):
    with pytest.raises(UserError) as error:
        rating_command([f"--workdir={write_run(tmp_path)}", *flags])
    assert said in str(error.value)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("eagle_jax.pages.rate.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"need starlette and uvicorn: pip install 'eagle_jax\[pages\]'"):
        rating_command([f"--workdir={write_run(tmp_path)}"])


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path):
    done = run_module("eagle_jax", "rate", f"--workdir={tmp_path}")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "no finished evaluation" in done.stderr
