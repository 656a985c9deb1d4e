"""What cannot go on ends in exit code 2 and one line, and leaves what was there as it was."""

import re
from pathlib import Path

import pytest

AGENT = "agent_g_optimal_0"
REFERENCE = "reference_g_optimal"


def snapshot(workdir: Path) -> dict[Path, tuple[int, bytes]]:
    """When each file was written, and its content."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in workdir.rglob("*") if path.is_file()}


def unfinish(stage: Path) -> None:
    """As if the run had ended before the last files of the stage."""
    for name in ("MANIFEST.json", "facts.json", "records.jsonl", "table.json"):
        (stage / name).unlink(missing_ok=True)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("encoders/train.npz", truncate, r"has \d+ bytes where \d+ were written"),
        (f"{AGENT}/model/model.safetensors", flip_one_bit, "its content is not what was written"),
    ],
)
def test_a_damaged_artifact_is_named_and_left_alone(eagle, finished, tmp_path, file, damage, said):
    workdir = finished.copy(tmp_path / "run")
    damage(workdir / file)
    assert_refused(eagle, workdir, (), rf"{re.escape(str(workdir / file))}: {said}; remove ")


def test_a_damaged_piece_of_an_unfinished_stage_is_named(eagle, finished, tmp_path):
    workdir = finished.copy(tmp_path / "run")
    unfinish(workdir / "evaluation")
    part = workdir / "evaluation" / "parts" / "00001.json"
    truncate(part)
    assert_refused(eagle, workdir, (), rf"{re.escape(str(part))}: cannot be used: .*; remove ")


@pytest.mark.parametrize(
    ("override", "unfinished", "said"),
    [
        ("design.num_kept=3", None, r"design was .*: design\.num_kept: 4 there, 3 now"),
        (
            "agent.training.policy_learning_rate=0.1",
            AGENT,  # its checkpoints are not gone on from
            rf"{AGENT} was .*: training\.policy_learning_rate: 0\.0005 there, 0\.1 now",
        ),
    ],
)
def test_another_config_is_refused_with_the_key_that_differs(eagle, finished, tmp_path, override, unfinished, said):
    workdir = finished.copy(tmp_path / "run")
    if unfinished:
        unfinish(workdir / unfinished)
    assert_refused(eagle, workdir, [f"--config.{override}"], f"{said}. Remove it ")


def assert_refused(eagle, workdir, overrides, said) -> None:
    before = snapshot(workdir)
    code, stdout, stderr = eagle.run(workdir, overrides)
    assert (code, stdout) == (2, ""), stderr
    (line,) = stderr.splitlines()
    assert line.startswith("eagle.py: ") and re.search(said, line), line
    after = snapshot(workdir)
    after.pop(workdir / "times.json")  # how long it took to find out
    before.pop(workdir / "times.json")
    assert after == before


@pytest.mark.parametrize(
    ("override", "gone", "said"),
    [
        # So large that products of parameters overflow, so small that their squares do not. The
        # reference policy's first step is the warm-up's, of length 0.
        (
            "reference.training.learning_rate=1e15",
            (REFERENCE, AGENT, "evaluation"),
            r"step 3: (loss|gradient_norm) is (nan|inf)",
        ),
        ("agent.training.policy_learning_rate=1e15", (AGENT, "evaluation"), r"step 2: policy/\w+ is nan"),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run_and_tells_the_step(eagle, finished, tmp_path, override, gone, said):
    workdir = finished.copy(tmp_path / "run", without=gone)
    before = snapshot(workdir)
    code, stdout, stderr = eagle.run(workdir, [f"--config.{override}"])
    assert (code, stdout) == (2, ""), stderr
    assert "Traceback" not in stderr
    line = stderr.splitlines()[-1]  # a slow machine tells its progress before
    assert re.match(rf"eagle\.py: {said}; the run stops here", line), stderr
    assert not (workdir / gone[0] / "MANIFEST.json").exists()
    after = snapshot(workdir)
    assert all(after[path] == was for path, was in before.items() if path.name != "times.json")


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_space(eagle, finished, tmp_path):
    workdir = finished.copy(tmp_path / "run")
    unfinish(workdir / "evaluation")
    code, _, stderr = eagle.run(workdir, watch=["full", "evaluation/records.jsonl"])
    assert code == 2
    records = workdir / "evaluation" / "records.jsonl"
    assert f"{records}: cannot be written: No space left on device; free " in stderr
    code, _, stderr = eagle.run(workdir)
    assert code == 0, stderr
    assert records.read_bytes() == (finished.workdir / "evaluation" / "records.jsonl").read_bytes()
