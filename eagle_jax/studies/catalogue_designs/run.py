"""The designs of a whole catalogue: streamed from disk, chunk by chunk, and resumed where it was.

Stage `catalogue` makes up embeddings when none are given. Stage `designs` keeps a part per chunk
while it runs and ends as one `.npy` file per field of `CatalogueDesigns`, the first axis the
problem's number, to be opened with `numpy.load(..., mmap_mode="r")`; the parts are removed then.
What these files hold does not depend on threads, devices or interruptions. At most one chunk of
problems is in memory.

Axis letters: N problems, n problems of a chunk, K candidates, d domain width.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import jax
import numpy as np

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import MetricsWriter, progress
from eagle_jax.base.settings import setting, settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.embedding_files import EmbeddingFiles
from eagle_jax.design.g_optimal import GOptimalSettings
from eagle_jax.stages.run import Run
from eagle_jax.studies.catalogue_designs.parallel import CatalogueDesigns, make_designer
from eagle_jax.studies.catalogue_designs.report import summarize_designs, write_designs_report
from eagle_jax.studies.catalogue_designs.synthetic import SyntheticEmbeddings, write_synthetic_embeddings

_SUMMARY = "summary.json"
_EMBEDDINGS = "next_embeddings.npy"


@settings
class CatalogueDesignsExperiment:
    """What is solved, how, and in which pieces."""

    next_embeddings: str | None = setting("A .npy file [N, K, d] or a folder of them; None: synthetic ones are made.")
    synthetic: SyntheticEmbeddings
    design: GOptimalSettings
    num_kept: int = setting("Rows that the exchange keeps of every problem.", at_least=1)
    problems_per_chunk: int = setting("What is in memory at a time, and lost at most by an interruption.", at_least=1)
    num_threads: int | None = setting("On a single CPU device; None: one per core.", at_least=1)


def run_catalogue_designs(experiment: CatalogueDesignsExperiment, workdir: Path) -> Path:
    """Runs what is not done yet and returns the path of report.md.

    Raises `UserError` when the input or the work directory is not as it has to be.
    """
    run = Run(workdir, experiment="designs")
    given = {
        "design": experiment.design,
        "num_kept": experiment.num_kept,
        "problems_per_chunk": experiment.problems_per_chunk,
    }
    if experiment.next_embeddings is None:
        with run.stage("catalogue", **dataclasses.asdict(experiment.synthetic)) as stage:
            if not stage.is_complete():
                stage.begin()
                write_synthetic_embeddings(stage.path / _EMBEDDINGS, experiment.synthetic)
                stage.finish()
        files = EmbeddingFiles(stage.path / _EMBEDDINGS)
    else:
        files = EmbeddingFiles(Path(experiment.next_embeddings))
        given["next_embeddings"] = files.checksums()
    if experiment.num_kept > files.num_candidates:
        raise UserError(f"num_kept is {experiment.num_kept}, but a problem has only {files.num_candidates} candidates")
    with run.stage("designs", *run.stages, **given) as stage:
        if not stage.is_complete():
            designer = make_designer(
                experiment.design,
                experiment.num_kept,
                experiment.problems_per_chunk,
                jax.devices(),
                experiment.num_threads or os.cpu_count(),
            )
            _run_design_stage(stage, files, experiment.problems_per_chunk, designer)
    return write_designs_report(workdir, stage, experiment)


def _run_design_stage(
    stage: StageFolder,
    files: EmbeddingFiles,
    problems_per_chunk: int,
    designer: Callable[[np.ndarray], CatalogueDesigns],
) -> None:
    stage.begin()
    starts = range(0, files.num_problems, problems_per_chunk)
    # Written after the fields and before the parts go: whoever finds it has nothing more to solve.
    if not (stage.path / _SUMMARY).exists():
        _solve_chunks(stage, files, starts, designer)
        for field in CatalogueDesigns._fields:
            _join_parts(stage, field, files.num_problems, len(starts))
        stage.write_json(_SUMMARY, summarize_designs(stage.path))
    if (stage.path / "parts").exists():
        shutil.rmtree(stage.path / "parts")
    stage.finish()


def _solve_chunks(
    stage: StageFolder, files: EmbeddingFiles, starts: range, designer: Callable[[np.ndarray], CatalogueDesigns]
) -> None:
    """Writes the parts that are missing; those before were made by an earlier run."""
    num_done = _count_parts(stage, len(starts))
    chunks = progress(
        range(num_done, len(starts)), len(starts), f"designs, {starts.step} in a chunk", "chunk", initial=num_done
    )
    with MetricsWriter(stage.path / "metrics", resume_step=num_done - 1) as writer:
        for index in chunks:
            started = time.monotonic()
            first = starts[index]
            rows = files.read(first, min(first + starts.step, files.num_problems))
            designs = designer(rows)
            seconds = time.monotonic() - started
            # Before the part: resuming drops the row of a chunk that has no part.
            writer.write(
                index, _measure(designs) | {"time/seconds": seconds, "time/problems_per_second": len(rows) / seconds}
            )
            stage.write_arrays(_part(index), designs._asdict())


def _measure(designs: CatalogueDesigns) -> dict[str, float]:
    """What a chunk's designs are like; nan where none was solved."""
    solved = designs.converged

    def median(values):
        return float(np.median(values[solved])) if solved.any() else float("nan")

    return {
        "unsolved": int(np.sum(designs.is_finite & ~solved)),
        "non_finite": int(np.sum(~designs.is_finite)),
        "approximation_factor/median": median(designs.approximation_factor),
        "kept_factor/median": median(designs.kept_factor),
        "rank/median": median(designs.rank),
        "num_iterations/median": median(designs.num_iterations),
    }


def _part(index: int) -> str:
    return f"parts/{index:08d}.npz"


def _count_parts(stage: StageFolder, num_chunks: int) -> int:
    """How many parts there are without a gap; reads them, so that damage shows at once."""
    for index in range(num_chunks):
        if not (stage.path / _part(index)).exists():
            return index
        stage.read_arrays(_part(index))
    return num_chunks


def _join_parts(stage: StageFolder, field: str, num_problems: int, num_parts: int) -> None:
    """Writes `<field>.npy` from the parts, of which one is in memory at a time."""

    def pieces() -> Iterator[np.ndarray]:
        for index in range(num_parts):
            yield stage.read_arrays(_part(index))[field]

    def write(file: BinaryIO) -> None:
        for index, piece in enumerate(pieces()):
            if index == 0:
                header = np.lib.format.header_data_from_array_1_0(piece)
                header["shape"] = (num_problems, *piece.shape[1:])
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(piece).tobytes())

    write_atomically(stage.path / f"{field}.npy", write)
