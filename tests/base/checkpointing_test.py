"""Checkpoints: bit-equal, refused when damaged or foreign, and a kill costs one save at most."""

import signal
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eagle_jax.base import checkpointing
from eagle_jax.base.atomic_files import checksums
from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.errors import CorruptArtifactError, StaleArtifactError, UnwritableError, UserError


class TrainState(NamedTuple):
    params: Any
    optimizer_state: Any
    step: jax.Array
    key: jax.Array


def make_state(seed, width=5):
    key = jax.random.key(seed)
    weights_key, bias_key, state_key = jax.random.split(key, 3)
    params = {
        "w": jax.random.normal(weights_key, (3, width)),
        "b": [jax.random.normal(bias_key, (width,), jnp.bfloat16), jnp.float32(jnp.nan)],
    }
    return TrainState(params, optax.adamw(1e-3).init(params), jnp.int32(seed), state_key)


def bits(state):
    """Every leaf as bytes: NaN equals NaN, -0 differs from 0."""
    plain = [
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in jax.tree.leaves(state)
    ]
    return [(leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()) for leaf in plain]


def make(folder, digest="abc", max_to_keep=2):
    return Checkpoints(folder / "checkpoints", digest=digest, max_to_keep=max_to_keep)


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_latest_comes_back_bit_equal_with_types_and_key(tmp_path):
    for step in (1, 2, 3):
        make(tmp_path).save(step, make_state(step))
    step, restored = make(tmp_path).restore_latest(make_state(0))
    assert step == 3
    assert bits(restored) == bits(make_state(3))
    assert jax.tree.structure(restored) == jax.tree.structure(make_state(3))
    assert jax.random.key_impl(restored.key) == jax.random.key_impl(make_state(3).key)
    assert names(tmp_path) == ["step_00000002", "step_00000003"]


def test_nothing_saved_is_none(tmp_path):
    assert make(tmp_path).restore_latest(make_state(0)) is None
    assert make(tmp_path).restore_best(make_state(0)) is None
    assert not (tmp_path / "checkpoints").exists()


def test_the_best_is_kept_apart_from_the_latest(tmp_path):
    checkpoints = make(tmp_path, max_to_keep=1)
    saved = []
    for step, value in enumerate([0.1, 0.5, 0.5, 0.3], start=1):
        saved.append(checkpoints.save_best(step, make_state(step), value))
        checkpoints.save(step, make_state(step))
    assert saved == [True, True, False, False]
    step, restored = make(tmp_path).restore_best(make_state(0))
    assert (step, bits(restored)) == (2, bits(make_state(2)))
    assert names(tmp_path) == ["best_00000002", "step_00000004"]
    # A resumed run that comes by step 2 again neither fails nor writes.
    assert not make(tmp_path).save_best(2, make_state(2), 0.5)


@pytest.mark.parametrize(
    ("values", "best"), [([np.nan, 0.1, 0.0], 2), ([0.1, np.nan, 0.0], 1), ([0.1, 0.2, np.nan], 2), ([np.nan], None)]
)
def test_nan_is_never_the_best(tmp_path, values, best):
    for step, value in enumerate(values, start=1):
        saved = make(tmp_path).save_best(step, make_state(step), value)
        assert saved == (step == best or (step, value) == (1, 0.1))
    restored = make(tmp_path).restore_best(make_state(0))
    assert restored is None if best is None else restored[0] == best


def test_a_nan_that_was_saved_as_the_best_gives_way(tmp_path):
    make(tmp_path)._write("best", 1, make_state(1), np.nan)
    make(tmp_path)._write("best", 2, make_state(2), 0.1)  # killed before the other was removed
    assert make(tmp_path).restore_best(make_state(0))[0] == 2
    assert make(tmp_path).save_best(3, make_state(3), 0.2)
    assert names(tmp_path) == ["best_00000003"]


def test_another_digest_or_another_shape_is_refused(tmp_path):
    make(tmp_path).save(1, make_state(1))
    make(tmp_path).save_best(1, make_state(1), 0.0)
    before = checksums(tmp_path)
    other = make(tmp_path, digest="xyz")
    for use in (
        lambda: other.restore_latest(make_state(0)),
        lambda: other.restore_best(make_state(0)),
        lambda: other.save_best(2, make_state(2), 1.0),
    ):
        with pytest.raises(StaleArtifactError, match="made with other settings"):
            use()
    with pytest.raises(StaleArtifactError, match=r"has bfloat16\[5\] at .*'b'.*expects bfloat16\[6\]; remove "):
        make(tmp_path).restore_latest(make_state(0, width=6))
    assert checksums(tmp_path) == before


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damage_to_any_file_is_refused(tmp_path, damage):
    make(tmp_path).save(1, make_state(1))
    folder = tmp_path / "checkpoints" / "step_00000001"
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 3
    for path in files:
        data = path.read_bytes()
        if damage == "remove":
            path.unlink()
        else:
            path.write_bytes(data[:-1] if damage == "truncate" else b"~" + data[1:])
        with pytest.raises(CorruptArtifactError, match="step_00000001"):
            make(tmp_path).restore_latest(make_state(0))
        path.write_bytes(data)
    assert bits(make(tmp_path).restore_latest(make_state(0))[1]) == bits(make_state(1))


def test_saving_a_step_twice_is_an_error(tmp_path):
    make(tmp_path).save(1, make_state(1))
    with pytest.raises(ValueError, match="saved already"):
        make(tmp_path).save(1, make_state(2))


def test_arrays_return_to_the_devices_of_the_template(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    rows = jax.device_put(jnp.arange(16.0).reshape(8, 2), sharding)
    make(tmp_path).save(1, {"rows": rows})
    _, restored = make(tmp_path).restore_latest({"rows": jnp.zeros_like(rows, device=sharding)})
    assert restored["rows"].sharding.is_equivalent_to(sharding, 2)
    np.testing.assert_array_equal(restored["rows"], rows)


# Saves step after step and is killed in the middle of the rename or the removal it is told.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
import jax.numpy as jnp
from eagle_jax.base import checkpointing

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

checkpoints = checkpointing.Checkpoints(Path(sys.argv[1]), digest="abc", max_to_keep=1)
for step in range(1, 4):
    if step == 3:
        setattr(checkpointing, sys.argv[2], kill)
    checkpoints.save_best(step, {"w": jnp.full((4,), step)}, float(step))
    checkpoints.save(step, {"w": jnp.full((4,), step)})
"""


@pytest.mark.parametrize(
    ("killed_in", "latest", "best"),
    [("_save_state", 2, 2), ("checksums", 2, 2), ("sync_folder", 2, 3), ("_remove", 2, 3)],
)
def test_a_kill_during_a_save_leaves_a_usable_checkpoint(tmp_path, killed_in, latest, best):
    run = [sys.executable, "-c", KILLED, str(tmp_path / "checkpoints"), killed_in]
    assert subprocess.run(run).returncode == -signal.SIGKILL
    template = {"w": jnp.zeros((4,), jnp.int32)}
    step, state = make(tmp_path).restore_latest(template)
    assert step == latest and (state["w"] == latest).all()
    step, state = make(tmp_path).restore_best(template)
    assert step == best and (state["w"] == best).all()
    make(tmp_path, max_to_keep=1).save(latest + 1, {"w": jnp.full((4,), 9)})
    make(tmp_path).save_best(4, {"w": jnp.full((4,), 9)}, 9.0)
    assert names(tmp_path) == ["best_00000004", f"step_{latest + 1:08d}"]


def test_what_the_file_system_refuses_is_told_and_an_address_is_no_folder(tmp_path, monkeypatch):
    def refuse(path, state):
        raise ValueError(f"Error writing {path}: Read-only file system [source locations='kvstore.cc:1']")

    monkeypatch.setattr(checkpointing.ocp, "save", refuse)
    with pytest.raises(UnwritableError, match="step_00000001: cannot be written: Read-only file system; make it w"):
        make(tmp_path).save(1, make_state(1))
    assert names(tmp_path) == []
    with pytest.raises(UserError, match="checkpoints: gs://bucket/run is an address"):
        Checkpoints("gs://bucket/run", digest="abc", max_to_keep=1)


FULL = """
import resource, sys
from pathlib import Path
import jax, jax.numpy as jnp
from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.errors import DiskFullError

checkpoints = Checkpoints(Path(sys.argv[1]), digest="abc", max_to_keep=1)
checkpoints.save(1, {"w": jnp.ones((4,), jnp.int32)})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoints.save(2, {"w": jax.random.bits(jax.random.key(0), (10_000,))})
except DiskFullError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_the_checkpoint_before_is_intact(tmp_path):
    run = [sys.executable, "-c", FULL, str(tmp_path / "checkpoints")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert "step_00000002: cannot be written: File too large; free some space" in done.stdout
    assert names(tmp_path) == ["step_00000001"]
    step, state = make(tmp_path).restore_latest({"w": jnp.zeros((4,), jnp.int32)})
    assert step == 1 and (state["w"] == 1).all()
