"""Scalars as TensorBoard events."""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class ScalarEvents:
    """A file of events in `folder`, which is there; not tensorboardX' SummaryWriter: its thread dies of a full disk,
    and the run waits."""

    def __init__(self, folder: Path):
        self._file = _tensorboardx().EventsWriter(str(folder / "events"))

    def write(self, name: str, value: float, step: int) -> None:
        made = _tensorboardx()
        self._file.write_event(made.Event(summary=made.scalar(name, value), step=step, wall_time=time.time()))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


@functools.cache
def _tensorboardx() -> Any:
    """What is used of tensorboardX. It imports PyTorch where that is installed, for tensors that it is never given
    here: seconds of every start (2.6.5, writer.py). So it is not to be found meanwhile."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # whoever imports it gets an ImportError
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar
    finally:
        if hidden:
            del sys.modules["torch"]
    return SimpleNamespace(EventsWriter=EventsWriter, Event=Event, scalar=scalar)
