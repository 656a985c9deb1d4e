"""Two hours of EAGLE with a kill every minute and an endpoint that fails in every known way.

    EAGLE_EXTRAS=test bash launch/run.sh benchmarks.soak --out=runs/soak

The quick experiment on MiniLens, its environment behind a scripted endpoint, runs once undisturbed and
then over and over until the time is up: each run is killed (SIGKILL or SIGTERM, drawn) about once a
minute and begun again by the same command, while a fifth of the requests meet a fault of
tests/language_model/remote, and a few a refusal that ends the run. Every file of every finished stage
has to equal the undisturbed run's, apart from times. Ends with exit code 1 if something differs, or if
a process ended as it should not. The printed record goes to <out>/results.md, every process to
<out>/processes.jsonl, what it wrote to <out>/logs.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from benchmarks import rounds
from tests.eagle.scripted_environment import rewrite
from tests.language_model.remote.scripted_faults import RETRIED
from tests.language_model.remote.scripted_server import HANGS, Asked, Reply, ScriptedServer, answer
from tests.same_run import finished_files

# They may stand in one process with other commands' flags: tests import several.
_OUT = flags.DEFINE_string(
    "out", "runs/soak", "folder for runs and record; an undisturbed run there is used", allow_override=True
)
_PORT = flags.DEFINE_integer(
    "port", 8765, "of the endpoint, whose address is part of the runs' settings", allow_override=True
)
_MINUTES = flags.DEFINE_float("minutes", 120, "how long runs are disturbed", lower_bound=0, allow_override=True)
_KILL_SECONDS = flags.DEFINE_float(
    "kill_seconds", 60, "mean time from a start to its kill", lower_bound=1, allow_override=True
)
_FAULTS = flags.DEFINE_float(
    "faults", 0.2, "share of first tries that meet a fault", lower_bound=0, upper_bound=1, allow_override=True
)
_SEED = flags.DEFINE_integer("seed", 0, "of kills and faults", allow_override=True)

_KEY = "sk-soak-0123456789"
_CONCURRENCY = 4
_MAX_FAULTS = 3  # in a row; the settings below try more often
_SETTINGS = {
    "concurrency": _CONCURRENCY,
    "timeout_seconds": 5.0,
    "max_tries": 8,
    "max_wait_seconds": 2.0,
    "budget.max_requests": 10_000_000,
}
_FAULT_REPLIES = {**RETRIED, "timeout": HANGS, "http_429/wait": Reply(b"{}", status=429, headers={"retry-after": "1"})}
# A paid text whatever is told beside it.
_USAGES = (None, {}, {"prompt_tokens": -3}, {"prompt_tokens": 2**63, "completion_tokens": 5}, 7)
_REFUSALS = (Reply(b"wrong key", status=401), Reply(b'{"error": {"code": "insufficient_quota"}}', status=429))
_SHARE_OF_REFUSALS = 2e-4


class Endpoint:
    """The script of the server: what each request meets, drawn from it, its try and the seed."""

    def __init__(self, share: float, seed: int):
        self.share, self._seed = share, seed
        self.met: collections.Counter[str] = collections.Counter()
        self.given: collections.Counter[str] = collections.Counter()

    def __call__(self, asked: Asked, times: int) -> dict[str, Any] | Reply | str:
        body = json.dumps(asked.body, sort_keys=True)
        rng = random.Random(f"{self._seed} {times} {body}")
        if self.share and rng.random() < _SHARE_OF_REFUSALS:
            self.met["refusal"] += 1
            return rng.choice(_REFUSALS)
        if times % (_MAX_FAULTS + 1) < _MAX_FAULTS and rng.random() < self.share:
            kind = rng.choice(sorted(_FAULT_REPLIES))
            self.met[kind] += 1
            return _FAULT_REPLIES[kind]
        self.given[body] += 1
        made = answer(rewrite(asked.prompt), prompt_tokens=100, completion_tokens=20)
        if rng.random() < self.share:
            self.met["wrong usage"] += 1
            made["usage"] = rng.choice(_USAGES)
        return made


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process of a run: sent is the signal it got, None where it ended by itself; `stage` the one it was in."""

    run: int
    stage: str
    seconds: float
    sent: str | None
    code: int
    told: str

    @property
    def is_right(self) -> bool:
        """0: finished (a signal may come too late), 2: a refusal by the endpoint, which it names.

        A SIGTERM ends a training after its step, with code 143, and everything else at once.
        """
        expected = {"SIGKILL": (-9, 0), "SIGTERM": (143, -15, 0), None: (0,)}[self.sent]
        return self.code in expected or (
            self.code == 2 and ("http_401" in self.told or "http_429" in self.told) and "Traceback" not in self.told
        )


class Soak:
    """The runs of one experiment in one folder, against one server."""

    def __init__(self, folder: Path, server: ScriptedServer):
        self.folder = folder
        self._config = f"tests/eagle/remote_config.py:{server.base_url}"
        self._rng = random.Random(_SEED.value)
        (folder / "logs").mkdir(parents=True, exist_ok=True)

    def run(self, number: int, deadline: float) -> tuple[Path, list[Ended]]:
        """The work directory of a finished run and its processes; none is killed after `deadline`."""
        workdir = self.folder / f"run_{number}"
        ended: list[Ended] = []
        while not ended or ended[-1].code != 0:
            ended.append(self._process(number, workdir, len(ended), deadline))
            logging.info("%s", ended[-1])
            with (self.folder / "processes.jsonl").open("a") as file:
                file.write(json.dumps(dataclasses.asdict(ended[-1])) + "\n")
            if not ended[-1].is_right:
                break
        return workdir, ended

    def _process(self, number: int, workdir: Path, start: int, deadline: float) -> Ended:
        log = self.folder / "logs" / f"{workdir.name}_{start:03d}.txt"
        begun = time.monotonic()
        sent = None
        with log.open("wb") as file:
            process = subprocess.Popen(self._command(workdir), cwd=rounds.ROOT, env=self._environment(), stderr=file)
            pause = self._rng.uniform(0.5, 1.5) * _KILL_SECONDS.value
            chosen = self._rng.choice((signal.SIGKILL, signal.SIGTERM))
            try:
                process.wait(pause if begun + pause < deadline else None)
            except subprocess.TimeoutExpired:
                sent = chosen.name
                process.send_signal(chosen)
            stage = _stage(workdir)
            code = process.wait()
        lines = log.read_text(errors="replace").splitlines()
        told = "Traceback, see the log: " * any("Traceback" in line for line in lines) + "".join(lines[-1:])
        return Ended(number, stage, time.monotonic() - begun, sent, code, told)

    def _command(self, workdir: Path) -> list[str]:
        settings = [f"--config.remote.loopback.{name}={value}" for name, value in _SETTINGS.items()]
        config = f"--config={self._config}"
        return [sys.executable, "-m", "experiments.eagle", config, f"--workdir={workdir}", *settings]

    def _environment(self) -> dict[str, str]:
        """Results depend on the threads of OpenBLAS; that the programs are kept only saves time."""
        return os.environ | {
            "LOOPBACK_KEY": _KEY,
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": str(rounds.ROOT),
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "programs"),
        }


def _stage(workdir: Path) -> str:
    """The stage at work: the youngest folder without a manifest."""
    begun = [path.parent for path in workdir.glob("*/SETTINGS.json") if not (path.parent / "MANIFEST.json").exists()]
    return max(begun, key=lambda path: path.stat().st_mtime).name if begun else "between stages"


def different_files(expected: dict[str, object], workdir: Path) -> list[str]:
    """Names of the files that differ or that only one of the two has."""
    found = finished_files(workdir)
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def page(made_by: dict[str, str], record: dict[str, Any]) -> str:
    """The record in Markdown."""
    runs, processes = record["runs"], record["processes"]
    table = rounds.markdown_table(
        ("run", "starts", "SIGKILL", "SIGTERM", "refused", "minutes", "requests", "paid twice", "files that differ"),
        (
            [str(run[name]) for name in ("run", "starts", "killed", "terminated", "refused")]
            + [f"{run['seconds'] / 60:.1f}", *(str(run[name]) for name in ("requests", "paid_twice"))]
            + [", ".join(run["different"]) or f"none of {run['num_files']}"]
            for run in runs
        ),
    )
    stages = collections.Counter(ended["stage"] for ended in processes if ended["sent"])
    wrong = [ended for ended in processes if not ended["is_right"]]
    told = [f"- run {ended['run']}, {ended['stage']}: code {ended['code']}, {ended['told']}" for ended in wrong]
    return (
        "# Soak: EAGLE, killed and failed\n\n"
        f"{record['minutes']:.0f} minutes, {sum(stages.values())} kills, {sum(record['met'].values())} faults.\n\n"
        f"{table}\n## Kills by stage\n\n{rounds.markdown_table(('stage', 'kills'), _counts(stages))}"
        f"\n## Faults of the endpoint\n\n{rounds.markdown_table(('fault', 'times'), _counts(record['met']))}"
        f"\n## Processes that ended as they should not: {len(wrong)}\n\n" + "\n".join(told) + "\n\n## Machine\n\n"
    ) + "".join(f"- {name}: {value}\n" for name, value in made_by.items())


def _counts(counted: dict[str, int]) -> list[tuple[str, str]]:
    return [(name, str(number)) for name, number in sorted(counted.items())]


def _row(number: int, ended: list[Ended], endpoint: Endpoint, num_requests: int) -> dict[str, Any]:
    sent = collections.Counter(process.sent for process in ended)
    return {
        "run": number,
        "starts": len(ended),
        "killed": sent["SIGKILL"],
        "terminated": sent["SIGTERM"],
        "refused": sum(process.code == 2 for process in ended),
        "seconds": sum(process.seconds for process in ended),
        "requests": num_requests,
        "paid_twice": sum(times - 1 for times in endpoint.given.values()),
    }


def soak(folder: Path) -> dict[str, Any]:
    """All runs, one after the other; only what differs and the first run are kept."""
    endpoint = Endpoint(0.0, _SEED.value)
    with ScriptedServer(endpoint, _PORT.value) as server:
        runs = Soak(folder, server)
        workdir, ended = runs.run(0, deadline=0.0)
        expected = finished_files(workdir)
        begun = time.monotonic()
        deadline = begun + 60 * _MINUTES.value
        rows, processes = [], []
        endpoint.share = _FAULTS.value
        while time.monotonic() < deadline and all(process.is_right for process in ended):
            server.forget()
            endpoint.given.clear()
            number = len(rows) + 1
            workdir, ended = runs.run(number, deadline)
            different = different_files(expected, workdir)
            row = _row(number, ended, endpoint, len(server.asked))
            rows.append(row | {"different": different, "num_files": len(expected)})
            processes += [dataclasses.asdict(process) | {"is_right": process.is_right} for process in ended]
            if not different:
                shutil.rmtree(workdir)
        minutes = (time.monotonic() - begun) / 60
    return {"minutes": minutes, "runs": rows, "processes": processes, "met": dict(endpoint.met)}


def main(_) -> None:
    folder = Path(_OUT.value).absolute()
    made_by = rounds.machine(("jax", "openai"))
    record = soak(folder)
    written = page(made_by, record)
    rounds.write_results(folder, written, {"machine": made_by, **record})
    print(written)
    right = all(process["is_right"] for process in record["processes"])
    if not right or any(run["different"] for run in record["runs"]):
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
