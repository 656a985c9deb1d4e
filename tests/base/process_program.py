"""One of two processes with four devices each: `python -m tests.base.process_program <folder>`.

Which one it is and where the other is found stands in the environment. It prints what it saw as
JSON in its last line.
"""

import json
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import MetricsWriter, read_metrics
from eagle_jax.base.processes import from_primary, is_primary, join_others
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.stages.run_lock import hold


def rows_on(shape: tuple[int, int]) -> NamedSharding:
    """[8, 6] over a mesh of all devices, both dimensions split."""
    mesh = jax.make_mesh(shape, ("a", "b"), (AxisType.Auto,) * 2)
    return NamedSharding(mesh, PartitionSpec("a", "b"))


def make_state(shape: tuple[int, int], factor: float) -> dict:
    rows = np.arange(48, dtype=np.float32).reshape(8, 6) * factor
    with jax.set_mesh(rows_on(shape).mesh):
        return {
            "rows": jax.make_array_from_callback(rows.shape, rows_on(shape), rows.__getitem__),
            "step": jnp.int32(factor),
            "key": jax.random.key(3),
        }


def template_on(shape: tuple[int, int]) -> dict:
    """Shapes and shardings only."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), make_state(shape, 0.0)
    )


def told_by(action) -> list[str]:
    try:
        return ["value", action()]
    except UserError as error:
        return [type(error).__name__, str(error)]


def main(folder: Path) -> None:
    join_others()
    seen = {"process": jax.process_index(), "devices": jax.device_count()}

    def fail():
        raise UserError("only process 0 knows why")

    calls = []
    seen["nested"] = from_primary("one", lambda: from_primary("two", lambda: calls.append(1) or 7))
    seen["calls"] = len(calls)
    seen["failed"] = told_by(lambda: from_primary("fail", fail))
    seen["long"] = len(from_primary("long", lambda: "x" * 5000))

    release, lock = hold(folder / "run"), folder / "run" / "run.lock"
    seen["holder"] = from_primary("who", lambda: json.loads(lock.read_text())["pid"] == os.getpid())
    from_primary("go", release)
    stage = StageFolder(folder / "run" / "first", {"size": 3})
    seen["complete_before"] = stage.is_complete()
    seen["chunks"] = [stage.chunk(index, lambda index=index: [index, calls]) for index in range(2)]
    stage.write_arrays("arrays.npz", {"rows": np.arange(3)})
    with MetricsWriter(stage.path / "metrics") as metrics:
        for step in range(2):
            metrics.write(step, {"loss": step / 2})
    seen["metrics"] = read_metrics(stage.path / "metrics" / "metrics.jsonl")
    stage.finish()
    seen["complete_after"] = stage.is_complete()
    seen["arrays"] = stage.read_arrays("arrays.npz")["rows"].tolist()
    other = StageFolder(folder / "run" / "first", {"size": 4})
    seen["stale"] = told_by(other.is_complete)

    checkpoints = Checkpoints(folder / "from_one", digest="abc", max_to_keep=1)
    step, state = checkpoints.restore_latest(template_on((4, 2)))
    seen["restored"] = [step, float(state["rows"].sum()), int(state["step"])]
    seen["shard"] = list(state["rows"].addressable_shards[0].data.shape)
    seen["key"] = jax.random.key_data(state["key"]).tolist()
    checkpoints = Checkpoints(folder / "from_two", digest="abc", max_to_keep=1)
    for step in (1, 2):
        checkpoints.save(step, make_state((4, 2), float(step)))
        seen["best"] = checkpoints.save_best(step, make_state((8, 1), float(step)), -step)
    seen["refused"] = told_by(lambda: checkpoints.restore_latest({"rows": make_state((4, 2), 1.0)}))
    seen["is_primary"] = is_primary()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
