"""Two processes: one decides and writes, both go on with the same; shards move between meshes."""

import json
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.errors import UserError
from eagle_jax.base.processes import from_primary, is_primary, join_others
from eagle_jax.base.work_directory import StageFolder
from tests.base.process_program import make_state, template_on
from tests.programs import ROOT, environment_of


def start_two(module, *arguments):
    """Exit code, stdout and stderr of both processes of a module of the tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = environment_of(num_devices=4) | {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            env={**environment, "JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    told = [process.communicate() for process in processes]
    return [(p.returncode, *streams) for p, streams in zip(processes, told, strict=True)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What both processes saw, and the folder they shared."""
    folder = tmp_path_factory.mktemp("two")
    checkpoints = Checkpoints(folder / "from_one", digest="abc", max_to_keep=1)
    checkpoints.save(5, make_state((8, 1), 2.0))
    ended = start_two("tests.base.process_program", folder)
    for code, _, stderr in ended:
        assert code == 0, stderr
    return [json.loads(stdout.splitlines()[-1]) for _, stdout, _ in ended], folder


def test_both_see_all_devices_and_one_is_primary(seen):
    (first, second), _ = seen
    assert [first["process"], second["process"]] == [0, 1]
    assert first["devices"] == second["devices"] == 8
    assert (first["is_primary"], second["is_primary"]) == (True, False)


def test_the_primary_acts_and_all_hear_what_came_of_it(seen):
    (first, second), _ = seen
    assert (first["nested"], second["nested"]) == (7, 7)
    assert (first["calls"], second["calls"]) == (1, 0)
    assert first["failed"] == ["UserError", "only process 0 knows why"]
    assert second["failed"] == ["OtherProcessError", "process 0, fail: only process 0 knows why"]
    assert first["long"] == second["long"] == 5000


def test_a_stage_is_that_of_the_primary(seen):
    (first, second), folder = seen
    for process in (first, second):
        assert process["holder"]  # the lock of the work directory is the first one's alone
        assert (process["complete_before"], process["complete_after"]) == (False, True)
        assert process["arrays"] == [0, 1, 2]
        assert [row["loss"] for row in process["metrics"]] == [0.0, 0.5]
    # What the second process computed itself was [0, []] and [1, []].
    assert first["chunks"] == second["chunks"] == [[0, [1]], [1, [1]]]
    stage = StageFolder(folder / "run" / "first", {"size": 3})
    assert stage.is_complete()
    assert stage.chunk(1, lambda: pytest.fail("kept")) == [1, [1]]
    assert first["stale"][0] == "StaleArtifactError" and "size: 3 there, 4 now" in first["stale"][1]
    assert second["stale"][0] == "OtherProcessError" and first["stale"][1] in second["stale"][1]


def test_a_checkpoint_of_one_process_is_restored_by_two_on_another_mesh(seen):
    for process in seen[0]:
        assert process["restored"] == [5, 2.0 * 48 * 47 / 2, 2]
        assert process["shard"] == [2, 3]
        assert process["key"] == jax.random.key_data(jax.random.key(3)).tolist()
        assert process["refused"][0] in ("StaleArtifactError", "OtherProcessError")


def test_a_checkpoint_of_two_processes_is_restored_by_one_on_another_mesh(seen):
    (first, second), folder = seen
    names = sorted(path.name for path in (folder / "from_two").iterdir())
    assert names == ["best_00000001", "step_00000002"]
    assert first["best"] is second["best"] is False
    checkpoints = Checkpoints(folder / "from_two", digest="abc", max_to_keep=1)
    for restore, step in ((checkpoints.restore_latest, 2), (checkpoints.restore_best, 1)):
        found, state = restore(template_on((1, 2)))
        assert found == step and int(state["step"]) == step
        assert state["rows"].addressable_shards[0].data.shape == (8, 3)
        np.testing.assert_array_equal(state["rows"], make_state((1, 1), float(step))["rows"])


def test_a_single_process_just_acts():
    assert is_primary()
    value = object()
    assert from_primary("anything", lambda: value) is value


def test_without_others_it_is_said_at_once(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="--distributed: .*JAX_COORDINATOR_ADDRESS"):
        join_others()
    monkeypatch.setenv("JAX_PROCESS_ID", "first")
    with pytest.raises(UserError, match="'first'"):
        join_others()
