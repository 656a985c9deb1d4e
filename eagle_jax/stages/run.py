"""A run of an experiment: stages by name in one work directory, their times, its text generators.

Beside the stages lie `times.json` (stage -> seconds of wall-clock time, over all runs of the work
directory), `experiment.json` (whose the work directory is), and where remote models play a role
their answers (`generations.sqlite`) and what they took (`remote_usage.json`).
"""

from __future__ import annotations

import contextlib
import json
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from eagle_jax.base.atomic_files import replace_atomically
from eagle_jax.base.errors import CorruptArtifactError, UnwritableError, UserError
from eagle_jax.base.metrics import duration, say
from eagle_jax.base.processes import from_primary, is_primary
from eagle_jax.base.work_directory import EXPERIMENT, SETTINGS, StageFolder
from eagle_jax.language_model.remote.cache import GenerationCache
from eagle_jax.language_model.remote.client import RemoteGenerator
from eagle_jax.language_model.remote.settings import RemoteSettings
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.language_model.sharding import MeshSettings
from eagle_jax.stages.models import load_model
from eagle_jax.stages.run_lock import hold
from eagle_jax.stages.screen import plan_lines
from eagle_jax.stages.sharing import take_over

_TIMES, _USAGE = "times.json", "remote_usage.json"
T = TypeVar("T")


class RunModels(Protocol):
    """How models are loaded and run here: as in `load_model` and `LocalGenerator`."""

    dtype: str
    batch_size: int
    length_multiple: int


class Run:
    """One experiment in one work directory, which is no other process's from the first stage on
    until this object is gone.

    experiment: which one it is; what another one began is refused. shared: settings that every
    stage's folder tells after its own.
    models, mesh: of generators, where there are any; remote: name -> endpoint of remote ones.
    """

    answers_file = "generations.sqlite"  # of remote models
    experiment_name: str | None = None

    def __init__(
        self,
        workdir: Path,
        shared: Mapping[str, Any] | None = None,
        *,
        experiment: str | None = None,
        models: RunModels | None = None,
        mesh: MeshSettings | None = None,
        remote: Mapping[str, RemoteSettings] | None = None,
    ):
        self.workdir = workdir
        self.experiment_name = experiment or self.experiment_name
        self.stages: dict[str, StageFolder] = {}
        self._plan: list[str] = []
        self._is_held = False
        self._shared = dict(shared or {})
        self._models, self._mesh = models, mesh
        cache = GenerationCache(workdir / self.answers_file)
        self._remote = {name: RemoteGenerator(settings, cache) for name, settings in (remote or {}).items()}

    @contextlib.contextmanager
    def stage(self, name: str, /, *depends_on: str, **settings: Any) -> Iterator[StageFolder]:
        """The folder of a stage with these settings that reads the stages `depends_on`.

        Of a sweep's runs the finished stage of another one is taken over where nothing in it differs.
        What happens within counts as the stage's time, also where it fails, but not where the stage
        was complete before. The terminal gets a heading, and at the end the time and `key_figure`.
        """
        if not self._is_held:
            weakref.finalize(self, hold(self.workdir))
            self._is_held = True
            from_primary(f"look whose {self.workdir} is", self._refuse_other_experiment)
        depends = [self.stages[other] for other in depends_on]
        stage = StageFolder(self.workdir / name, settings | self._shared, depends)
        self.stages[name] = stage
        take_over(stage)
        done, started = stage.is_complete(), time.monotonic()
        if not done:
            say(self._heading(stage))
        try:
            yield stage
        finally:
            if not done and any(self.workdir.glob("*/")):
                if self.experiment_name and not (self.workdir / EXPERIMENT).exists():
                    _write_summary(self.workdir / EXPERIMENT, {"experiment": self.experiment_name})
                times = self.seconds()
                times[name] = round(times.get(name, 0.0) + time.monotonic() - started, 1)
                _write_summary(self.workdir / _TIMES, times)
                if self._remote:
                    _write_summary(self.workdir / _USAGE, self._usage())
        if not done:
            figure = self.key_figure(stage)
            say(f"   {duration(time.monotonic() - started)}{figure and f': {figure}'}")

    def announce(self, plan: Sequence[str]) -> None:
        """Tells the terminal the names of the stages to come, and which of them are there already."""
        self._plan = list(plan)
        for line in plan_lines(self.workdir, self._plan):
            say(line)

    def key_figure(self, stage: StageFolder) -> str:
        """What the terminal is told of a stage that has ended, beside its time."""
        return ""

    def _heading(self, stage: StageFolder) -> str:
        place = f" ({self._plan.index(stage.name) + 1} of {len(self._plan)})" if stage.name in self._plan else ""
        return f"== {stage.name}{place}{', goes on' if (stage.path / SETTINGS).exists() else ''}"

    def _refuse_other_experiment(self) -> None:
        found = _read_summary(self.workdir / EXPERIMENT, str).get("experiment", self.experiment_name)
        if self.experiment_name and found != self.experiment_name:
            raise UserError(
                f"{self.workdir}: was begun by the experiment {found}, whose report that of {self.experiment_name} "
                "would take the place of; choose another work directory"
            )

    def seconds(self) -> dict[str, float]:
        """Stage -> seconds; raises `CorruptArtifactError` where the file cannot be read."""
        return _read_summary(self.workdir / _TIMES, float)

    def usage(self) -> list[dict[str, Any]]:
        """What each remote model took, over all runs of this work directory."""
        return from_primary("sum what remote models took", self._usage)

    def _usage(self) -> list[dict[str, Any]]:
        return [{"name": name, **generator.usage()} for name, generator in self._remote.items()]

    def generator(self, name: str, *, mesh: MeshSettings | None = None) -> LocalGenerator | RemoteGenerator:
        """The text generator that a model makes, on the mesh of most models or on another."""
        if name in self._remote:
            return self._remote[name]
        model = load_model(name, self._models.dtype, mesh or self._mesh)
        return LocalGenerator(model, self._models.batch_size, self._models.length_multiple)


class ExperimentRun(Run):
    """A run by the settings of an experiment that has prompts, models and a mesh."""

    def __init__(self, experiment: Any, workdir: Path):
        super().__init__(
            workdir,
            {"prompts": experiment.prompts, "experiment_seed": experiment.seed},
            models=experiment.models,
            mesh=experiment.mesh,
            remote=experiment.remote_models(),
        )
        self.experiment = experiment


def _read_summary(path: Path, kind: Callable[[Any], T]) -> dict[str, T]:
    """What `_write_summary` wrote; {} without the file."""
    if not path.exists():
        return {}
    try:
        return {name: kind(told) for name, told in json.loads(path.read_bytes()).items()}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise CorruptArtifactError(f"{path}: cannot be read: {error}; remove it") from error


def _write_summary(path: Path, value: Any) -> None:
    """A small JSON file beside the stages, by the first process."""
    if not is_primary():
        return
    text = json.dumps(value, indent=1) + "\n"
    with contextlib.suppress(UnwritableError):  # the stage's own error says it better
        # Not `write_atomically`: this process may be the only one that failed.
        replace_atomically(path, lambda stream: stream.write(text.encode()))
