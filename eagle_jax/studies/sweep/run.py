"""A sweep: every point of a grid as a run of its own in one folder, one page about all.

    eagle-jax sweep --experiment=eagle --grid=config.agent.training.kl_coefficient=0.03,0.1,0.3 \\
        --grid="config.agent.seeds=(0,),(1,)" --workdir=runs/sweep

<workdir>/<number> is a run's work directory, and `run.txt` in <workdir>/logs what it said. A stage
whose settings, and those of all that it reads, do not differ from a finished one's beside it is taken
over from there (`Run.stage`), so that it is computed once. A run that fails is told on the page, and the
others go on; the same command goes on with what is not done. Runs are processes of this machine, jobs of Slurm
(--slurm) or runs of a TPU slice (--tpu).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.command_line import FlagParser, load_config, workdir_of
from eagle_jax.base.config_overrides import check_overrides
from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.stages.sharing import SWEEP
from eagle_jax.studies.sweep.grid import GridPoint, grid_points
from eagle_jax.studies.sweep.report import Outcome, write_sweep_report
from eagle_jax.studies.sweep.starters import Starter, slurm_starter, start_here


def sweep_command(arguments: Sequence[str]) -> None:
    """Reads the flags, runs what is not done yet, writes the page and tells its path.

    Exit code 1 where a run failed.
    """
    flags, others = _parser().parse_known_args(arguments)
    points = grid_points(flags.grid)
    config = load_config(flags.config) if flags.config else None
    for point in points if config else ():
        check_overrides([f"--config.{key}={value}" for key, value in point.settings], config)
    asked = [f"experiments.{flags.experiment}", *[f"--config={flags.config}"] * bool(flags.config), *others]
    command = [*_program(flags.tpu), *asked]
    if flags.dry_run:
        for point in points:
            print(" ".join(_command(command, point, Path(flags.workdir) / point.name)))
        return
    workdir = workdir_of(flags.workdir)
    start = start_here if flags.slurm is None else slurm_starter(workdir / "slurm", flags.slurm)
    _claim(workdir, {"experiment": flags.experiment, "arguments": asked, "grid": flags.grid})
    run = _Runs(workdir, command, start)
    with ThreadPoolExecutor(flags.parallel or (1 if flags.slurm is None else len(points))) as pool:
        outcomes = list(progress(pool.map(run.one, points), len(points), "sweep", "runs"))
    page, _ = write_sweep_report(workdir, flags.experiment, outcomes)
    print(f"report: {page}")
    if failed := [outcome.point.name for outcome in outcomes if outcome.code != 0]:
        print(f"failed: {', '.join(failed)}; the same command tries them again", file=sys.stderr)
        sys.exit(1)


def _program(tpu: Sequence[str] | None) -> list[str]:
    """What a module's name and flags are put behind; raises `UserError` where the script is not there."""
    if tpu is None:
        return [sys.executable, "-m"]
    script = Path(__file__).parents[3] / "launch" / "tpu_vm.sh"
    if not script.is_file():
        raise UserError(f"--tpu: {script} is not there; start the sweep from a clone")
    return ["bash", str(script), "run", *tpu]


def _parser() -> FlagParser:
    parser = FlagParser(prog="eagle-jax sweep", description=__doc__.partition("\n")[0])
    parser.add_argument("--experiment", required=True, help="as in `eagle-jax run EXPERIMENT`")
    parser.add_argument("--config", metavar="FILE", help="of all runs; none: the experiment's own")
    parser.add_argument(
        "--grid", action="append", required=True, metavar="KEY=VALUE,VALUE", help="a setting's values; may be repeated"
    )
    parser.add_argument("--workdir", default="runs/sweep", help="folder of the runs (default: runs/sweep)")
    parser.add_argument(
        "--parallel", type=int, help="runs side by side (default: 1, with --slurm as many as there are)"
    )
    elsewhere = parser.add_mutually_exclusive_group()
    elsewhere.add_argument(
        "--slurm",
        nargs="?",
        const="",
        metavar="NAME=VALUE,...",
        help="each run is a job of Slurm, with these parameters of submitit or Slurm, as partition=gpu,gpus_per_node=1",
    )
    elsewhere.add_argument(
        "--tpu",
        nargs=2,
        metavar=("NAME", "ZONE"),
        help="each run takes all workers of a TPU slice, by launch/tpu_vm.sh; --workdir is a path that they see, too",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands of the runs, and do nothing")
    return parser


def _claim(workdir: Path, asked: dict[str, Any]) -> None:
    """Writes what the folder is for; raises `UserError` where it is for something else."""
    file = workdir / SWEEP
    if file.exists():
        found = json.loads(file.read_text())
        if found != asked:
            raise UserError(f"{file}: another sweep's, {json.dumps(found)}; choose another --workdir")
    elif workdir.exists() and any(workdir.iterdir()):
        raise UserError(f"{workdir}: is no sweep's folder and not empty; choose another --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda stream: stream.write(json.dumps(asked, indent=1).encode()))


def _command(command: Sequence[str], point: GridPoint, workdir: Path) -> list[str]:
    return [*command, *(f"--config.{key}={value}" for key, value in point.settings), f"--workdir={workdir}"]


class _Runs:
    """Starts the runs of one sweep; what each came to is kept in <workdir>/outcomes."""

    def __init__(self, workdir: Path, command: Sequence[str], start: Starter):
        self._workdir, self._of_all, self._start = workdir, command, start

    def one(self, point: GridPoint) -> Outcome:
        """From the file where it is done, else by a start of its own."""
        kept = self._workdir / "outcomes" / f"{point.name}.json"
        folder, log = self._workdir / point.name, self._workdir / "logs" / f"{point.name}.txt"
        if kept.exists() and (found := json.loads(kept.read_text()))["code"] == 0:
            return Outcome(point, folder, **found)
        started = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        code = self._start(_command(self._of_all, point, folder), log)
        lines = log.read_text(errors="replace").splitlines()
        found = {"code": code, "seconds": round(time.monotonic() - started, 1), "told": lines[-1] if lines else ""}
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, lambda stream: stream.write(json.dumps(found).encode()))
        return Outcome(point, folder, **found)
