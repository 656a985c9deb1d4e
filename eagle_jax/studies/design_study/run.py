"""The study of rules that keep k of K candidate actions: sets, cells, report.

Everything random has its seed from the settings; groups of cells that are done are not done again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.settings import setting, settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.design.reference_distribution import DesignNotConvergedError
from eagle_jax.reports.pages import shared_fields
from eagle_jax.stages.run import Run
from eagle_jax.studies.design_study.measures import SubsetStudySettings, make_problem, study_problems
from eagle_jax.studies.design_study.report import StudyData, write_study_report
from eagle_jax.studies.design_study.sets import (
    EmbeddingSet,
    MiniLensSetSettings,
    MovieLensSettings,
    SetSizes,
    SyntheticSettings,
    minilens_set,
    movielens_set,
    synthetic_sets,
)

_LEFT_OUT = {
    "minilens": "MiniLens: config.minilens is None.",
    "movielens": "MovieLens: config.movielens is None; the shipped config has it where EAGLE_DATA "
    "names a folder with ml-latest-small.",
}


@settings
class DesignStudySettings:
    """Rules for keeping k of K candidates, on three kinds of embeddings."""

    title: str = setting("Of the report.")
    seed: int = setting("Of everything that has no seed of its own.", at_least=0)
    rank: int = setting("r, directions of change.", at_least=1)
    shown_num_candidates: int = setting("K of the report's tables and figures.", at_least=1)
    shown_num_kept: int = setting("k of those about exploration.", at_least=1)
    sizes: SetSizes
    study: SubsetStudySettings
    synthetic: SyntheticSettings
    minilens: MiniLensSetSettings | None
    movielens: MovieLensSettings | None

    def __post_init__(self):
        if self.shown_num_kept not in self.study.subset_sizes:
            raise ValueError(
                f"shown_num_kept ({self.shown_num_kept}) must be one of study.subset_sizes, got "
                f"{self.study.subset_sizes}"
            )
        for chosen in filter(None, (self.synthetic, self.minilens, self.movielens)):
            if self.shown_num_candidates not in chosen.num_candidates:
                raise ValueError(
                    f"shown_num_candidates ({self.shown_num_candidates}) must be one of every "
                    f"set's num_candidates, got {chosen.num_candidates}"
                )
            if max(self.study.subset_sizes) >= min(chosen.num_candidates):
                raise ValueError(
                    f"study.subset_sizes {self.study.subset_sizes} must all be below every "
                    f"num_candidates, got {chosen.num_candidates}"
                )


def run_design_study(settings: DesignStudySettings, workdir: Path) -> Path:
    """Runs what is not done yet and returns the path of report.html."""
    run = Run(workdir, experiment="design_study")
    sets = _make_sets(settings, run)
    with run.stage(
        "subsets",
        *run.stages,
        seed=settings.seed,
        rank=settings.rank,
        sizes=settings.sizes,
        study=settings.study,
        synthetic=settings.synthetic,
    ) as stage:
        if not stage.is_complete():
            stage.write_json("cells.json", _study_all(settings, sets, stage))
            stage.finish()
    data = StudyData(
        **shared_fields(settings),
        confidence=settings.study.bootstrap.confidence,
        num_draws=settings.study.num_draws,
        rank=settings.rank,
        shown_num_candidates=settings.shown_num_candidates,
        shown_num_kept=settings.shown_num_kept,
        cells=stage.read_json("cells.json"),
        sets=[{"name": found.name, "origin": found.origin} for found in sets],
        left_out=[said for name, said in _LEFT_OUT.items() if getattr(settings, name) is None],
    )
    html, _ = write_study_report(workdir, data)
    return html


def _make_sets(settings: DesignStudySettings, run: Run) -> list[EmbeddingSet]:
    """All sets; those from data have a stage of the run each."""
    sizes = settings.sizes
    sets = list(synthetic_sets(settings.synthetic, sizes, derive_seed(settings.seed, 0)))
    if settings.minilens is not None:
        seed = derive_seed(settings.seed, 1)
        sets.append(minilens_set(settings.minilens, sizes, run, seed))
    if settings.movielens is not None:
        seed = derive_seed(settings.seed, 2)
        sets += [movielens_set(settings.movielens, sizes, run, seed, width) for width in settings.movielens.widths]
    return sets


def _study_all(settings: DesignStudySettings, sets: list[EmbeddingSet], stage: StageFolder) -> list[dict[str, Any]]:
    groups = [
        (found, footing, num_candidates)
        for found in sets
        for footing in found.footings
        for num_candidates in found.num_candidates
    ]
    cells = []
    for index, group in enumerate(progress(groups, len(groups), "subsets", "group")):
        cells += stage.chunk(index, lambda index=index, group=group: _study_group(settings, index, *group))
    return cells


def _study_group(
    settings: DesignStudySettings, index: int, found: EmbeddingSet, footing: str, num_candidates: int
) -> list[dict[str, Any]]:
    problems = [
        make_problem(
            found.next_embeddings[place, :num_candidates],
            found.anchor_embeddings[place],
            None if found.gains is None else found.gains[place, :, :num_candidates],
            footing=footing,
            rank=settings.rank,
            rank_tolerance=settings.study.solver.rank_tolerance,
        )
        for place in range(len(found.next_embeddings))
    ]
    rng = np.random.default_rng(derive_seed(settings.seed, 3, index))
    try:
        cells = list(study_problems(problems, settings.study, rng))
    except DesignNotConvergedError as error:
        raise UserError(f"{found.name}, {footing}: {error}") from error
    return [{"set": found.name, "footing": footing, **cell} for cell in cells]
