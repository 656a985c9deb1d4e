"""What benchmarks share: contenders that take turns, their processes, tables, the machine."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from benchmarks.worker import MISSING
from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
# Above this load average the times are somebody else's as well.
QUIET_LOAD = 0.5

T = TypeVar("T")


def take_turns(runs: Sequence[Callable[[], T]], rounds: Sequence[int]) -> list[list[T]]:
    """What runs[i] gave in the first rounds[i] rounds.

    Rounds go through all of them in turn, so that a ratio is of neighbours in time.
    """
    given = [[] for _ in runs]
    for round_ in range(max(rounds, default=0)):
        for run, number, mine in zip(runs, rounds, given, strict=True):
            if round_ < number:
                mine.append(run())
    return given


class Turn(NamedTuple):
    """values: what the contender computed, to be compared; peak_mebibytes: up to now."""

    seconds: float
    busy_cores: float
    values: dict[str, Any]
    peak_mebibytes: float


class MissingPeer(Exception):
    """A contender cannot be there: the module named is not installed."""


@dataclasses.dataclass(frozen=True)
class Worker:
    """A contender in a process of its own, see `worker`."""

    contender: str
    process: subprocess.Popen
    log: IO[bytes]

    def wait_until_ready(self) -> float:
        """Its memory's high-water mark before the first turn, MiB. Raises MissingPeer."""
        answer = self._answer()
        if MISSING in answer:
            raise MissingPeer(f"{answer[MISSING]} is not installed")
        return answer["peak_mebibytes"]

    def run(self) -> Turn:
        """One turn."""
        self.process.stdin.write("turn\n")
        return Turn(**self._answer())

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            log = self.log.read().decode(errors="replace")
            raise RuntimeError(f"{self.contender} gave up:\n{log[-4000:]}")
        return json.loads(line)


@contextlib.contextmanager
def worker(
    contender: str,
    settings: Mapping[str, Any],
    *,
    cores: int,
    python: str = sys.executable,
    platform: str | None = "cpu",
) -> Iterator[Worker]:
    """Starts `benchmarks/worker.py` and ends it.

    contender: "module:function", called with `settings`; python: the interpreter; platform: JAX's,
    None for the best there is.
    """
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    if platform is not None:
        environment["JAX_PLATFORMS"] = platform
    command = [python, "-m", "benchmarks.worker", contender, json.dumps(settings), str(cores)]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=log, text=True, bufsize=1
        ) as process,
    ):
        yield Worker(contender, process, log)


def machine(packages: Iterable[str]) -> dict[str, str]:
    """What the numbers depend on; `packages` are those whose versions matter."""
    made_of = provenance()
    cpu_info = Path("/proc/cpuinfo")
    models = [
        line.split(":", 1)[1].strip()
        for line in (cpu_info.read_text().splitlines() if cpu_info.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "processor": f"{os.cpu_count()} x {models[0] if models else 'unknown'}",
        "device of JAX": made_of["device"],
        "load at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "not set"),
        "python": made_of["python"],
        "versions": ", ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in packages
            if importlib.util.find_spec(name.replace("-", "_"))
        ),
        "platform": made_of["platform"],
        "commit": str(made_of["commit"]),
        "command": made_of["command"],
        "time": made_of["time"],
    }


def load_warning() -> list[str]:
    """A line where others use the machine."""
    load = os.getloadavg()[0]
    return [f"WARNING: the machine was not quiet, load {load:.2f}"] if load > QUIET_LOAD else []


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median [least, largest]."""
    low, middle, high = (
        f"{value:.{digits}g}" if value < 10**digits else f"{value:,.0f}"
        for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} [{low}, {high}]"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, one line for each row."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A target in one setting: `reached` as text, `is_met` None where it was not measured."""

    target: str
    setting: str
    reached: str
    is_met: bool | None


OUTCOME = {True: "met", False: "**missed**", None: "-"}  # of a target; None: not measured


def write_results(folder: Path, page: str, record: Mapping[str, Any]) -> None:
    """results.md and results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("results.json", json.dumps(record, indent=1)), ("results.md", page)):
        write_atomically(folder / name, lambda file, text=text: file.write(text.encode()))
