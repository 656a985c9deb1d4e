"""A finished ELM run as its space is looked into: points between items and along concept vectors, told by the ELM.

Axis letters: `N` items, `d` width of the semantic embeddings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.tasks import SEMANTIC, TASKS
from eagle_jax.eagle.serving.proposals import nearest_items
from eagle_jax.elm.ask import explorer_of
from eagle_jax.elm.dialogue import Explorer, Point, Reply, answer_about, locate
from eagle_jax.elm.run import ElmRun
from eagle_jax.elm.settings import SINGLE_MOVIE, ElmExperiment
from eagle_jax.embeddings.concept_activation import extrapolate
from eagle_jax.reports.principal_plane import PrincipalPlane, fit_principal_plane
from eagle_jax.stages.finished_run import FinishedStages, finished_settings

MOST_SPREADS = 5.0  # along a concept vector, on either side
_NUM_NEAREST = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpacePoint:
    """Where one looks: on the way from an item to another one (alpha from 0 to 1; second None: on the first), then
    `spreads` of the items' spread along a tag's concept vector (None: along none)."""

    first: str
    second: str | None = None
    alpha: float = 0.0
    tag: str | None = None
    spreads: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToldPoint:
    """A point and what the ELM says of it; read_back: where its text lies on the map, None: it could not be read."""

    point: SpacePoint
    task: str
    position: tuple[float, float]
    reply: Reply
    read_back: tuple[float, float] | None
    nearest: Sequence[dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ElmSpace:
    """name: of the run. catalogue: its items are in the order of the vectors. tasks: about one item, that the ELM
    learned. plane: of the items' semantic embeddings, and their positions on it [N, 2], float32. seed: of all that is
    told."""

    name: str
    explorer: Explorer
    catalogue: Catalogue
    tasks: Sequence[str]
    plane: PrincipalPlane
    positions: np.ndarray
    seed: int

    @property
    def vectors(self) -> np.ndarray:
        return self.explorer.spaces[SEMANTIC].vectors

    @property
    def tags(self) -> list[str]:
        """Those with a concept vector."""
        return sorted(self.explorer.spaces[SEMANTIC].activations)

    def vector(self, point: SpacePoint) -> np.ndarray:
        """[d]; raises `UserError` that names what is wrong."""
        vector = locate(self.explorer, SEMANTIC, Point(point.first, toward=point.second, amount=point.alpha))
        if point.tag is None:
            return vector
        activations = self.explorer.spaces[SEMANTIC].activations
        if point.tag not in activations:
            raise UserError(f"tag={point.tag}: has no concept vector here; those of {', '.join(self.tags)} are there")
        if not abs(point.spreads) <= MOST_SPREADS:
            raise UserError(f"spreads={point.spreads:g}: must be from {-MOST_SPREADS:g} to {MOST_SPREADS:g}")
        return extrapolate(vector, activations[point.tag], point.spreads)

    def look(self, point: SpacePoint) -> tuple[tuple[float, float], list[dict[str, Any]]]:
        """Its place on the map, and the items nearest to it; no model is asked."""
        vector = self.vector(point)
        (near,) = nearest_items(vector[None], self.vectors, self.catalogue.entities, _NUM_NEAREST)
        return self._place(vector), near

    def tell(self, point: SpacePoint, task: str, number: int) -> ToldPoint:
        """What the ELM writes of it; number: of the answer, which draws with its own seed."""
        if task not in self.tasks:
            raise UserError(f"task={task}: must be one of {', '.join(self.tasks)}")
        vector = self.vector(point)
        reply = answer_about(self.explorer, TASKS[task], [(SEMANTIC, vector)], self.seed + number)
        read_back = None if reply.text is None else self._place(self.explorer.of_items.embed([reply.text])[0])
        position, nearest = self.look(point)
        return ToldPoint(point=point, task=task, position=position, reply=reply, read_back=read_back, nearest=nearest)

    def _place(self, vector: np.ndarray) -> tuple[float, float]:
        ((x, y),) = self.plane.project(np.asarray(vector)[None])
        return float(x), float(y)


def elm_space(name: str, explorer: Explorer, catalogue: Catalogue, tasks: Sequence[str], seed: int) -> ElmSpace:
    """With the map that the items' embeddings make; tasks: of the ELM, of which those about one item are asked."""
    vectors = explorer.spaces[SEMANTIC].vectors
    plane = fit_principal_plane(vectors)
    return ElmSpace(
        name=name,
        explorer=explorer,
        catalogue=catalogue,
        tasks=[task for task in tasks if task in SINGLE_MOVIE],
        plane=plane,
        positions=plane.project(vectors).astype(np.float32),
        seed=seed,
    )


class _FinishedElmRun(FinishedStages, ElmRun):
    """Reads what a run made, and makes nothing."""


def load_elm_space(workdir: Path, seed: int) -> ElmSpace:
    """The space of a finished run of experiments.elm, told by the ELM of its first seed.

    Raises `UserError` where the folder is of something else, or the run is not finished.
    """
    experiment = finished_settings(workdir, "elm", ElmExperiment)
    run = _FinishedElmRun(experiment, workdir)
    run.prepare()
    first = experiment.elm_seeds[0]
    run.elms = {first: run.train(first)}  # which is there, so that it is read
    return elm_space(experiment.title, explorer_of(run), run.spaces.catalogue, experiment.tasks, seed)
