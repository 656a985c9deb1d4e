"""One run at a time in a work directory, and no lock that a dead run leaves in the way."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.stages import run_lock
from eagle_jax.stages.run import Run
from eagle_jax.stages.run_lock import WorkDirectoryInUseError, hold

HOLDER = """
import sys
from pathlib import Path
from eagle_jax.stages.run import Run

run = Run(Path(sys.argv[1]))
with run.stage("none"):
    pass
print("held", flush=True)
sys.exit(sys.stdin.read())
"""


@pytest.fixture
def holder(tmp_path):
    """Another process in `tmp_path/run`, until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process


@contextlib.contextmanager
def held(folder):
    release = hold(folder)
    try:
        yield
    finally:
        release()


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_second_process_says_who_is_there_and_writes_nothing(tmp_path, holder):
    told = json.loads((tmp_path / "run" / "run.lock").read_text())
    assert told["pid"] == holder.pid
    said = rf"(?s)run is in use by `python.*` \(process {holder.pid} on {told['host']} since 20"
    stage = Run(tmp_path / "run").stage("first")
    with pytest.raises(WorkDirectoryInUseError, match=said), stage:
        raise AssertionError("not reached")
    assert files(tmp_path / "run") == ["run.lock"]
    holder.communicate("an error")
    assert holder.returncode == 1
    assert not (tmp_path / "run").exists()  # made for the lock, and nothing was kept
    with Run(tmp_path / "run").stage("first") as stage:
        stage.write_json("value.json", 1)
    assert files(tmp_path / "run") == ["first", "times.json"]


def test_a_killed_holder_is_followed_by_the_next_run(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert files(tmp_path / "run") == ["run.lock"]
    with held(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / "run.lock").read_text())["pid"] == os.getpid()
    assert files(tmp_path / "run") == []


def test_the_same_process_enters_again_and_an_error_gives_it_back(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ZeroDivisionError), held(tmp_path):
        with held(tmp_path / "link"):
            pass
        assert files(tmp_path) == ["link", "run.lock"]
        raise ZeroDivisionError
    assert files(tmp_path) == ["link"]


def left(folder, **changes):
    """What a process that is gone has left in `folder`; returns its file."""
    path = folder / "run.lock"
    path.write_text(json.dumps(run_lock._note() | changes))
    return path


def test_another_machine_may_still_run_and_a_reboot_ended_all(tmp_path):
    path = left(tmp_path, host="elsewhere", boot="another", pid=7)
    before = path.read_bytes()
    said = f"process 7 on elsewhere since .*another machine.*remove {path} and run the same"
    with pytest.raises(WorkDirectoryInUseError, match=said), held(tmp_path):
        raise AssertionError("not reached")
    assert path.read_bytes() == before
    for note in ({"boot": "another"}, {"host": "a container before this one"}):
        left(tmp_path, **note)
        with held(tmp_path):
            pass
        assert files(tmp_path) == []


@pytest.mark.parametrize("content", ["", '{"pid": ', "[" * 100_000, "7", '{"pid": "x"}'])
def test_half_a_note_of_nobody_is_no_obstacle(tmp_path, content):
    (tmp_path / "run.lock").write_text(content)
    with held(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()


def test_without_locks_of_the_file_system_the_note_decides(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    left(tmp_path, pid=os.getppid())
    with pytest.raises(WorkDirectoryInUseError, match="is in use"), held(tmp_path):
        raise AssertionError("not reached")
    left(tmp_path, pid=2**40)  # no system has as many
    with held(tmp_path):
        assert files(tmp_path) == ["run.lock"]


def test_a_lock_that_was_removed_while_it_was_waited_for_is_none(tmp_path, monkeypatch):
    """The file that is locked has to be the one that the next process finds."""
    lock, calls = fcntl.flock, []

    def meanwhile(file, how):
        calls.append(file)
        if len(calls) == 1:
            (tmp_path / "run.lock").unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    with held(tmp_path):
        assert len(calls) == 2
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("name", ["report.md", "report.html", "results.json", "results.csv"])
def test_a_report_of_somebody_else_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name}: no stage is beside it"), held(tmp_path):
        raise AssertionError("not reached")
    assert files(tmp_path) == [name]


def test_an_address_is_no_folder_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="work directory: gs:/bucket/run is an address, .* mounted"):
        hold(Path("gs://bucket/run"))
    assert files(tmp_path) == []
