"""Where the runs of a sweep are started: here, or as jobs of Slurm."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from eagle_jax.base.errors import UserError

Starter = Callable[[Sequence[str], Path], int]  # (command, file for what it says) -> exit code, when it has ended
# Parameters that submitit has for all clusters, by names of its own; all others are Slurm's.
_SHARED = ("nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "mem_gb", "timeout_min")
_BY_DEFAULT = {"timeout_min": 24 * 60, "slurm_job_name": "eagle_jax"}


def start_here(command: Sequence[str], log: Path) -> int:
    """As a process of this machine."""
    with log.open("wb") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=_environment()).returncode


def slurm_starter(folder: Path, asked: str) -> Starter:
    """Starts each command as a job and waits for it; what submitit writes about jobs lies in `folder`.

    asked: "partition=gpu,gpus_per_node=1,timeout_min=240": submitit's names, or Slurm's own; jobs have a day where it
    says nothing else. Raises `UserError` where a name is unknown, submitit is missing, or here is no Slurm.
    """
    if importlib.util.find_spec("submitit") is None:
        raise UserError("--slurm needs submitit: pip install 'eagle_jax[slurm]'")
    if shutil.which("sbatch") is None:
        raise UserError("--slurm: there is no sbatch here; start the sweep where jobs are submitted")
    import submitit

    executor = submitit.AutoExecutor(folder=folder.absolute(), cluster="slurm")
    try:
        executor.update_parameters(**_BY_DEFAULT | _parameters(asked))
    except (NameError, TypeError) as error:
        raise UserError(f"--slurm={asked}: {str(error).splitlines()[0]}") from error
    turn = threading.Lock()

    def start(command: Sequence[str], log: Path) -> int:
        job = None
        try:
            with turn:
                job = executor.submit(start_here, list(command), log.absolute())
            return job.result()
        except submitit.core.utils.UncompletedJobError as error:  # Slurm ended it, so the command could not say why
            found = "did not take the job" if job is None else f"ended job {job.job_id} as {job.state}"
            with log.open("a", encoding="utf-8") as file:
                file.write(f"\nSlurm {found}: {' '.join(str(error).split())}\n")
            return 1

    return start


def _parameters(asked: str) -> dict[str, int | str]:
    """Name -> value, as submitit has them."""
    found = {}
    for part in filter(None, asked.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise UserError(f"--slurm={asked}: {part!r} is no name=value")
        found[name if name in _SHARED else f"slurm_{name}"] = int(value) if value.isdecimal() else value
    return found


def _environment() -> dict[str, str]:
    """The folder from which this was started stays where modules are looked for, as with `python -m`."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
