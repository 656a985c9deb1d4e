"""One of two processes of a training: `python -m tests.learning.preempted_program <folder>`.

It goes on until SIGTERM, which comes to the second process in step 3, has made both stop, and
prints its last step.
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
from eagle_jax.learning.loop import Records, train


def main(folder: Path) -> None:
    join_others()
    mesh = jax.make_mesh((jax.device_count(),), ("all",), (AxisType.Auto,))
    whole = NamedSharding(mesh, PartitionSpec())
    start = jax.make_array_from_callback((), whole, lambda _: np.int32(0))
    steps = []

    def iterate(step, state):
        steps.append(step)
        if step == 3 and jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        multihost_utils.sync_global_devices(f"step {step}")  # as gradients do
        return state + 1, {}

    records = Records(Checkpoints(folder / "checkpoints", digest="d", max_to_keep=1), folder / "metrics", "toy")
    every = 10**9
    try:
        train(start, iterate, [], records, num_steps=every, log_every=every, checkpoint_every=every, unit="step")
    finally:
        print(steps[-1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
