"""Metrics: the file of a resumed run, TensorBoard's events, the NaN guard and plain progress."""

import os
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from eagle_jax.base import metrics
from eagle_jax.base.errors import CorruptArtifactError, UnwritableError
from eagle_jax.base.metrics import MetricsWriter, NonFiniteError, check_finite, duration, progress, read_metrics
from tests.programs import ROOT, environment_of


def write_steps(folder, steps, resume_step=None):
    with MetricsWriter(folder, resume_step=resume_step) as writer:
        for step in steps:
            writer.write(step, {"loss": jnp.float32(1 / (step + 1)), "reward/mean": step / 3})


def read_events(folder):
    """(name, step, value) of every scalar: records of length, crc, data, crc (TensorBoard)."""
    (path,) = (folder / "tensorboard").iterdir()
    data, found = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
        data = data[16 + length :]
    return found


def test_rows_and_events_hold_the_same_numbers(tmp_path):
    write_steps(tmp_path, [0, 1])
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 0, "loss": 1.0, "reward/mean": 0.0},
        {"step": 1, "loss": 0.5, "reward/mean": 1 / 3},
    ]
    assert read_events(tmp_path) == [
        ("loss", 0, 1.0),
        ("reward/mean", 0, 0.0),
        ("loss", 1, 0.5),
        ("reward/mean", 1, np.float32(1 / 3)),
    ]


def test_a_resumed_run_leaves_the_files_of_an_uninterrupted_one(tmp_path):
    write_steps(tmp_path / "whole", range(10))
    write_steps(tmp_path / "resumed", range(7))
    with open(tmp_path / "resumed" / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "los')  # killed in the middle of a line
    write_steps(tmp_path / "resumed", range(5, 10), resume_step=4)
    whole, resumed = (tmp_path / name / "metrics.jsonl" for name in ("whole", "resumed"))
    assert resumed.read_bytes() == whole.read_bytes()
    assert read_events(tmp_path / "resumed") == read_events(tmp_path / "whole")


def test_without_resume_step_the_file_begins_anew(tmp_path):
    write_steps(tmp_path, range(3))
    write_steps(tmp_path, [5])
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [5]


def test_a_damaged_row_is_refused_by_its_line(tmp_path):
    write_steps(tmp_path, range(3))
    path = tmp_path / "metrics.jsonl"
    damaged = path.read_text().replace('"step": 1', '"step" 1')
    path.write_text(damaged)
    with pytest.raises(CorruptArtifactError, match="metrics.jsonl, line 2"):
        MetricsWriter(tmp_path, resume_step=2)
    assert path.read_text() == damaged


@pytest.mark.parametrize("value", [float("nan"), float("inf"), jnp.float32(-jnp.inf)])
def test_a_number_that_is_not_finite_stops_the_run_by_step_and_name(value):
    check_finite(16, {"loss": 0.0, "kl": jnp.float32(3e38)})
    with pytest.raises(NonFiniteError, match="step 17: kl is (nan|inf|-inf)"):
        check_finite(17, {"loss": 0.0, "kl": value})


def test_progress_passes_everything_on_and_prints_plain_lines(capsys):
    assert list(progress(range(3, 6), 6, "design", "anchors", initial=3)) == [3, 4, 5]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("design: 6/6 anchors, 00:00 so far, 00:00 left")


def test_progress_tells_the_time_left_from_what_this_run_did():
    # 10 of 40 were there; 10 more took 20 s, so the last 20 take 40 s at 0.5 per second.
    line = metrics._plain_line(20, 40, 20.0, 10, "reinforce", "iterations")
    assert line == "reinforce: 20/40 iterations, 00:20 so far, 00:40 left,  2.00s/ iterations"


def test_rows_that_nobody_would_find_are_refused(tmp_path):
    with MetricsWriter(tmp_path / "metrics") as writer:
        writer.write(1, {"loss": 0.5})
        shutil.rmtree(tmp_path / "metrics")
        with pytest.raises(UnwritableError, match="metrics.jsonl: cannot be written: No such file .*; something else"):
            writer.write(2, {"loss": 0.5})


FULL = """
import resource, sys
from pathlib import Path
from eagle_jax.base.errors import DiskFullError
from eagle_jax.base.metrics import MetricsWriter

writer = MetricsWriter(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
try:
    for step in range(100_000):
        writer.write(step, {"loss": 0.5})
except DiskFullError as error:
    print(step, error)
"""


def test_a_full_disk_is_told_and_the_rows_before_are_readable(tmp_path):
    run = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    step, message = done.stdout.split(" ", 1)
    assert "metrics.jsonl: cannot be written" in message
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(len(rows)))
    # The row of the step that failed may be there: its events were written after it.
    assert len(rows) - int(step) in (0, 1)


def test_writing_events_does_not_import_torch_and_leaves_it_to_whoever_does(tmp_path):
    (tmp_path / "torch.py").write_text("import sys; print('imported', file=sys.stderr)")
    program = (
        "import pathlib; from eagle_jax.base.metrics import MetricsWriter;"
        f"MetricsWriter(pathlib.Path({str(tmp_path / 'run')!r})).write(0, {{'loss': 1.0}}); print('written');"
        "import torch"
    )
    environment = environment_of()
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "written\n" and done.stderr == "imported\n"  # once, by the program itself
    assert len(read_events(tmp_path / "run")) == 1


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (507, "8 min 27 s"), (7530, "2 h 5 min")]
)
def test_durations_are_told_as_people_say_them(seconds, told):
    assert duration(seconds) == told
