"""The tiny experiment: every stage of the real command line, cut down to seconds."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WATCHED = Path(__file__).with_name("watched_run.py")
CONFIG = "experiments/configs/eagle_minilens.py:quick"

# Few lengths and batch sizes above all: most of a run this small is compilation.
TINY = {
    "catalogue.minilens.num_films": 300,
    "catalogue.minilens.num_users": 80,
    "models.batch_size": 16,
    "models.length_multiple": 128,
    "wals.num_iterations": 5,
    "held_out_domain_encoder.max_epochs": 4,
    "profiles.titles_per_side": 4,
    "profiles.max_tries": 2,
    "candidates.num_entities": 3,
    "candidates.entities_per_chunk": 1,
    "candidates.candidates.num_generic": 6,
    "candidates.candidates.num_personalised": 6,
    "candidates.candidates.max_tries": 2,
    "design.num_kept": 4,
    "design.distribution.rank": 3,
    "reference.batch_size": 8,
    "reference.training.num_steps": 6,
    "reference.training.warmup_steps": 1,
    "reference.training.checkpoint_every": 2,
    "reference.training.log_every": 2,
    "agent.num_validation_starts": 4,
    "agent.training.num_iterations": 3,
    "agent.training.episodes_per_iteration": 4,
    "agent.training.horizon": 2,
    "agent.training.minibatch_size": 8,
    "agent.training.value_updates": 2,
    "agent.training.validate_every": 1,
    "agent.training.checkpoint_every": 1,
    "evaluation.num_starts": 8,
    "evaluation.num_reachable": 2,
    "evaluation.beam_width": 1,
    "evaluation.bootstrap.num_resamples": 50,
    "evaluation.num_told_episodes": 2,
}


@dataclasses.dataclass(frozen=True)
class TinyEagle:
    """Starts `python -m experiments.eagle` with the tiny experiment in a process of its own.

    All processes share one compilation cache, so that only the first one compiles.
    """

    cache: Path

    def start(
        self,
        workdir: Path,
        overrides: Sequence[str] = (),
        watch: Sequence[str] = (),
        config: str = CONFIG,
    ) -> subprocess.Popen:
        """`watch`: what watched_run.py is to do at the run's renames; none: the bare command."""
        program = [str(WATCHED), *watch] if watch else ["-m", "experiments.eagle"]
        flags = [f"--config.{key}={value}" for key, value in TINY.items()]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        environment.pop("XLA_FLAGS", None)  # the tests' eight devices; a user has one
        return subprocess.Popen(
            [sys.executable, *program, f"--config={config}", f"--workdir={workdir}",
             *flags, *overrides],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def run(
        self,
        workdir: Path,
        overrides: Sequence[str] = (),
        watch: Sequence[str] = (),
        config: str = CONFIG,
    ) -> tuple[int, str, str]:
        """Exit code (-9: killed), stdout and stderr."""
        process = self.start(workdir, overrides, watch, config)
        stdout, stderr = process.communicate()
        return process.returncode, stdout, stderr


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run that nothing interrupted, and the targets of its renames in their order."""

    workdir: Path
    renames: tuple[str, ...]

    def copy(self, target: Path, *, without: Sequence[str] = ()) -> Path:
        """A copy of the work directory in which the stages `without` have not begun."""
        shutil.copytree(self.workdir, target)
        for stage in without:
            shutil.rmtree(target / stage)
        return target


@pytest.fixture(scope="session")
def eagle(tmp_path_factory: pytest.TempPathFactory) -> TinyEagle:
    return TinyEagle(tmp_path_factory.mktemp("compilation_cache"))


@pytest.fixture(scope="session")
def finished(eagle: TinyEagle, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("finished")
    log = folder / "renames.txt"
    code, stdout, stderr = eagle.run(folder / "run", watch=["log", str(log)])
    assert code == 0, stderr
    assert stdout == f"report: {folder / 'run' / 'report.html'}\n"
    return FinishedRun(folder / "run", tuple(log.read_text().splitlines()))
