"""One of two processes: `python -m tests.learning.preempted_program <folder> train|chunks`.

It trains, or goes through the parts of a stage, until SIGTERM, which comes to the second process in
step 3, has made both stop, and prints its last step.
"""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from eagle_jax.base.checkpointing import Checkpoints
from eagle_jax.base.processes import join_others
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.learning.loop import Records, train

EVER = 10**9


def take(step: int) -> int:
    if step == 3 and jax.process_index() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    multihost_utils.sync_global_devices(f"step {step}")  # as gradients do
    return step


def train_on(folder: Path) -> None:
    mesh = jax.make_mesh((jax.device_count(),), ("all",), (AxisType.Auto,))
    start = jax.make_array_from_callback((), NamedSharding(mesh, PartitionSpec()), lambda _: np.int32(0))
    steps = []

    def iterate(step, state):
        steps.append(take(step))
        return state + 1, {}

    records = Records(Checkpoints(folder / "checkpoints", digest="d", max_to_keep=1), folder / "metrics", "toy")
    try:
        train(start, iterate, [], records, num_steps=EVER, log_every=EVER, checkpoint_every=EVER, unit="step")
    finally:
        print(steps[-1])


def go_through_parts(folder: Path) -> None:
    stage = StageFolder(folder / "stage", {})
    steps = [1]
    try:
        while True:
            steps.append(stage.chunk(steps[-1], lambda: take(steps[-1])) + 1)
    finally:
        print(steps[-1])


if __name__ == "__main__":
    join_others()
    {"train": train_on, "chunks": go_through_parts}[sys.argv[2]](Path(sys.argv[1]))
