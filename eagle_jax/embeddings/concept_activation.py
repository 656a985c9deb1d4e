"""Concept activation vectors (CAVs): the direction of an embedding space in which a tag grows.

Linear (Kim et al. 2018; ELM, section 5): logistic regression of "has the tag" on embeddings x_i,

    J(w, b) = sum_i s_i log(1 + exp(-y_i (<w, x_i> + b))) / sum_i s_i + penalty / 2 * r^2 |w|^2,

s_i = 1 / (number of rows of i's class), so that both classes weigh the same. Ranking (Gopfert et
al. 2022, after RankNet, Burges et al. 2005): the same loss on differences, without a bias,

    J(w) = sum_k s_k log(1 + exp(-<w, x_h(k) - x_l(k)>)) / sum_k s_k + penalty / 2 * r^2 |w|^2,

for pairs k of which h(k) was said to have more of the concept than l(k). r^2 is the variance of x
per coordinate, so the scale of the embeddings changes no direction. J is convex, and what is
returned is certified by |grad J|, relative to its norm at 0.

The penalty of each tag is chosen among the settings' on held-out rows: folds of rows, those of a
tag dealt out evenly; a pair is trained on when neither row is held out and judged when both are.

Axis letters: N rows (items or users), d width, P pairs or rows of a loss, G tags, B problems of a
tag (penalties times folds, and all rows).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.embeddings.concept_problems import (
    Comparisons,
    auc,
    deal_folds,
    padded_differences,
    solve_batch,
    standardized,
)
from eagle_jax.embeddings.logistic_newton import LogisticSolution


@settings
class CAVSettings:
    """How concept activation vectors are fitted."""

    penalties: tuple[float, ...] = setting("The best on held-out rows is taken.", above=0)
    num_folds: int = setting("Of the rows.", at_least=2)
    min_positives: int = setting(
        "Rows (or, for ranking, rows said to have more) below which a tag is refused.", at_least=2
    )
    tolerance: float = setting("Of |grad J| over its norm at 0.", above=0)
    max_iterations: int = setting("Newton steps.", at_least=1)
    seed: int = setting("Of the folds.", at_least=0)

    def __post_init__(self):
        if self.min_positives < self.num_folds:
            raise ValueError(
                f"min_positives is {self.min_positives}: with {self.num_folds} folds some would "
                "hold out no row with the tag"
            )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ConceptActivation:
    """score = <embedding, direction> + bias is above 0 for rows that rather have the concept.

    quality: on held-out rows, the share of (with, without) pairs in the right order (AUC), for
    ranking that of the judged pairs; of the chosen penalty, hence a little high.
    spread: standard deviation of the scores of the rows fitted, the unit of `extrapolate`.
    """

    direction: np.ndarray  # [d], unit norm
    bias: float
    spread: float
    quality: float
    penalty: float
    num_positives: int
    gradient_norm: float  # relative to that at 0

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """<x, direction>, [..., d] -> [...]; the bias, which orders nothing, is left out."""
        return np.asarray(embeddings) @ self.direction

    def measured_on(self, embeddings: np.ndarray) -> ConceptActivation:
        """The same direction with the spread of other rows [N, d], for instance of users."""
        return dataclasses.replace(self, spread=float(np.std(self.scores(embeddings))))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FittedCAVs:
    """By tag; `refused` says why a tag has none."""

    found: Mapping[str, ConceptActivation]
    refused: Mapping[str, str]


def extrapolate(embedding: np.ndarray, cav: ConceptActivation, step: float) -> np.ndarray:
    """x + step * spread * direction [..., d]: the score grows by `step` spreads (ELM, section 5).

    For users of a space shared with items (WALS) take `cav.measured_on(user_embeddings)`.
    """
    return np.asarray(embedding) + step * cav.spread * cav.direction


def fit_cavs(embeddings: np.ndarray, has_tag: Mapping[str, np.ndarray], settings: CAVSettings) -> FittedCAVs:
    """Linear CAVs of many tags in one batched solve (module docstring).

    Args:
      embeddings: [N, d]; a row with a nan, or of zeros, is refused by its number.
      has_tag: tag -> [N] bool.

    Raises:
      UserError: embeddings as above or all equal, labels of another length, no convergence.
    """
    rows, center, scale = standardized(embeddings)
    refused, kept = {}, {}
    for tag, labels in has_tag.items():
        labels = np.asarray(labels, bool)
        if labels.shape != (len(rows),):
            raise UserError(f"tag {tag!r}: {labels.shape} labels for {len(rows)} rows")
        if reason := _degenerate(int(labels.sum()), len(rows), settings):
            refused[tag] = reason
        else:
            kept[tag] = labels
    found = {}
    if kept:
        labels = np.stack(list(kept.values()))
        folds = np.stack([deal_folds(row, settings.num_folds, settings.seed) for row in labels])
        balance = np.where(labels, 1 / labels.sum(1)[:, None], 1 / (~labels).sum(1)[:, None])
        in_training = np.stack([folds != fold for fold in range(settings.num_folds)] + [folds >= 0], axis=1)
        problems = balance[:, None] * in_training  # [G, F + 1, N]
        signs = np.where(labels, 1.0, -1.0)
        solved = _solve(rows, signs, problems, settings, shared_rows=True)
        scores = np.einsum("nd,gpfd->gpfn", rows, solved.weights[..., : rows.shape[1]])
        for index, tag in enumerate(kept):
            if np.isnan(solved.gradient_norm[index]).any():
                refused[tag] = "rows with and without it have the same mean: no direction"
                continue
            quality = [
                np.mean(
                    [
                        auc(scores[index, p, f, folds[index] == f], labels[index, folds[index] == f])
                        for f in range(settings.num_folds)
                    ]
                )
                for p in range(len(settings.penalties))
            ]
            found[tag] = _chosen(solved, index, quality, settings, rows, center, scale, int(labels[index].sum()))
    return FittedCAVs(found=found, refused=refused)


def fit_ranking_cavs(
    embeddings: np.ndarray, comparisons: Mapping[str, Comparisons], settings: CAVSettings
) -> FittedCAVs:
    """Ranking CAVs of many concepts in one batched solve (module docstring).

    Args:
      embeddings: [N, d]; a row with a nan, or of zeros, is refused by its number.
      comparisons: concept -> pairs of rows.

    Raises:
      UserError: embeddings as above or all equal, a pair of rows that are not there or of a row
        with itself, no convergence.
    """
    rows, center, scale = standardized(embeddings)
    refused, kept, folds = {}, {}, {}
    for tag, pairs in comparisons.items():
        _check_pairs(tag, pairs, len(rows))
        is_higher = np.isin(np.arange(len(rows)), pairs.higher)
        if reason := _degenerate(int(is_higher.sum()), len(rows), settings):
            refused[tag] = reason
            continue
        folds[tag] = deal_folds(is_higher, settings.num_folds, settings.seed)
        high, low = folds[tag][pairs.higher], folds[tag][pairs.lower]
        if not (high == low).any():
            refused[tag] = f"none of {len(high)} pairs lies within a fold: nothing to judge by"
        elif not all(((high != fold) & (low != fold)).any() for fold in range(settings.num_folds)):
            refused[tag] = f"all of {len(high)} pairs touch one fold: nothing else to train on"
        else:
            kept[tag] = pairs
    found = {}
    if kept:
        differences, problems = padded_differences(rows, kept, folds, settings.num_folds)
        ones = np.ones(differences.shape[:2])
        solved = _solve(differences, ones, problems, settings, shared_rows=False)
        for index, (tag, pairs) in enumerate(kept.items()):
            if np.isnan(solved.gradient_norm[index]).any():
                refused[tag] = "its comparisons cancel each other: they show no direction"
                continue
            row_folds = folds[tag]
            scores = np.einsum("nd,pfd->pfn", rows, solved.weights[index])
            judged = row_folds[pairs.higher] == row_folds[pairs.lower]
            fold = row_folds[pairs.higher][judged]
            weight = pairs.weight[judged]
            margins = scores[..., pairs.higher[judged]] - scores[..., pairs.lower[judged]]
            margins = margins[:, fold, np.arange(len(fold))]  # each by the CAV not trained on it
            quality = ((np.sign(margins) + 1) / 2) @ weight / weight.sum()
            positives = len(np.unique(pairs.higher))
            found[tag] = _chosen(solved, index, quality, settings, rows, center, scale, positives)
    return FittedCAVs(found=found, refused=refused)


def _degenerate(num_positives: int, num_rows: int, settings: CAVSettings) -> str | None:
    if num_positives < settings.min_positives:
        return f"{num_positives} rows have it; at least {settings.min_positives} are needed"
    if num_rows - num_positives < settings.num_folds:
        return f"all but {num_rows - num_positives} of {num_rows} rows have it"
    return None


def _check_pairs(tag: str, pairs: Comparisons, num_rows: int) -> None:
    both = np.concatenate([pairs.higher, pairs.lower])
    if len(both) and (both.min() < 0 or both.max() >= num_rows):
        raise UserError(f"{tag!r}: pairs name rows {both.min()} to {both.max()} of {num_rows}")
    if (pairs.higher == pairs.lower).any():
        raise UserError(f"{tag!r}: a row is compared with itself")
    if not (np.isfinite(pairs.weight) & (pairs.weight > 0)).all():
        raise UserError(f"{tag!r}: weights of pairs must be positive")


def _solve(
    rows: np.ndarray, signs: np.ndarray, problems: np.ndarray, settings: CAVSettings, *, shared_rows: bool
) -> LogisticSolution:
    """`solve_batch` as arrays of NumPy."""
    rows, signs, problems = (jnp.asarray(x, jnp.float32) for x in (rows, signs, problems))
    penalties = jnp.asarray(settings.penalties, jnp.float32)
    solved = solve_batch(
        rows, signs, problems, penalties, settings.tolerance, settings.max_iterations, shared_rows=shared_rows
    )
    return LogisticSolution(*map(np.asarray, solved))


def _chosen(
    solved: LogisticSolution,
    index: int,
    quality: Sequence[float],
    settings: CAVSettings,
    rows: np.ndarray,
    center: np.ndarray,
    scale: float,
    num_positives: int,
) -> ConceptActivation:
    """The fit to all rows with the penalty of best quality, in the embeddings' own units."""
    best = int(np.argmax(quality))
    gradient_norm = float(solved.gradient_norm[index, best, -1])
    if not gradient_norm <= settings.tolerance:
        raise UserError(
            f"a CAV with penalty {settings.penalties[best]:g} did not converge: relative gradient "
            f"{gradient_norm:.1e} after {settings.max_iterations} steps, tolerance "
            f"{settings.tolerance:.1e}; raise max_iterations, the tolerance or the penalties"
        )
    weights = solved.weights[index, best, -1].astype(np.float64)
    slope = weights[: len(center)] / scale
    norm = np.linalg.norm(weights[: len(center)]) / scale
    direction = slope / norm
    # A ranking has no bias: its zero is the mean score of the rows.
    intercept = weights[-1] / norm if len(weights) > len(center) else 0.0
    return ConceptActivation(
        direction=direction,
        bias=float(intercept - center @ direction),
        spread=float(np.std(rows @ direction) * scale),
        quality=float(quality[best]),
        penalty=settings.penalties[best],
        num_positives=num_positives,
        gradient_norm=gradient_norm,
    )
