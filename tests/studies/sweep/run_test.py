"""A sweep of processes: equal stages are computed once, failures are told, the rest is done and kept."""

import json
import re

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.studies.sweep.run import sweep_command

# An experiment of two stages, the first of which does not depend on the rate; "bad" fails in the second.
PROGRAM = """
import json, os, sys
from pathlib import Path
from eagle_jax.stages.run import Run

flags = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
run = Run(Path(flags["workdir"]), experiment="stub")
with run.stage("catalogue", seed=flags["config.seed"]) as catalogue:
    if not catalogue.is_complete():
        catalogue.write_json("value.json", os.getpid())
        catalogue.finish()
with run.stage("fit", "catalogue", rate=flags["config.rate"]) as fit:
    if flags["config.rate"] == "bad":
        sys.exit("no such rate")
    if not fit.is_complete():
        fit.write_json("value.json", catalogue.read_json("value.json"))
        fit.finish()
cell = f"{flags['config.rate']} [0, 1]"
table = {"section": "Main", "columns": ["Row", "U"], "rows": [["EAGLE, g_optimal", cell]]}
(run.workdir / "results.json").write_text(json.dumps({"tables": [table]}))
"""
FLAGS = ["--experiment=stub", "--grid=config.seed=0,1", "--grid=config.rate=0.1,bad,0.3", "--workdir=sweep"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the program is the experiment `stub`."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").touch()
    (tmp_path / "experiments" / "stub.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "sweep"


def values(folder, name):
    return {
        path.parent.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob(f"*/{name}/value.json"))
    }


def test_a_stage_is_computed_once_and_a_failure_stops_nothing(folder, capsys):
    with pytest.raises(SystemExit) as ended:
        sweep_command(FLAGS)
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.out == "report: sweep/report.html\n"
    assert "failed: 001, 004; the same command tries them again" in said.err
    made = values(folder, "catalogue")
    assert made["000"] == made["001"] == made["002"] != made["003"] == made["004"] == made["005"]
    assert sorted(values(folder, "fit")) == ["000", "002", "003", "005"]
    assert json.loads((folder / "002" / "catalogue" / "TAKEN_OVER.json").read_text()) == {"from": "000"}
    assert not (folder / "000" / "catalogue" / "TAKEN_OVER.json").exists()

    page = (folder / "report.md").read_text()
    runs = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| 00")]
    assert runs[1][:4] == ["001", "0", "bad", "failed with code 1: no such rate"]
    assert [runs[0][3], runs[0][5], runs[2][5]] == ["done", "none", "catalogue"]
    of_eagle = [row for row in runs if len(row) == 4]
    assert of_eagle[0] == ["000", "0", "0.1", r"0.1 \[0, 1\]"] and len(of_eagle) == 4

    # The bad rate is mended: what was done stays, and only the two are run.
    program = folder.parent / "experiments" / "stub.py"
    program.write_text(program.read_text().replace('== "bad"', '== "worse"'))
    times = {path: path.stat().st_mtime_ns for path in folder.glob("logs/*")}
    sweep_command(FLAGS)
    again = sorted(path.stem for path, time in times.items() if path.stat().st_mtime_ns != time)
    assert again == ["001", "004"]
    assert len(values(folder, "fit")) == 6


def test_commands_are_printed_and_other_folders_left_alone(folder, capsys):
    sweep_command([*FLAGS, "--dry-run", "--config.a=2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and not folder.exists()
    assert re.search(
        r"-m experiments\.stub --config\.a=2 --config\.seed=0 --config\.rate=bad --workdir=.*/001$", lines[1]
    )
    sweep_command([*FLAGS, "--dry-run", "--tpu", "eagle", "us-central1-a"])
    line = capsys.readouterr().out.splitlines()[0]
    assert re.match(r"bash \S+/launch/tpu_vm\.sh run eagle us-central1-a experiments\.stub --config\.seed=0 ", line)
    folder.mkdir()
    (folder / "mine.txt").write_text("")
    with pytest.raises(UserError, match="is no sweep's folder and not empty"):
        sweep_command(FLAGS)
    (folder / "sweep.json").write_text('{"experiment": "other"}')
    with pytest.raises(UserError, match="another sweep's"):
        sweep_command(FLAGS)
    assert sorted(path.name for path in folder.iterdir()) == ["mine.txt", "sweep.json"]
