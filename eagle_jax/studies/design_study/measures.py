"""What a rule that keeps k of K candidates does: what it accepts, covers, and leaves to explore.

The yardstick is NumPy in float64, independent of the solver whose subsets it measures.
Axis letters: P problems, K candidates, k kept, D draws, n width of the rows that a rule sees, d
domain width, r directions of change, S users.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from eagle_jax.base.settings import setting, settings
from eagle_jax.design.design_problem import GOptimalSettings
from eagle_jax.design.g_optimal import g_optimal_design
from eagle_jax.design.kept_subset import exchange_subset, top_k_subset
from eagle_jax.design.reference_distribution import DesignNotConvergedError
from eagle_jax.reports.statistics import BootstrapSettings, bootstrap_interval, paired_difference

EMBEDDINGS, DELTAS = "embeddings", "changes"  # what the rows are: z_a or the projected delta_a
RANDOM, TOP_K, EXCHANGE, ALL = "random_subset", "top_k", "exchange", "all candidates"
SPREAD_MEASURES = ("distance", "volume", "weakest_direction")
UTILITY_MEASURES = ("utility_deviation", "utility_range", "best_gain")

_ROUNDING = 1e-6  # leverages of k independent rows are all k, up to rounding


def subsample_rule(subsample_factor: float) -> str:
    """The name of the paper's rule with this C."""
    return f"g_optimal_subsample, C = {subsample_factor:g}"


@settings
class SubsetStudySettings:
    """Subsets of the candidates, by several rules."""

    subset_sizes: tuple[int, ...] = setting("k.", at_least=2, distinct=True)
    subsample_factors: tuple[float, ...] = setting("C of the paper's rule, 1 first.", above=0, distinct=True)
    num_draws: int = setting("D of each problem, after which the paper's rule gives up.", at_least=1)
    solver: GOptimalSettings
    bootstrap: BootstrapSettings

    def __post_init__(self):
        if self.subsample_factors[0] != 1.0:
            raise ValueError(f"subsample_factors must begin with 1, the paper's, got {self.subsample_factors}")


class Problem(NamedTuple):
    """One anchor's candidates; `make_problem` fills it. All float64.

    rows: [K, n], what the rules see. rank: of the rows.
    distances: [K, K], of the next embeddings.
    whitened_changes: [K, r], coordinates in which the changes' second moment is the identity.
    gains: [S, K], U(z_a) - U(anchor) for S users; None where there is no utility.
    """

    rows: np.ndarray
    rank: int
    distances: np.ndarray
    whitened_changes: np.ndarray
    gains: np.ndarray | None


def leading_directions(changes: np.ndarray, rank: int) -> np.ndarray:
    """changes [K, d] -> [K, r], on the leading right singular directions of their span."""
    _, _, directions = np.linalg.svd(changes, full_matrices=False)
    return changes @ directions[:rank].T


def make_problem(
    next_embeddings: np.ndarray,
    anchor_embedding: np.ndarray,
    gains: np.ndarray | None,
    *,
    footing: str,
    rank: int,
    rank_tolerance: float,
) -> Problem:
    """next_embeddings [K, d], anchor_embedding [d], gains [S, K]; `rank` of the changes: r."""
    next_embeddings = np.asarray(next_embeddings, np.float64)
    changes = leading_directions(next_embeddings - anchor_embedding, rank)
    rows = {EMBEDDINGS: next_embeddings, DELTAS: changes}[footing]
    left, singular_values, _ = np.linalg.svd(changes, full_matrices=False)
    is_direction = singular_values > rank_tolerance * singular_values[0]
    differences = next_embeddings[:, None, :] - next_embeddings[None, :, :]
    return Problem(
        rows,
        int(np.linalg.matrix_rank(rows, rtol=rank_tolerance)),
        np.linalg.norm(differences, axis=-1),
        left[:, is_direction] * math.sqrt(len(rows)),
        gains,
    )


def measure_subsets(problem: Problem, indices: np.ndarray, rank_tolerance: float) -> dict[str, np.ndarray]:
    """What equal weights on each of D subsets do; values [D].

    With Sigma = mean over the kept z z' and its pseudo-inverse:
    - largest_kept_leverage: max over the kept a of z_a' Sigma^+ z_a, at most their number;
    - largest_leverage: the same over all K candidates (what lies outside the span counts as 0);
    - rank_share: rank of Sigma / rank of all candidates;
    - factor: largest_leverage / rank, inf where Sigma misses a direction of the candidates;
    - distance: mean distance of two kept next embeddings / the same of all candidates;
    - volume: (det of the kept changes' second moment / the same of all)^(1/r), 0 when one is lost;
    - weakest_direction: root mean square of the kept changes / the same of all candidates, along
      the direction where this ratio is smallest;
    - of the S users' utilities of the kept, averaged over users: utility_deviation (standard),
      utility_range (largest - smallest), best_gain (largest - the anchor's).

    Args:
      indices: [D, k], with repetitions where a candidate counts more than once.
    """
    num_kept = indices.shape[1]
    _, singular_values, directions = np.linalg.svd(problem.rows[indices], full_matrices=False)
    is_direction = singular_values > rank_tolerance * singular_values[:, :1]
    scales = np.where(is_direction, 1.0 / np.where(is_direction, singular_values, 1.0), 0.0)
    coordinates = problem.rows @ directions.swapaxes(1, 2) * scales[:, None, :]
    leverage = num_kept * np.sum(coordinates**2, axis=2)  # [D, K]
    rank = is_direction.sum(axis=1)
    largest = leverage.max(axis=1)
    kept_changes = problem.whitened_changes[indices]
    moments = kept_changes.swapaxes(1, 2) @ kept_changes / num_kept
    # Whitened moments have eigenvalues of order 1: what is below rounding is a lost direction.
    eigenvalues = np.linalg.eigvalsh(moments)
    eigenvalues = np.where(eigenvalues > 1e-12, eigenvalues, 0.0)
    with np.errstate(divide="ignore"):
        volume = np.exp(np.mean(np.log(eigenvalues), axis=1))
    pairs = problem.distances[indices[:, :, None], indices[:, None, :]]
    count, all_pairs = len(problem.distances), problem.distances.sum()
    values = {
        "largest_kept_leverage": np.take_along_axis(leverage, indices, axis=1).max(axis=1),
        "largest_leverage": largest,
        "rank_share": rank / problem.rank,
        "factor": np.where(rank < problem.rank, np.inf, largest / problem.rank),
        "distance": pairs.sum(axis=(1, 2)) / (num_kept * (num_kept - 1)) / (all_pairs / (count * (count - 1))),
        "volume": volume,
        "weakest_direction": np.sqrt(eigenvalues[:, 0]),
    }
    if problem.gains is not None:
        kept_gains = problem.gains[:, indices]  # [S, D, k]
        largest, smallest = kept_gains.max(axis=2), kept_gains.min(axis=2)
        values |= {
            "utility_deviation": kept_gains.std(axis=2).mean(axis=0),
            "utility_range": (largest - smallest).mean(axis=0),
            "best_gain": largest.mean(axis=0),
        }
    return values


def study_problems(
    problems: Sequence[Problem], settings: SubsetStudySettings, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """One JSON-able cell for each k: the paper's rule, its control, and designed subsets.

    Raises `DesignNotConvergedError` when the solver leaves a problem unsolved.
    """
    rows = np.stack([problem.rows for problem in problems]).astype(np.float32)
    design = jax.device_get(g_optimal_design(rows, settings.solver))
    if not design.converged.all():
        raise DesignNotConvergedError(
            f"{np.count_nonzero(~design.converged)} of {len(problems)} designs of shape "
            f"{rows.shape[1:]} have not converged: raise max_iterations or max_approximation_factor"
        )
    for num_kept in settings.subset_sizes:
        yield _study_size(problems, rows, design.design_weights, num_kept, settings, rng)


def _study_size(problems, rows, design_weights, num_kept, settings, rng) -> dict[str, Any]:
    num_problems, num_candidates, width = rows.shape
    tolerance = settings.solver.rank_tolerance
    draws = []
    for problem in problems:
        drawn = rng.random((settings.num_draws, num_candidates)).argsort(axis=1)[:, :num_kept]
        draws.append(measure_subsets(problem, drawn, tolerance))
    by_rule, paper = _papers_rule(draws, width, settings.subsample_factors)
    by_rule[RANDOM] = draws
    counts = {
        TOP_K: top_k_subset(rows, design_weights, num_kept, settings=settings.solver).counts,
        EXCHANGE: exchange_subset(rows, num_kept, settings=settings.solver).counts,
        ALL: np.ones((num_problems, num_candidates), int),
    }
    for rule, of_problems in counts.items():
        by_rule[rule] = [
            measure_subsets(problem, np.repeat(np.arange(num_candidates), of_problem)[None], tolerance)
            for problem, of_problem in zip(problems, np.asarray(of_problems), strict=True)
        ]
    leverage = np.concatenate([values["largest_kept_leverage"] for values in draws]) / width
    return {
        "num_candidates": num_candidates,
        "width": width,
        "num_kept": num_kept,
        "num_problems": num_problems,
        "num_draws": num_problems * settings.num_draws,
        "rank": float(np.median([problem.rank for problem in problems])),
        "largest_kept_leverage_over_n": {
            "smallest": float(leverage.min()),
            "median": float(np.median(leverage)),
            "largest": float(leverage.max()),
        },
        "paper": paper,
        "rules": {rule: _summary(measured, draws, settings.bootstrap) for rule, measured in by_rule.items()},
    }


def _papers_rule(
    draws: Sequence[Mapping[str, np.ndarray]], width: int, subsample_factors: Sequence[float]
) -> tuple[dict[str, list], list[dict[str, Any]]]:
    """What the paper's rule keeps of each problem's draws, by rule, and how much it accepts."""
    by_rule, paper = {}, []
    for subsample_factor in subsample_factors:
        bound = subsample_factor * width * (1.0 + _ROUNDING)
        accepted = [values["largest_kept_leverage"] <= bound for values in draws]
        # Which accepted draw comes first is chance. With none the rule keeps its last draw, which
        # is any draw.
        by_rule[subsample_rule(subsample_factor)] = [
            {name: column[is_accepted] for name, column in values.items()} if is_accepted.any() else values
            for values, is_accepted in zip(draws, accepted, strict=True)
        ]
        paper.append(
            {
                "subsample_factor": subsample_factor,
                "accepted": float(np.mean(accepted)),
                "accepted_over_all": float(np.mean([values["largest_leverage"] <= bound for values in draws])),
                "num_given_up": sum(not is_accepted.any() for is_accepted in accepted),
            }
        )
    return by_rule, paper


def _summary(
    measured: Sequence[Mapping[str, np.ndarray]],
    draws: Sequence[Mapping[str, np.ndarray]],
    bootstrap: BootstrapSettings,
) -> dict[str, Any]:
    """Factors over all subsets; means of the measures with intervals over problems, and the paired
    differences from the random subsets of the same problems."""
    factors = np.concatenate([values["factor"] for values in measured])
    is_finite = np.isfinite(factors)
    measures, against_random = {}, {}
    for name in (*SPREAD_MEASURES, *UTILITY_MEASURES):
        if name in measured[0]:
            means = [values[name].mean() for values in measured]
            random_means = [values[name].mean() for values in draws]
            measures[name] = bootstrap_interval(means, bootstrap).as_cell()
            against_random[name] = paired_difference(means, random_means, bootstrap).as_cell()
    median = float(np.median(factors))
    return {
        # JSON has no infinity: None where a direction is missed.
        "median_factor": median if math.isfinite(median) else None,
        "worst_finite_factor": float(factors[is_finite].max()) if is_finite.any() else None,
        "missed_share": float(1.0 - is_finite.mean()),
        "rank_share": float(np.mean([values["rank_share"].mean() for values in measured])),
        "measures": measures,
        "against_random": against_random,
    }
