"""The peers of the solver benchmark: NumPy, cvxpy and R. One problem after the other.

Each takes rows [B, K, r] already whitened (its users would have to do that first) and returns the
designs [B, K] and the seconds they took.

Axis letters: B problems, K candidates, r rank.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

_OD_REX = Path(__file__).with_name("od_rex.R")
_STEPS_BETWEEN_REFRESHES = 64
_MAX_STEPS = 100_000


def numpy_wolfe_atwood(rows: np.ndarray, gap: float) -> tuple[np.ndarray, float]:
    """Away-step Frank-Wolfe, vectorised over a problem's rows."""
    start = time.perf_counter()
    weights = np.stack([wolfe_atwood_design(problem, gap) for problem in rows])
    return weights, time.perf_counter() - start


def wolfe_atwood_design(rows: np.ndarray, gap: float) -> np.ndarray:
    """[K] with max_a z_a' M(q)^-1 z_a <= (1 + gap) r for orthonormal columns rows [K, r].

    Wolfe (1970), Atwood (1973), as in Todd, Minimum-Volume Ellipsoids (2016), algorithm 3.4: exact
    line search towards the largest leverage or away from the smallest of the support, rank-one
    updates of M^-1 [r, r] and of the leverages [K]. Starts at the leverage scores.
    """
    rank = rows.shape[1]
    weights = np.sum(rows * rows, axis=1) / rank
    bound = rank * (1.0 + gap)
    inverse, leverages = _leverages(rows, weights)
    for step in range(1, _MAX_STEPS + 1):
        towards = leverages.argmax()
        if leverages[towards] <= bound or step % _STEPS_BETWEEN_REFRESHES == 0:
            inverse, leverages = _leverages(rows, weights)  # rank-one updates drift
            towards = leverages.argmax()
            if leverages[towards] <= bound:
                break
        away = np.where(weights > 0.0, leverages, np.inf).argmin()
        is_away = rank - leverages[away] > leverages[towards] - rank
        row = away if is_away else towards
        leverage = float(leverages[row])
        if is_away:
            weight = float(weights[row])
            drop = -weight / (1.0 - weight)
            best = (leverage - rank) / (rank * (leverage - 1.0)) if leverage > 1.0 else -np.inf
            length = max(best, drop)
        else:
            length = min((leverage - rank) / (rank * (leverage - 1.0)), 0.999)
        weights *= 1.0 - length
        weights[row] = 0.0 if is_away and length == drop else weights[row] + length
        odds = length / (1.0 - length)
        direction = inverse @ rows[row]
        column = rows @ direction
        shrink = odds / (1.0 + odds * leverage)
        inverse -= (shrink * direction)[:, None] * direction
        inverse *= 1.0 + odds
        leverages -= shrink * (column * column)
        leverages *= 1.0 + odds
    return weights


def _leverages(rows, weights):
    inverse = np.linalg.inv(rows.T @ (weights[:, None] * rows))
    return inverse, np.sum((rows @ inverse) * rows, axis=1)


def cvxpy_tolerances(solver: str, gap: float) -> dict[str, float]:
    """The loosest settings that reach the gap on most problems, found by trial at r = 8 and 16."""
    if solver == "SCS":
        return {"eps_abs": gap / 10.0, "eps_rel": gap / 10.0, "max_iters": 100_000}
    tolerance = 10.0 * gap**2
    return {name: tolerance for name in ("tol_gap_abs", "tol_gap_rel", "tol_feas")}


def cvxpy_log_det(rows: np.ndarray, gap: float, solver: str) -> tuple[np.ndarray, float]:
    """max log det(Z' diag(q) Z) with CLARABEL or SCS; the seconds are the solver's own.

    cvxpy's translation of the problem, about 15 ms at r = 16, is not counted. A design of nan is
    one that the solver gave up.
    """
    import cvxpy

    num_candidates = rows.shape[1]
    designs, seconds = [], 0.0
    for problem_rows in rows * np.sqrt(num_candidates):  # M(uniform) = I: the solvers' best scale
        weights = cvxpy.Variable(num_candidates, nonneg=True)
        information_matrix = problem_rows.T @ cvxpy.diag(weights) @ problem_rows
        problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.log_det(information_matrix)), [cvxpy.sum(weights) == 1])
        start = time.perf_counter()
        try:
            problem.solve(solver=solver, warm_start=False, **cvxpy_tolerances(solver, gap))
        except cvxpy.SolverError:
            seconds += time.perf_counter() - start
            designs.append(np.full(num_candidates, np.nan))
            continue
        stats = problem.solver_stats
        seconds += stats.solve_time + (stats.setup_time or 0.0)
        solution = np.full(num_candidates, np.nan) if weights.value is None else weights.value
        designs.append(np.maximum(solution, 0.0))
    return np.stack(designs), seconds


def r_status() -> str:
    """The version of R's OptimalDesign, or what is missing: "not there: ..."."""
    if shutil.which("Rscript") is None:
        return "not there: no Rscript"
    done = subprocess.run(["Rscript", str(_OD_REX)], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else f"not there: {done.stderr.strip()}"


def od_rex(rows: np.ndarray, gap: float) -> tuple[np.ndarray, float]:
    """R's OptimalDesign::od_REX, stopped at efficiency 1 / (1 + gap); timed inside R."""
    num_problems, num_candidates, rank = rows.shape
    with tempfile.TemporaryDirectory() as folder:
        rows_file, result_file = Path(folder, "rows.csv"), Path(folder, "result.csv")
        np.savetxt(rows_file, rows.reshape(-1, rank), delimiter=",")
        subprocess.run(["Rscript", str(_OD_REX), rows_file, str(num_candidates), repr(gap), result_file], check=True)
        result = np.loadtxt(result_file, delimiter=",", ndmin=2)
    if result.shape != (num_problems, 1 + num_candidates):
        raise ValueError(f"{_OD_REX.name} wrote a table of shape {result.shape}")
    return result[:, 1:], float(np.sum(result[:, 0]))
