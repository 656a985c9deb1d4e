"""The logistic problems behind concept activation vectors, all tags, penalties and folds at once.

Axis letters: N rows, d width, P pairs or rows of a loss, G tags, L penalties, F folds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import scipy.stats

from eagle_jax.base.errors import UserError
from eagle_jax.embeddings.logistic_newton import LogisticSolution, solve_logistic


class Comparisons(NamedTuple):
    """Pairs of rows [P]: `higher` has more of the concept than `lower`; weights are positive."""

    higher: np.ndarray
    lower: np.ndarray
    weight: np.ndarray


def comparisons_within_users(
    tags_of_users: Iterable[Mapping[int, Set[str]]],
    names: Set[str],
    row_of: Mapping[int, int],
    lower_per_positive: int,
    rng: np.random.Generator,
) -> Comparisons:
    """A user's items tagged with any of `names`, each above items that the user tagged otherwise.

    Of the items below one positive at most `lower_per_positive` are drawn; each positive weighs 1.
    """
    higher, lower, weight = [], [], []
    for items in tags_of_users:
        positives = [row_of[item] for item, tags in items.items() if tags & names]
        others = np.array([row_of[item] for item, tags in items.items() if not tags & names], int)
        for row in positives if len(others) else ():
            below = rng.permutation(others)[:lower_per_positive]
            higher += [row] * len(below)
            lower += below.tolist()
            weight += [1.0 / len(below)] * len(below)
    return Comparisons(np.array(higher, int), np.array(lower, int), np.array(weight))


def standardized(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(x - mean) / r [N, d] float32, the mean [d] and r; raises UserError as `fit_cavs` says."""
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.ndim != 2:
        raise UserError(f"embeddings must be [N, d], got shape {embeddings.shape}")
    for what, is_bad in (
        ("is not finite", ~np.isfinite(embeddings).all(axis=1)),
        ("is all zeros, which is no embedding", ~embeddings.any(axis=1)),
    ):
        if is_bad.any():
            raise UserError(
                f"embeddings: row {np.flatnonzero(is_bad)[0]} {what} ({is_bad.sum()} such rows); leave these rows out"
            )
    center = embeddings.mean(axis=0)
    scale = float(np.sqrt(np.mean((embeddings - center) ** 2)))
    if scale <= 1e-7 * np.abs(embeddings).max():
        raise UserError(f"all {len(embeddings)} embeddings are equal: they show no concept")
    return ((embeddings - center) / scale).astype(np.float32), center, scale


def deal_folds(is_positive: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Fold of each row [N]: rows with and without the tag are each dealt out evenly."""
    rng = np.random.default_rng(seed)
    folds = np.empty(len(is_positive), np.int64)
    for rows in (np.flatnonzero(is_positive), np.flatnonzero(~is_positive)):
        folds[rng.permutation(rows)] = np.arange(len(rows)) % num_folds
    return folds


def padded_differences(
    rows: np.ndarray, comparisons: Mapping[str, Comparisons], folds: Mapping[str, np.ndarray], num_folds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Differences [G, P, d] and weights [G, F + 1, P], zeros where a concept has fewer pairs."""
    longest = max(len(pairs.higher) for pairs in comparisons.values())
    differences = np.zeros((len(comparisons), longest, rows.shape[1]), np.float32)
    problems = np.zeros((len(comparisons), num_folds + 1, longest), np.float32)
    for index, (tag, pairs) in enumerate(comparisons.items()):
        count = len(pairs.higher)
        row_folds = folds[tag]
        differences[index, :count] = rows[pairs.higher] - rows[pairs.lower]
        problems[index, :, :count] = pairs.weight / pairs.weight.sum()
        for fold in range(num_folds):
            touched = (row_folds[pairs.higher] == fold) | (row_folds[pairs.lower] == fold)
            problems[index, fold, :count] *= ~touched
    return differences, problems


@partial(jax.jit, static_argnames="shared_rows")
def solve_batch(
    rows: jax.Array,
    signs: jax.Array,
    problems: jax.Array,
    penalties: jax.Array,
    tolerance: float,
    max_iterations: int,
    *,
    shared_rows: bool,
) -> LogisticSolution:
    """Weights [G, L, F + 1, d (+ 1: the bias, if shared)] of every tag, penalty and fold.

    rows [N, d] shared by all tags, or [G, P, d]; signs [G, P]; problems [G, F + 1, P], the weight
    of each row; penalties [L].
    """
    solve = partial(solve_logistic, with_bias=shared_rows, tolerance=tolerance, max_iterations=max_iterations)
    solve = jax.vmap(solve, (None, None, 0, None))  # folds
    solve = jax.vmap(solve, (None, None, None, 0))  # penalties
    solve = jax.vmap(solve, (None if shared_rows else 0, 0, 0, None))  # tags
    return solve(rows, signs, problems, penalties)


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of (with, without) pairs in the right order, ties half (Mann and Whitney's U)."""
    ranks = scipy.stats.rankdata(scores)
    positives, negatives = labels.sum(), (~labels).sum()
    return (ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives)
