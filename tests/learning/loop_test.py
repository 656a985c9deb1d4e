"""The loop of every training under SIGTERM: the step that runs is saved, the next run goes on."""

import os
import signal
import subprocess
import sys
import threading

import jax.numpy as jnp
import pytest

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.metrics import NonFiniteError
from eagle_jax.learning.loop import Hook, Records, sigterm_heard, train
from tests.base.processes_test import start_two

NUM_STEPS = 7


def run(folder, terminated_at=None, in_hook=False, loss=None):
    """Steps 1 to 7, each the state times 3 plus its number; SIGTERM in step `terminated_at`."""

    def terminate(step):
        if step == terminated_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def iterate(step, state):
        if not in_hook:
            terminate(step)
        value = state["value"] * 3 + step
        return {"value": value}, {"loss": jnp.float32(step) if loss is None else loss}

    def hook(step, state):
        if in_hook:
            terminate(step)
        return {"seen": float(state["value"])}

    records = Records(Checkpoints(folder / "checkpoints", digest="abc", max_to_keep=1), folder, "toy")
    state = train(
        {"value": jnp.int32(1)},
        iterate,
        [Hook(2, hook, at_start=True)],
        records,
        num_steps=NUM_STEPS,
        log_every=3,
        checkpoint_every=5,
        unit="step",
    )
    rows = [{k: v for k, v in row.items() if k != "time"} for row in records.history()]
    return int(state["value"]), rows


def names(folder):
    return [path.name for path in (folder / "checkpoints").iterdir()]


@pytest.mark.parametrize(
    ("at", "in_hook", "saved"),
    [
        (1, False, 1),
        (3, False, 3),
        (4, False, 4),
        (5, False, 5),  # saved once, not twice
        (7, False, 7),
        (2, True, 3),  # the hook comes after the step is over: the next one is saved
        (6, True, 7),
    ],
)
def test_sigterm_saves_the_step_that_runs_and_the_same_command_goes_on(tmp_path, capsys, at, in_hook, saved):
    whole = run(tmp_path / "whole")
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "run", at, in_hook)
    assert caught.value.code == 143
    told = f"toy: terminated; step {saved} is saved, and the same command resumes\n"
    assert told in capsys.readouterr().err
    assert names(tmp_path / "run") == [f"step_{saved:08d}"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert run(tmp_path / "run") == whole


def test_nothing_that_came_of_a_nan_is_saved_for_sigterm(tmp_path):
    with pytest.raises(NonFiniteError):
        run(tmp_path, 3, loss=jnp.float32(jnp.nan))
    assert not (tmp_path / "checkpoints").exists()


LATE = """
import os, signal
from eagle_jax.learning.loop import sigterm_heard

with sigterm_heard() as is_ending:
    assert not is_ending()
    os.kill(os.getpid(), signal.SIGTERM)
    assert is_ending()
print("not reached")
"""


def test_sigterm_after_the_last_step_ends_the_program_as_ever():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, ""), done.stderr


def test_sigterm_to_one_of_two_processes_stops_both_after_the_same_step(tmp_path):
    ended = start_two("tests.learning.preempted_program", tmp_path, "train")
    assert [code for code, _, _ in ended] == [143, 143], ended
    last, other = (int(stdout.splitlines()[-1]) for _, stdout, _ in ended)  # behind what Gloo says
    assert last == other >= 3
    for _, _, stderr in ended:
        assert f"toy: terminated; step {last} is saved, and the same command resumes" in stderr
    assert names(tmp_path) == [f"step_{last:08d}"]


def test_sigterm_to_one_of_two_processes_stops_both_between_the_same_parts_of_a_stage(tmp_path):
    ended = start_two("tests.learning.preempted_program", tmp_path, "chunks")
    assert [code for code, _, _ in ended] == [143, 143], ended
    last, other = (int(stdout.splitlines()[-1]) for _, stdout, _ in ended)
    assert last == other >= 3
    for _, _, stderr in ended:
        assert "terminated; " in stderr and "done, and the same command resumes" in stderr
    kept = sorted(int(path.stem) for path in (tmp_path / "stage" / "parts").iterdir())
    assert kept in ([*range(1, last)], [*range(1, last + 1)])


def test_a_handler_of_somebody_else_is_left_alone():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with sigterm_heard() as is_ending:
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == [1] and not is_ending()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_only_the_main_thread_hears_signals():
    said = []

    def other():
        with sigterm_heard() as is_ending:
            said.append(is_ending())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert said == [False]
