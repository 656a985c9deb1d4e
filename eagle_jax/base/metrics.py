"""Numbers while a run goes on: metrics.jsonl, TensorBoard events, progress, and the NaN guard."""

from __future__ import annotations

import functools
import json
import math
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from tqdm import tqdm

from eagle_jax.base.atomic_files import report_faults, write_atomically
from eagle_jax.base.errors import CorruptArtifactError, UserError
from eagle_jax.base.processes import from_primary, is_primary

T = TypeVar("T")
_SECONDS_BETWEEN_LINES = 30.0


class NonFiniteError(UserError):
    """A number that has to be finite is NaN or infinite; the message names step and metric."""


def check_finite(step: int, values: Mapping[str, Any]) -> None:
    """Raises `NonFiniteError` when one of the values [] at `step` is NaN or infinite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteError(
                f"step {step}: {name} is {float(value)}; the run stops here, what was saved before this step is intact"
            )


class MetricsWriter:
    """Writes `<folder>/metrics.jsonl`, a row per step, and the same as TensorBoard events.

    With `resume_step` the rows up to that step are kept and later ones dropped, so that a resumed
    run leaves the file of an uninterrupted one; without it the file is begun anew. The events are
    always made from the rows. Of several processes the first one writes.
    """

    def __init__(self, folder: Path, resume_step: int | None = None):
        self._path = Path(folder) / "metrics.jsonl"
        from_primary(f"begin {self._path}", lambda: self._begin(resume_step))

    def _begin(self, resume_step: int | None) -> None:
        rows = [] if resume_step is None else read_metrics(self._path)
        kept = [row for row in rows if resume_step is not None and row["step"] <= resume_step]
        with report_faults(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(map(_line, kept))
        write_atomically(self._path, lambda file: file.write(text.encode()))
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 closed by close()
        events = self._path.parent / "tensorboard"
        with report_faults(events):
            shutil.rmtree(events, ignore_errors=True)
            events.mkdir()
            self._events = _ScalarEvents(events)
            for row in kept:
                self._write_events(row)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds the scalars `values` under `step` (an iteration, counted from 0 or 1 throughout)."""
        row = {"step": int(step), **{name: float(value) for name, value in values.items()}}
        from_primary(f"write {self._path}, step {step}", lambda: self._write_row(row))

    def _write_row(self, row: Mapping[str, Any]) -> None:
        with report_faults(self._path):
            self._path.stat()  # the open file would take rows that nobody finds, were it removed
            self._file.write(_line(row))
            self._file.flush()
            self._write_events(row)
            self._events.flush()

    def close(self) -> None:
        """Closes both files; the writer cannot be used any more."""
        if not is_primary():
            return
        with report_faults(self._path):
            self._file.close()
            self._events.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_events(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if name != "step":
                self._events.write(name, value, row["step"])


class _ScalarEvents:
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


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line cut off by a kill is left out.

    Raises `CorruptArtifactError` when any other line cannot be read.
    """
    return from_primary(f"read {path}", lambda: _read_rows(path))


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            row["step"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptArtifactError(f"{path}, line {number}: cannot be read: {error}") from error
        rows.append(row)
    return rows


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"


def progress(iterable: Iterable[T], total: int, description: str, unit: str, initial: int = 0) -> Iterator[T]:
    """Passes the items on and shows how far it is, the rate and the time left, on stderr.

    A bar on a terminal; elsewhere a plain line every half minute and one at the end; of several
    processes the first one shows it. `initial` items were done by an earlier run.
    """
    if not is_primary():
        yield from iterable
        return
    if sys.stderr.isatty():
        yield from tqdm(iterable, desc=description, total=total, unit=f" {unit}", initial=initial)
        return
    started = last_line = time.monotonic()
    done = initial
    for item in iterable:
        yield item
        done += 1
        now = time.monotonic()
        if done == total or now - last_line >= _SECONDS_BETWEEN_LINES:
            line = _plain_line(done, total, now - started, initial, description, unit)
            say(line)
            last_line = now


def say(line: str) -> None:
    """A line beside the progress, on stderr; of several processes the first one says it."""
    if is_primary():
        print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """As people say it: 8 s, 8 min 27 s, 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _plain_line(done: int, total: int, elapsed: float, initial: int, description: str, unit: str) -> str:
    return tqdm.format_meter(
        done,
        total,
        elapsed,
        initial=initial,
        prefix=description,
        unit=f" {unit}",
        bar_format="{desc}: {n_fmt}/{total_fmt}{unit}, {elapsed} so far, {remaining} left, {rate_fmt}",
    )
