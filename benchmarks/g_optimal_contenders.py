"""Who runs in the solver benchmark, and the rounds in which they take turns.

Axis letters: B problems, K candidates, d domain width, r rank.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import g_optimal_data
from benchmarks.g_optimal_table import BASELINE, TARGET_GAP, TOLERATED_EXCESS, Measurement
from benchmarks.rounds import take_turns
from benchmarks.worker import processor_seconds
from eagle_jax.design.design_problem import GOptimalSettings
from eagle_jax.design.g_optimal import g_optimal_design

NUMPY_PEER = "NumPy Wolfe-Atwood"
_MAX_ITERATIONS = {"interior_point": 50, "frank_wolfe": 20_000, "multiplicative": 2_000}
# Multiplicative steps to smaller gaps are counted in tens of thousands.
_MULTIPLICATIVE_GAP = 1e-2
# Beyond this rank peers other than NumPy's get one problem a round: they take up to 20 s for it.
_SLOW_RANK = 32
_SLOWEST_PEER = "cvxpy CLARABEL"

# Whitened rows [B, K, r] and a gap to designs [B, K] and the seconds for all of them.
Peer = Callable[[np.ndarray, float], tuple[np.ndarray, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of everything.

    rounds: how often every contender runs.
    batches: problems per call of ours; ratio_batch: that of the baseline of the ratios.
    peer_problems: problems a round for the peers.
    slow_rounds: of Clarabel beyond rank 32 at the target gap; at other gaps it has one.
    """

    rounds: int
    batches: tuple[int, ...]
    ratio_batch: int
    peer_problems: int
    slow_rounds: int


class Outcome(NamedTuple):
    """weights [B, K], seconds for all of them, has_converged [B] as the solver says."""

    weights: np.ndarray
    seconds: float
    has_converged: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    who: str
    precision: str
    batch: int
    rounds: int
    run: Callable[[], Outcome]
    coordinates: np.ndarray  # of its problems, for the certificate
    first_call: float | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Problems [B, K, d] of one kind, and the gap to solve them to."""

    dataset: str
    rows: np.ndarray
    coordinates: np.ndarray
    max_rank: int | None
    gap: float


def our_run(rows: jax.Array, batch: int, settings: GOptimalSettings) -> Outcome:
    """rows [B, K, d] in calls of `batch` problems, one after the other."""
    calls = [rows[first : first + batch] for first in range(0, len(rows), batch)]
    jax.block_until_ready(calls)
    start = time.perf_counter()
    designs = [jax.block_until_ready(g_optimal_design(call, settings)) for call in calls]
    seconds = time.perf_counter() - start
    return Outcome(
        np.concatenate([design.design_weights for design in designs]),
        seconds,
        np.concatenate([design.converged for design in designs]),
    )


def on_device(rows: np.ndarray, precision: str) -> jax.Array:
    with jax.enable_x64(True):
        return jax.numpy.asarray(rows, precision)


def our_contender(setting: Setting, plan: Plan, method: str, precision: str, batch: int) -> Contender:
    settings = GOptimalSettings(
        method=method,
        max_approximation_factor=1.0 + setting.gap,
        max_iterations=_MAX_ITERATIONS[method],
        max_rank=setting.max_rank,
    )
    num_problems = batch * max(1, plan.ratio_batch // batch)
    rows = on_device(setting.rows[:num_problems], precision)
    first_call = our_run(rows[:batch], batch, settings).seconds
    return Contender(
        who=method,
        precision=precision,
        batch=batch,
        rounds=plan.rounds,
        run=lambda: our_run(rows, batch, settings),
        coordinates=setting.coordinates[:num_problems],
        first_call=first_call,
    )


def our_contenders(setting: Setting, plan: Plan) -> Iterator[Contender]:
    """The baseline first: ratios are to it."""
    ratio_batch = plan.ratio_batch
    yield our_contender(setting, plan, BASELINE, "float32", ratio_batch)
    yield our_contender(setting, plan, BASELINE, "float64", ratio_batch)
    for batch in plan.batches:
        if batch != ratio_batch:
            yield our_contender(setting, plan, BASELINE, "float32", batch)
    yield our_contender(setting, plan, "frank_wolfe", "float32", ratio_batch)
    if setting.gap >= _MULTIPLICATIVE_GAP:
        yield our_contender(setting, plan, "multiplicative", "float32", ratio_batch)


def peer_contenders(setting: Setting, plan: Plan, peers: Mapping[str, Peer]) -> Iterator[Contender]:
    """One problem after the other, on whitened rows."""
    for who, solve in peers.items():
        is_slow = setting.coordinates.shape[2] > _SLOW_RANK and who != NUMPY_PEER
        coordinates = setting.coordinates[: 1 if is_slow else plan.peer_problems]
        rounds = plan.rounds
        if is_slow and who == _SLOWEST_PEER:
            rounds = min(rounds, plan.slow_rounds if setting.gap == TARGET_GAP else 1)

        def run(solve=solve, coordinates=coordinates):
            weights, seconds = solve(coordinates, setting.gap)
            return Outcome(weights, seconds, np.full(len(weights), True))

        yield Contender(
            who=who,
            precision="float64",
            batch=1,
            rounds=rounds,
            run=run,
            coordinates=coordinates,
            note="projected rows" if setting.max_rank else "",
        )


def _watched(contender: Contender) -> tuple[Outcome, float, float]:
    """What a run gives, its seconds with everything around, and processor seconds."""
    start, processor_start = time.perf_counter(), processor_seconds()
    outcome = contender.run()
    return outcome, time.perf_counter() - start, processor_seconds() - processor_start


def measure(setting: Setting, plan: Plan, contenders: Sequence[Contender]) -> list[Measurement]:
    """All contenders in turn, round by round; the first is what the ratios are to."""
    runs = [partial(_watched, contender) for contender in contenders]
    turns = take_turns(runs, [min(plan.rounds, contender.rounds) for contender in contenders])
    seconds = [
        [outcome.seconds / len(contender.coordinates) for outcome, _, _ in mine]
        for contender, mine in zip(contenders, turns, strict=True)
    ]
    measured = []
    for index, (contender, mine) in enumerate(zip(contenders, turns, strict=True)):
        outcome = mine[-1][0]
        elapsed, busy = (sum(turn[column] for turn in mine) for column in (1, 2))
        gaps = g_optimal_data.true_gaps(contender.coordinates, outcome.weights)
        is_solved = outcome.has_converged & (gaps <= TOLERATED_EXCESS * setting.gap)
        pairs = zip(seconds[index], seconds[0], strict=False)
        measured.append(
            Measurement(
                dataset=setting.dataset,
                width=setting.rows.shape[2],
                rank=contender.coordinates.shape[2],
                gap=setting.gap,
                who=contender.who,
                precision=contender.precision,
                batch=contender.batch,
                num_problems=len(contender.coordinates),
                seconds=tuple(seconds[index]),
                ratios=tuple(theirs / ours for theirs, ours in pairs),
                busy_cores=busy / elapsed,
                first_call=contender.first_call,
                worst_gap=float(np.max(gaps)),
                unsolved=int(np.sum(~is_solved)),
                whole_call=elapsed / len(mine) / len(contender.coordinates),
                note=contender.note,
            )
        )
    return measured
