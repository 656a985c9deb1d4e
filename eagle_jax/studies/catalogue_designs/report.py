"""What the designs of a catalogue are like: numbers for a program, a page and a picture for people.

Axis letters: N problems.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.metrics import read_metrics
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.reports.figures import COLORS, STYLE, new_figure, to_png
from eagle_jax.reports.markdown import LEFT, Column, bullets, table
from eagle_jax.reports.results import results_files

_QUANTILES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "largest": 1.0}
_TITLES = {
    "approximation_factor": "approximation factor of the design (1 is optimal)",
    "kept_factor": "approximation factor of the kept rows, equal weights",
    "rank": "rank",
    "num_iterations": "iterations",
}


def summarize_designs(folder: Path) -> dict[str, Any]:
    """Counts, and quantiles over the solved problems, of the fields [N] in `folder`.

    A kept factor is infinite where the kept rows miss a direction: counted, not in the quantiles.
    """
    converged, is_finite = (_load(folder, name) for name in ("converged", "is_finite"))
    columns = _solved_columns(folder)
    return {
        "num_problems": len(converged),
        "num_solved": int(np.sum(converged)),
        "num_unsolved": int(np.sum(is_finite & ~converged)),
        "num_non_finite": int(np.sum(~is_finite)),
        "num_kept_misses_a_direction": int(np.sum(converged)) - len(columns["kept_factor"]),
        "quantiles": {
            name: {label: float(np.quantile(values, level)) for label, level in _QUANTILES.items()}
            for name, values in columns.items()
            if len(values)
        },
    }


def write_designs_report(folder: Path, stage: StageFolder, settings: Any) -> Path:
    """Writes report.md, histograms.png and the files of `results` into `folder`; returns the path of
    the first."""
    summary = stage.read_json("summary.json")
    rows = read_metrics(stage.path / "metrics" / "metrics.jsonl")
    seconds = sum(row["time/seconds"] for row in rows)
    device = stage.read_json("MANIFEST.json")["provenance"]["device"]
    page = _page(summary, seconds, settings, device)
    picture = to_png(_histograms(_solved_columns(stage.path)))
    files = {"histograms.png": picture, **results_files("studies/catalogue_designs/report", summary, page)}
    for name, content in (files | {"report.md": page.encode()}).items():
        write_atomically(folder / name, lambda file, content=content: file.write(content))
    return folder / "report.md"


def _load(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)


def _solved_columns(folder: Path) -> dict[str, np.ndarray]:
    converged = _load(folder, "converged")
    columns = {name: np.asarray(_load(folder, name)[converged], np.float64) for name in _TITLES}
    columns["kept_factor"] = columns["kept_factor"][np.isfinite(columns["kept_factor"])]
    return columns


def _page(summary: Mapping[str, Any], seconds: float, settings: Any, device: str) -> str:
    solved_in = f"{seconds:.1f} s on {device}, {summary['num_problems'] / seconds:.0f} a second"
    counts = bullets(
        [
            f"problems: {summary['num_problems']}, solved: {summary['num_solved']} "
            f"(certificate at most {settings.design.max_approximation_factor:g})",
            f"unsolved: {summary['num_unsolved']}",
            f"with a nan or inf, left out: {summary['num_non_finite']}",
            f"{settings.num_kept} rows kept of each; they miss a direction in {summary['num_kept_misses_a_direction']}",
            f"reading and solving, compilation included: {solved_in}",
        ]
    )
    quantiles = table(
        summary["quantiles"].items(),
        [
            Column("of the solved", lambda row: _TITLES[row[0]], LEFT),
            *(Column(label, lambda row, label=label: f"{row[1][label]:.6g}") for label in _QUANTILES),
        ],
    )
    picture = "![histograms](histograms.png)"
    return f"# Designs of a catalogue\n\n{counts}\n\n{quantiles}\n\n{picture}\n"


def _histograms(columns: Mapping[str, np.ndarray]) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(2, 2, width=7.4, height=4.6)
        for axis, (name, values) in zip(axes, columns.items(), strict=True):
            axis.set_title(_TITLES[name])
            axis.set_ylabel("problems")
            if not len(values):
                continue
            if name in ("rank", "num_iterations"):
                bins = np.arange(values.min(), values.max() + 2) - 0.5
                axis.locator_params(axis="x", integer=True)
                axis.set_xlim(bins[0] - 1, bins[-1] + 1)
            else:
                # The rest would squeeze all others into one bin.
                values = np.minimum(values, np.quantile(values, 0.99))
                bins = 50
            axis.hist(values, bins=bins, color=COLORS[0])
        return figure
