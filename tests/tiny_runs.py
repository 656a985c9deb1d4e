"""Tiny experiments: every stage of the real command lines, cut down to seconds."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.programs import ROOT, environment_of
from tests.same_run import finished_files

WATCHED = Path(__file__).with_name("watched_run.py")

# Few lengths and batch sizes above all: most of a run this small is compilation.
TINY_EAGLE = {
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
    "agent.training.num_iterations": 2,
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


TINY_REAL = {
    "minilens.num_train": 12,
    "minilens.num_test": 6,
    "minilens.num_supervised": 200,
    "generation.num_train_responses": 4,
    "generation.num_test_responses": 4,
    "generation.prompts_per_chunk": 6,
    "models.batch_size": 24,
    "models.length_multiple": 64,
    "supervised.batch_size": 16,
    "supervised.training.num_steps": 20,
    "supervised.training.warmup_steps": 2,
    "supervised.training.checkpoint_every": 10,
    "selection.strategies": "('easy', 'random', 'implicit_reward_gap_small')",
    "selection.num_warmup_labels": 4,
    "training.batch_size": 12,  # whatever the labels, two steps of one shape: one compilation
    "training.num_epochs": 2,
    "training.warmup_steps": 0,
    "training.checkpoint_every": 2,
    "training.probe_every": 2,
    "num_labels": "(8, 12)",
    "seeds": "(0,)",
    "evaluation.num_stability_prompts": 3,
    "evaluation.num_told_prompts": 2,
}


@dataclasses.dataclass(frozen=True)
class TinyExperiment:
    """Starts `python -m <module>` with a tiny experiment in a process of its own.

    All processes share one compilation cache, so that only the first one compiles.
    """

    module: str
    config: str
    settings: Mapping[str, Any]
    cache: Path

    def start(
        self, workdir: Path, overrides: Sequence[str] = (), watch: Sequence[str] = (), config: str | None = None
    ) -> subprocess.Popen:
        """`watch`: what watched_run.py is to do at the run's renames; none: the bare command."""
        program = [str(WATCHED), self.module, *watch] if watch else ["-m", self.module]
        flags = [f"--config.{key}={value}" for key, value in self.settings.items()]
        environment = environment_of(cache=self.cache)
        return subprocess.Popen(
            [sys.executable, *program, f"--config={config or self.config}", f"--workdir={workdir}", *flags, *overrides],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: Any, **options: Any) -> tuple[int, str, str]:
        """What `start` starts, to its end: exit code (-9: killed), stdout and stderr."""
        process = self.start(*arguments, **options)
        stdout, stderr = process.communicate()
        return process.returncode, stdout, stderr

    def finish(self, folder: Path) -> None:
        """A run in `folder`/run that nothing interrupts, beside it renames.txt and screen.txt, which it showed."""
        log = folder / "renames.txt"
        code, stdout, stderr = self.run(folder / "run", watch=["log", str(log)])
        assert code == 0, stderr
        assert stdout == f"report: {folder / 'run' / 'report.html'}\n"
        (folder / "screen.txt").write_text(stderr)


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run that nothing interrupted, and the targets of its renames in their order."""

    workdir: Path
    renames: tuple[str, ...]

    def copy(self, target: Path, *, without: Sequence[str] = (), since: str | None = None) -> Path:
        """A copy of the work directory in which the stages `without` have not begun, nor those from `since` on."""
        stages = list(dict.fromkeys(name.split("/")[0] for name in self.renames if "/" in name))
        shutil.copytree(self.workdir, target)
        for stage in (*without, *(stages[stages.index(since) :] if since else ())):
            shutil.rmtree(target / stage)
        return target

    def results(self) -> dict[str, object]:
        return finished_files(self.workdir)

    def assert_same_results(self, workdir: Path) -> None:
        ours, theirs = finished_files(workdir), self.results()
        assert sorted(ours) == sorted(theirs)
        assert [name for name in ours if ours[name] != theirs[name]] == []
        assert not list(workdir.rglob("*.partial"))
        for name in ("report.html", "report.md"):
            assert (workdir / name).stat().st_size > 0


@pytest.fixture(scope="session")
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of programs of all runs."""
    folder = _of_all_workers(tmp_path_factory) / "compilation_cache"
    folder.mkdir(exist_ok=True)
    return folder


def _of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the tests' workers share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def _finished_once(experiment: TinyExperiment, name: str, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The run of the worker that asks first; the others wait for it. Tests change copies only."""
    folder = _of_all_workers(tmp_path_factory) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "run" / "report.html").exists():
            experiment.finish(folder)
    return FinishedRun(folder / "run", tuple((folder / "renames.txt").read_text().splitlines()))


@pytest.fixture(scope="session")
def eagle(compilation_cache: Path) -> TinyExperiment:
    config = "experiments/configs/eagle_minilens.py:quick"
    return TinyExperiment("experiments.eagle", config, TINY_EAGLE, compilation_cache)


@pytest.fixture(scope="session")
def finished(eagle: TinyExperiment, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return _finished_once(eagle, "finished", tmp_path_factory)


@pytest.fixture(scope="session")
def real(compilation_cache: Path) -> TinyExperiment:
    config = "experiments/configs/real_minilens.py:quick"
    return TinyExperiment("experiments.real", config, TINY_REAL, compilation_cache)


@pytest.fixture(scope="session")
def finished_real(real: TinyExperiment, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return _finished_once(real, "finished_real", tmp_path_factory)
