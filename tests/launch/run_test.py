"""launch/run.sh, with a pretended Python: what is installed when, and what is not done again."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("launch/run.sh", "launch/constraints.txt", "setup.cfg", "pyproject.toml")

# Stands for python3: tells what it is asked to do, and makes environments that hold itself.
PYTHON = """#!/usr/bin/env bash
case "$*" in
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python; echo venv >>log ;;
  *"-m pip "*) echo "pip ${!#}" >>log; exit "${PIP_CODE:-0}" ;;
  --version) echo "Python 3.11.7" ;;
  "- "*) exit "${PACKAGE_CODE:-1}" ;;
  -c*) exit "${RANGE_CODE:-0}" ;;
  *) echo "ran $*${PYTHONDONTWRITEBYTECODE:+, keeps nothing}" >>log; exit "${MODULE_CODE:-0}" ;;
esac
"""


@pytest.fixture
def run(tmp_path):
    """Calls run.sh in a copy of the repository; returns exit code, stderr and what Python did."""
    copy, programs = tmp_path / "copy", tmp_path / "programs"
    for name in FILES:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    programs.mkdir()
    for name in ("python", "python3", "python3.11", "python3.12", "python3.13"):
        (programs / name).write_text(PYTHON)
        (programs / name).chmod(0o755)

    def call(*arguments, **variables):
        log = copy / "log"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", str(copy / "launch" / "run.sh"), *arguments],
            env={"PATH": f"{programs}:{os.environ['PATH']}", **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stderr, log.read_text().splitlines() if log.exists() else []

    call.copy = copy
    return call


def test_the_first_call_installs_and_the_second_only_runs(run):
    code, stderr, did = run("experiments.eagle", "--workdir=a b")
    assert (code, did) == (0, ["venv", "pip .", "ran -m experiments.eagle --workdir=a b"])
    assert "Python 3.11.7" in stderr
    assert run("experiments.eagle") == (0, "", ["ran -m experiments.eagle"])


def test_tests_add_their_extra_and_then_serve_both(run):
    run("experiments.eagle")
    assert run("pytest", "-q")[2] == ["pip .[test]", "ran -m pytest -q"]
    assert run("pytest", "-q")[2] == ["ran -m pytest -q"]
    assert run("experiments.eagle")[2] == ["ran -m experiments.eagle"]


def test_weights_that_the_command_or_its_config_names_are_fetched_before_it_runs(run):
    run("experiments.eagle")
    (run.copy / "films.py").write_text("'weights/small.gguf'")
    for named in ("--config.models.policy=weights/small.gguf", "--config=films.py:quick"):
        fetched, ran = run("experiments.eagle", named)[2]
        assert fetched == f"ran launch/weights.py experiments.eagle {named}"
        assert ran == f"ran -m experiments.eagle {named}"
    code, _, did = run("experiments.eagle", "--config=films.py", MODULE_CODE="3")
    assert (code, len(did)) == (2, 1)


@pytest.mark.parametrize("changed", ["setup.cfg", "launch/constraints.txt"])
def test_a_changed_requirement_is_installed(run, changed):
    run("experiments.eagle")
    with open(run.copy / changed, "a") as file:
        file.write("# changed\n")
    assert run("experiments.eagle")[2] == ["pip .", "ran -m experiments.eagle"]
    assert run("experiments.eagle")[2] == ["ran -m experiments.eagle"]


def test_a_failed_installation_runs_nothing_and_is_begun_anew(run):
    code, stderr, did = run("experiments.eagle", PIP_CODE="1")
    assert (code, did) == (2, ["venv", "pip ."])
    assert "the installation failed" in stderr
    assert run("experiments.eagle")[2] == ["venv", "pip .", "ran -m experiments.eagle"]


def test_a_failed_update_is_begun_anew(run):
    run("experiments.eagle")
    assert run("pytest", PIP_CODE="1")[2] == ["pip .[test]"]
    assert run("experiments.eagle")[2] == ["venv", "pip .", "ran -m experiments.eagle"]


def test_an_environment_that_has_the_package_is_used(run):
    assert run("pytest", PACKAGE_CODE="0")[2] == ["ran -m pytest"]
    assert not (run.copy / ".venv").exists()


def test_what_was_installed_is_compiled_once_whatever_the_machine_says_of_that(run):
    keep_nothing = {"PYTHONDONTWRITEBYTECODE": "1"}
    assert run("experiments.eagle", **keep_nothing)[2][-1] == "ran -m experiments.eagle"
    # An environment of somebody else's is as they want it.
    assert run("pytest", PACKAGE_CODE="0", **keep_nothing)[2] == ["ran -m pytest, keeps nothing"]


def test_further_extras_are_installed_once(run):
    assert run("experiments.eagle", EAGLE_EXTRAS="tpu")[2][1] == "pip .[tpu]"
    assert run("experiments.eagle", EAGLE_EXTRAS="tpu")[2] == ["ran -m experiments.eagle"]
    assert run("experiments.eagle", EAGLE_EXTRAS="tpu,remote")[2][0] == "pip .[tpu,remote]"


def test_no_fitting_python_is_said(run):
    code, stderr, did = run("experiments.eagle", RANGE_CODE="1")
    assert (code, did) == (2, [])
    assert "needs Python 3.11, 3.12 or 3.13" in stderr and "Python 3.11.7" in stderr
    assert not (run.copy / ".venv").exists()


def test_the_exit_code_of_what_ran_is_passed_on(run):
    assert run("experiments.eagle", MODULE_CODE="130")[0] == 130


def test_without_an_argument_it_says_what_to_give(run):
    code, stderr, did = run()
    assert (code, did) == (2, [])
    assert "say what to run" in stderr
