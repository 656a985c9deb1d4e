"""A run that is killed in every stage ends with the bytes of one that nothing interrupted."""

import itertools
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

STAGES = (
    "catalogue",
    "encoders",
    "profiles",
    "candidates",
    "design",
    "reference_g_optimal",
    "agent_g_optimal_0",
    "evaluation",
    "report",
)
# Of the stages that last: the pieces between which a run may stop.
PIECES = {
    "candidates": "/parts/",
    "reference_g_optimal": "/checkpoints/step_",
    "agent_g_optimal_0": "/checkpoints/",
    "evaluation": "/parts/",
}


def stage_of(target: str) -> str:
    return target.split("/")[0] if "/" in target else "report"


def kill_points(renames: Sequence[str], seed: int) -> list[tuple[str, str]]:
    """One ("before" or "after", target of a rename) for each stage, in the order of the run.

    Where a stage has pieces it is between them. A target of several renames (the table of times)
    and the note whose the work directory is say nothing about where the run is, and are not drawn.
    """
    rng = random.Random(seed)
    counts = Counter(renames)
    once = [target for target in renames if counts[target] == 1 and target != "experiment.json"]
    points = []
    for stage, targets in itertools.groupby(once, stage_of):
        pieces = [target for target in targets if PIECES.get(stage, "") in target]
        assert pieces, stage
        points.append((rng.choice(("before", "after")), rng.choice(pieces)))
    assert tuple(stage_of(target) for _, target in points) == STAGES
    return points


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Returns when `path` is there; fails when the process ends first or minutes go by."""
    deadline = time.monotonic() + 900
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {path}"
        try:
            process.wait(timeout=0.01)
        except subprocess.TimeoutExpired:
            continue


def test_what_is_compared_is_there(finished):
    found = finished.results()
    assert {
        "catalogue/wals.npz",
        "encoders/train.npz",
        "profiles/profiles.jsonl",
        "candidates/candidates.jsonl",
        "design/chosen.json",
        "reference_g_optimal/model/model.safetensors",
        "agent_g_optimal_0/model/model.safetensors",
        "agent_g_optimal_0/last/model.safetensors",
        "agent_g_optimal_0/metrics/metrics.jsonl",
        "evaluation/records.jsonl",
        "evaluation/table.json",
        "evaluation/comparisons.json",
    } <= set(found)
    assert [row["step"] for row in found["agent_g_optimal_0/metrics/metrics.jsonl"]] == [0, 1, 2, 3]


def test_a_run_killed_in_every_stage_ends_with_the_same_results(eagle, finished, tmp_path):
    workdir = tmp_path / "run"
    for moment, target in kill_points(finished.renames, seed=0):
        code, _, stderr = eagle.run(workdir, watch=[moment, target])
        assert code == -signal.SIGKILL, f"{moment} {target}: {stderr}"
        assert (workdir / target).exists() == (moment == "after")
    code, _, stderr = eagle.run(workdir)
    assert code == 0, stderr
    finished.assert_same_results(workdir)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_signal_out_of_the_blue_leaves_a_run_that_resumes(eagle, finished, tmp_path, number, code):
    workdir = finished.copy(tmp_path / "run", without=("agent_g_optimal_0", "evaluation"))
    process = eagle.start(workdir)
    wait_for(workdir / "agent_g_optimal_0" / "checkpoints" / "step_00000001", process)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == code, stderr
    if number == signal.SIGINT:  # a slow machine tells its progress before
        assert stderr.endswith("eagle.py: interrupted; the same command resumes\n")
        assert "Traceback" not in stderr
    assert not (workdir / "agent_g_optimal_0" / "MANIFEST.json").exists()

    code, _, stderr = eagle.run(workdir)
    assert code == 0, stderr
    finished.assert_same_results(workdir)
