"""How fast the G-optimal solver is: every method of ours against NumPy, cvxpy and R, in one run.

    bash launch/run.sh benchmarks.g_optimal --out=runs/g_optimal_benchmark

Ours is the whole call, raw rows in and certified designs out, after one call that compiles. The
peers get whitened rows. Rounds go through all contenders in turn, so that a ratio is of neighbours
in time. All designs, theirs and ours, are recomputed in float64 from the raw rows.

Axis letters: B problems, K candidates, d domain width.
"""

from __future__ import annotations

import os

# Before NumPy is loaded. The peers' loops of small products, and the LAPACK calls of ours, are
# slower on several threads.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import dataclasses
import importlib.util
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from absl import app, flags

from benchmarks import g_optimal_data, g_optimal_peers, g_optimal_table, rounds
from benchmarks.g_optimal_contenders import (
    NUMPY_PEER,
    Contender,
    Peer,
    Plan,
    Setting,
    measure,
    on_device,
    our_contender,
    our_contenders,
    peer_contenders,
)
from benchmarks.g_optimal_table import BASELINE, TARGET_GAP, TOLERATED_EXCESS, Certified
from eagle_jax.design.design_problem import GOptimalSettings
from eagle_jax.design.g_optimal import g_optimal_design

_NATURAL = ("gaussian", "clustered", "sentence-like")
_PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "cvxpy", "clarabel", "scs")

_OUT = flags.DEFINE_string("out", "runs/g_optimal_benchmark", "folder for the table")
_SEED = flags.DEFINE_integer("seed", 0, "of the problems")
_NUM_CANDIDATES = flags.DEFINE_integer("num_candidates", 100, "K", lower_bound=2)
_WIDTHS = flags.DEFINE_list("widths", "16,64,384", "d")
_PROJECTED_RANK = flags.DEFINE_integer("projected_rank", 8, "max_rank where d > K")
_BATCHES = flags.DEFINE_list("batches", "1,32,1024", "B")
_RATIO_BATCH = flags.DEFINE_integer("ratio_batch", 32, "B of what the ratios are to")
_GAPS = flags.DEFINE_list("gaps", "1e-2,1e-4,1e-6", "approximation factors, less 1")
_DATASETS = flags.DEFINE_list("datasets", ",".join(_NATURAL), "kinds of problems")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "how often every contender runs", lower_bound=1)
_PEER_PROBLEMS = flags.DEFINE_integer("peer_problems", 8, "problems a round for the peers")
_PEERS = flags.DEFINE_list("peers", "numpy,SCS,CLARABEL,R", "which peers run, where they are there")
_SLOW_ROUNDS = flags.DEFINE_integer(
    "slow_rounds", 3, "rounds of Clarabel beyond rank 32: 20 s each, one problem, at gap 1e-4", 1
)
_CERTIFIED = flags.DEFINE_integer("certified", 1024, "problems per promise recomputed")


def available_peers() -> tuple[dict[str, Peer], list[str]]:
    """Name -> solve(rows, gap), and a line about each."""
    found, notes = {}, []
    if "numpy" in _PEERS.value:
        found[NUMPY_PEER] = g_optimal_peers.numpy_wolfe_atwood
    for solver in ("SCS", "CLARABEL"):
        if solver not in _PEERS.value:
            continue
        if importlib.util.find_spec("cvxpy") is None:
            notes.append(f"cvxpy {solver}: not there")
            continue
        found[f"cvxpy {solver}"] = partial(g_optimal_peers.cvxpy_log_det, solver=solver)
        settings = [f"{gap}: {g_optimal_peers.cvxpy_tolerances(solver, float(gap))}" for gap in _GAPS.value]
        notes.append(f"cvxpy {solver}, the solver's own seconds; {'; '.join(settings)}")
    if "R" in _PEERS.value:
        status = g_optimal_peers.r_status()
        notes.append(f"R od_REX: {status}")
        if not status.startswith("not there"):
            found["R od_REX"] = g_optimal_peers.od_rex
    return found, notes


def timed_settings() -> Iterator[Setting]:
    """Where d > K: projected on the leading directions, and once with all of them."""
    num_candidates = _NUM_CANDIDATES.value
    batches = [*map(int, _BATCHES.value), _RATIO_BATCH.value]
    for width in map(int, _WIDTHS.value):
        max_rank = _PROJECTED_RANK.value if width > num_candidates else None
        for dataset in _DATASETS.value:
            rows = g_optimal_data.problems(dataset, max(batches), num_candidates, width, _SEED.value)
            coordinates = g_optimal_data.orthonormal_coordinates(rows, max_rank)
            setting = Setting(dataset=dataset, rows=rows, coordinates=coordinates, max_rank=max_rank, gap=TARGET_GAP)
            for gap in map(float, _GAPS.value):
                yield dataclasses.replace(setting, gap=gap)
            if max_rank and dataset == _DATASETS.value[0]:
                few = rows[: _RATIO_BATCH.value]
                coordinates = g_optimal_data.orthonormal_coordinates(few, None)
                yield dataclasses.replace(setting, rows=few, coordinates=coordinates, max_rank=None)


def certify() -> Iterator[Certified]:
    """Gaps recomputed in float64, over the gap asked for: float64 to 1e-8, float32 to 1e-5."""
    for precision, gap in (("float64", 1e-8), ("float32", 1e-5)):
        settings = GOptimalSettings(max_approximation_factor=1.0 + gap)
        for width in map(int, _WIDTHS.value):
            if width >= _NUM_CANDIDATES.value:
                continue
            for dataset in g_optimal_data.DATASETS:
                rows = g_optimal_data.problems(dataset, _CERTIFIED.value, _NUM_CANDIDATES.value, width, _SEED.value + 1)
                design = g_optimal_design(on_device(rows, precision), settings)
                coordinates = g_optimal_data.orthonormal_coordinates(rows, None)
                gaps = g_optimal_data.true_gaps(coordinates, np.asarray(design.design_weights))
                is_solved = np.asarray(design.converged) & (gaps <= TOLERATED_EXCESS * gap)
                yield Certified(
                    dataset=dataset,
                    width=width,
                    precision=precision,
                    gap=gap,
                    num_problems=len(rows),
                    worst_excess=float(np.max(gaps) / gap),
                    unsolved=int(np.sum(~is_solved)),
                )


def contenders_of(setting: Setting, plan: Plan, peers: dict[str, Peer]) -> list[Contender]:
    """The baseline first. With all directions of d >= K it is alone: there is nothing to solve."""
    num_candidates, rank = setting.coordinates.shape[1:]
    if rank == num_candidates:
        alone = our_contender(setting, plan, BASELINE, "float32", plan.ratio_batch)
        return [dataclasses.replace(alone, note="K = rank: uniform is optimal, nothing to solve")]
    return [*our_contenders(setting, plan), *peer_contenders(setting, plan, peers)]


def write(folder: Path, made_by: dict[str, str], notes: list[str], plan: Plan, measured, certified):
    """results.json and results.md; the verdicts in Markdown are also returned."""
    verdicts = g_optimal_table.verdicts(measured, certified, _DATASETS.value, plan.ratio_batch)
    page = g_optimal_table.page(made_by, measured, certified, verdicts, notes)
    record = {
        "machine": made_by,
        "plan": dataclasses.asdict(plan),
        "notes": notes,
        "targets": [dataclasses.asdict(verdict) for verdict in verdicts],
        "certified": [dataclasses.asdict(row) for row in certified],
        "measurements": [dataclasses.asdict(row) for row in measured],
    }
    rounds.write_results(folder, page, record)
    return page


def main(_) -> None:
    made_by = rounds.machine(_PACKAGES)
    peers, notes = available_peers()
    notes += rounds.load_warning()
    for line in (*(f"{name}: {value}" for name, value in made_by.items()), *notes):
        print(line)
    plan = Plan(
        rounds=_ROUNDS.value,
        batches=tuple(map(int, _BATCHES.value)),
        ratio_batch=_RATIO_BATCH.value,
        peer_problems=_PEER_PROBLEMS.value,
        slow_rounds=_SLOW_ROUNDS.value,
    )
    folder, measured, certified = Path(_OUT.value), [], []
    for setting in timed_settings():
        found = measure(setting, plan, contenders_of(setting, plan, peers))
        measured += found
        print(f"\n{setting.dataset} d={found[0].width} r={found[0].rank} gap {setting.gap:g}")
        for row in found:
            times = rounds.spread([1e3 * s for s in row.seconds])
            print(f"  {row.who} {row.precision} batch {row.batch}: {times} ms", flush=True)
        write(folder, made_by, notes, plan, measured, certified)  # an interrupted run keeps these
    certified += certify()
    print("\n" + write(folder, made_by, notes, plan, measured, certified))


if __name__ == "__main__":
    app.run(main)
