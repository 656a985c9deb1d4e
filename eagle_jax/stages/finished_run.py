"""A finished run as those read it who come after: its settings, and its stages, none of which is made."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from eagle_jax.base.errors import CorruptArtifactError, UserError
from eagle_jax.base.settings import SettingsError, to_settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.reports.results import RESULTS_JSON
from eagle_jax.stages.run import Run

AGAIN = "run its command again, which goes on from there"
S = TypeVar("S")
# What its reader looks for.
_HAS = {"eagle": "agent", "elm": "model that reads embeddings"}


def finished_settings(workdir: Path, experiment: str, settings: type[S]) -> S:
    """The settings that a finished run of `experiments.<experiment>` was made with, from its results.json.

    Raises `UserError` where the folder is of something else, or the run is not finished.
    """
    path = workdir / RESULTS_JSON
    if not path.is_file():
        if not workdir.is_dir():
            raise UserError(f"{workdir}: there is no such folder")
        if any(workdir.glob("*/SETTINGS.json")):
            raise UserError(f"{workdir}: has no {RESULTS_JSON}, so its run is not finished: {AGAIN}")
        raise UserError(f"{workdir}: holds no run; --workdir has to name that of a finished experiments.{experiment}")
    try:
        told = json.loads(path.read_bytes())
        report, values = told["report"], told["settings"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptArtifactError(f"{path}: cannot be read: {error}; {AGAIN}") from error
    if report != f"{experiment}/report":
        found = str(report).removesuffix("/report")
        raise UserError(f"{workdir}: is a run of {found}, not of {experiment}: it has no {_HAS[experiment]}")
    try:
        return to_settings(settings, values, "settings")
    except SettingsError as error:
        raise UserError(f"{path}: was written by another version: {error}; {AGAIN}") from error


class FinishedStages(Run):
    """A run that reads what was made, and makes nothing: a stage that is not complete is refused."""

    @contextlib.contextmanager
    def stage(self, name: str, /, *depends_on: str, **settings: Any) -> Iterator[StageFolder]:
        depends = [self.stages[other] for other in depends_on]
        stage = StageFolder(self.workdir / name, settings | self._shared, depends)
        if not stage.is_complete():
            raise UserError(f"{stage.path}: is not complete, so its run is not finished: {AGAIN}")
        self.stages[name] = stage
        yield stage
