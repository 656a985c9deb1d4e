"""A run of stages: what it tells beside them, and that no failure at any rename changes a byte."""

import json
import shutil
import subprocess
import sys

import pytest

from eagle_jax.base.atomic_files import checksums
from eagle_jax.base.errors import CorruptArtifactError, StaleArtifactError, UserError
from eagle_jax.stages import run as runs
from eagle_jax.stages.run import Run

STAGES = ("numbers", "walk", "report")
# Every child is one run of three stages in which something happens at its n-th rename. Forks before
# JAX is used.
PROGRAM = """
import errno, os, signal, sys
from pathlib import Path
import numpy as np
from eagle_jax.base import work_directory
from eagle_jax.base.errors import DiskFullError
from eagle_jax.stages.run import Run

work_directory.provenance = dict  # it tells the time

def failing(rename, moment, at, targets):
    def call(source, target, **options):
        targets.append(target)
        if moment == "before" and len(targets) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == "full" and len(targets) >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        rename(source, target, **options)
        if moment == "after" and len(targets) == at:
            os.kill(os.getpid(), signal.SIGKILL)
    return call

def experiment(workdir):
    run = Run(workdir, {"experiment_seed": 0}, experiment="stub")
    with run.stage("numbers", count=3) as stage:
        if not stage.is_complete():
            stage.write_arrays("numbers.npz", {"numbers": np.arange(3) / 7})
            stage.finish()
        numbers = stage.read_arrays("numbers.npz")["numbers"]
    with run.stage("walk", "numbers", length=2) as stage:
        if not stage.is_complete():
            parts = [stage.chunk(i, lambda i=i: (numbers * i).tolist()) for i in range(2)]
            stage.write_jsonl("walk.jsonl", [{"sum": sum(part)} for part in parts])
            stage.finish()
        rows = stage.read_jsonl("walk.jsonl")
    with run.stage("report", *run.stages) as stage:
        if not stage.is_complete():
            stage.write_json("report.json", rows)
            stage.finish()

def in_a_child(workdir, moment, at):
    child = os.fork()
    if child == 0:
        os.rename = os.replace = failing(os.replace, moment, at, targets := [])
        try:
            experiment(workdir)
        except DiskFullError:
            os._exit(2)
        os._exit(100 + len(targets))  # as many renames as there were
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

root = Path(sys.argv[1])
num_renames = in_a_child(root / "whole", "never", 0) - 100
print(num_renames)
for moment in ("before", "after", "full"):
    for at in range(1, num_renames + 1):
        workdir = root / f"{moment}_{at}"
        print(moment, at, in_a_child(workdir, moment, at), in_a_child(workdir, "never", 0) >= 100)
"""


def artifacts(workdir):
    """All but the times, and a trace of them where the kill was in writing the last ones."""
    found = checksums(workdir)
    return {name: found[name] for name in found if not name.startswith("times.json")}


def test_killed_or_out_of_space_at_any_rename_the_same_command_gives_the_same_bytes(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path)]
    first, *lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    # Three files, six and three; after each stage the times, after the first whose they are.
    assert int(first) == 3 + 2 + 5 + 1 + 3 + 1
    whole = artifacts(tmp_path / "whole")
    assert {name.split("/")[0] for name in whole} == {*STAGES, "experiment.json"}
    assert len(lines) == 3 * int(first)
    for line in lines:
        moment, at, code, resumed = line.split()
        # Without its times a run goes on.
        expected = {"2", "115"} if moment == "full" else {"-9"}
        assert code in expected and resumed == "True", line
        assert artifacts(tmp_path / f"{moment}_{at}") == whole, line


@pytest.fixture
def clock(monkeypatch):
    """Seconds that go by only when told."""
    now = [0.0]
    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    return now


def test_times_add_up_over_runs_and_a_stage_that_is_done_takes_none(tmp_path, clock):
    def make(fails):
        run = Run(tmp_path / "run", {"experiment_seed": 7})
        with run.stage("first", width=2) as stage:
            clock[0] += 1.5
            if not stage.is_complete():
                stage.write_json("value.json", 1)
                if fails:
                    raise KeyboardInterrupt
                stage.finish()
        with run.stage("second", "first") as stage:
            clock[0] += 0.5
        return run

    with pytest.raises(KeyboardInterrupt):
        make(fails=True)
    run = make(fails=False)
    assert run.seconds() == {"first": 3.0, "second": 0.5}
    assert make(fails=False).seconds() == {"first": 3.0, "second": 1.0}
    settings = json.loads((tmp_path / "run" / "first" / "SETTINGS.json").read_text())
    assert settings == {"settings": {"width": 2, "experiment_seed": 7}, "depends_on": {}}
    assert list(run.stages) == ["first", "second"] and run.usage() == []


def test_a_work_directory_that_is_removed_during_a_run_is_a_sentence(tmp_path):
    run = Run(tmp_path / "run")
    with run.stage("first") as stage:
        stage.write_json("value.json", 1)
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(CorruptArtifactError, match="value.json: .* it is missing; remove .* same command again"):
            stage.read_json("value.json")


def test_the_work_directory_of_another_experiment_is_refused(tmp_path):
    def make(experiment):
        with Run(tmp_path, experiment=experiment).stage("first") as stage:
            if not stage.is_complete():
                stage.write_json("value.json", 1)
                stage.finish()

    make("eagle")
    before = checksums(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}: was begun by the experiment eagle, .* that of real"):
        make("real")
    assert checksums(tmp_path) == before  # the lock is gone, too
    make("eagle")
    (tmp_path / "experiment.json").write_text("[]")
    with pytest.raises(CorruptArtifactError, match="experiment.json: cannot be read"):
        make("eagle")


@pytest.mark.parametrize("content", ["", "[]", "7", '{"first": "x"}', "[" * 100_000])
def test_times_that_nobody_wrote_are_refused(tmp_path, content):
    (tmp_path / "times.json").write_text(content)
    with pytest.raises(CorruptArtifactError, match="times.json: cannot be read"):
        Run(tmp_path).seconds()


def test_a_run_with_nothing_to_keep_leaves_nothing(tmp_path):
    with Run(tmp_path / "run").stage("first") as stage:
        assert not stage.is_complete()
    assert not (tmp_path / "run").exists()


def test_a_stage_of_other_settings_is_refused_before_anything_happens(tmp_path, clock):
    with Run(tmp_path).stage("first", width=2) as stage:
        stage.write_json("value.json", 1)
    before = checksums(tmp_path)
    stale = pytest.raises(StaleArtifactError, match="width: 2 there, 3 now")
    with stale, Run(tmp_path).stage("first", width=3):
        raise AssertionError("not reached")
    # The error, which is still known here, knows the run that holds the folder.
    assert checksums(tmp_path).keys() - before.keys() == {"run.lock"}
    assert before.items() <= checksums(tmp_path).items()


def test_the_terminal_is_told_the_plan_each_stage_that_begins_and_what_came_out(tmp_path, capsys):
    class Told(Run):
        def key_figure(self, stage):
            return f"{stage.read_json('count.json')} counted"

    def start():
        run = Told(tmp_path / "run")
        run.announce(["numbers", "report"])
        with run.stage("numbers") as stage:
            if not stage.is_complete():
                stage.write_json("count.json", 3)
                stage.finish()
        said = capsys.readouterr()
        assert said.out == ""
        return said.err.splitlines()

    first = start()
    assert first[:3] == [f"{tmp_path / 'run'}: 2 stages", "  to do:         numbers, report", "== numbers (1 of 2)"]
    assert first[3:] == ["   0 s: 3 counted"]
    assert start() == [f"{tmp_path / 'run'}: 2 stages", "  there already: numbers", "  to do:         report"]


def test_a_stage_that_was_begun_before_goes_on(tmp_path, capsys):
    for _ in range(2):
        with pytest.raises(RuntimeError, match="stop"), Run(tmp_path / "run").stage("walk") as stage:
            stage.chunk(0, lambda: 1)
            raise RuntimeError("stop")
    assert capsys.readouterr().err.splitlines() == ["== walk", "== walk, goes on"]
