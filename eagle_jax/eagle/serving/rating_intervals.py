"""What a user would rate a text that nobody has rated, with a split-conformal interval.

    r(u, x) = mu + b_u + b(x) + <z_u, E_D(x)>,  clipped to the scale of the ratings
    interval: r -+ q, clipped too; q is the ceil((n + 1) c)-th smallest |error| of n ratings

(Vovk et al. 2005; Lei et al. 2018). b(x) is linear in E_D(x), fitted to the item biases of WALS. An
interval covers a share c of the ratings that are like those q was taken from: ratings held out of
WALS, of items held out of E_D, which is what a new text is. Those of the validation items give q,
those of the test items say how far it holds.

Axis letters: `B` texts, `N` entities, `U` users, `d` domain width.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from eagle_jax.data.catalogue import RatingTable
from eagle_jax.data.splits import Split
from eagle_jax.embeddings.wals import WALSOutput

COVERAGE = 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatingPredictor:
    """`half_width` is infinite where there were too few ratings to take q from."""

    global_bias: float
    bias_weights: np.ndarray  # [d + 1], the last of a constant
    scale: tuple[float, float]  # the lowest and the highest rating
    half_width: float

    def predict(
        self, embeddings: np.ndarray, user_embeddings: np.ndarray, user_bias: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """E_D of texts [B, d], their users' z_u [B, d] and b_u [B] -> ratings, lower and upper ends [B]."""
        z = np.asarray(embeddings, np.float64)
        bias = z @ self.bias_weights[:-1] + self.bias_weights[-1]
        inner = np.sum(z * np.asarray(user_embeddings, np.float64), axis=1)
        rating = np.clip(self.global_bias + user_bias + bias + inner, *self.scale)
        low, high = (np.clip(rating + sign * self.half_width, *self.scale) for sign in (-1, 1))
        return rating, low, high


def fit_rating_predictor(wals: WALSOutput, embeddings: np.ndarray, split: Split) -> tuple[RatingPredictor, dict]:
    """The predictor, and facts on its intervals: shares and counts of ratings.

    embeddings: E_D of the catalogue's texts [N, d], of an encoder fitted without the split's
    validation and test entities.
    """
    train = split.train
    counts = np.bincount(train.item_index, minlength=len(embeddings))
    held_out = np.concatenate([split.entities["validation"], split.entities["test"]])
    known = np.setdiff1d(np.flatnonzero(counts), held_out)
    inputs = np.column_stack([np.asarray(embeddings, np.float64)[known], np.ones(len(known))])
    weights = np.linalg.lstsq(inputs, np.asarray(wals.item_bias, np.float64)[known])[0]
    predictor = RatingPredictor(
        global_bias=float(wals.global_bias),
        bias_weights=weights,
        scale=(float(train.rating.min()), float(train.rating.max())),
        half_width=math.inf,
    )

    def ratings_of(part: str) -> RatingTable:
        return split.test.take(np.flatnonzero(np.isin(split.test.item_index, split.entities[part])))

    def predicted(ratings: RatingTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        users = ratings.user_index
        of_users = np.asarray(wals.user_embeddings)[users], np.asarray(wals.user_bias)[users]
        return predictor.predict(embeddings[ratings.item_index], *of_users)

    calibration, test = ratings_of("validation"), ratings_of("test")
    errors = np.abs(predicted(calibration)[0] - calibration.rating)
    predictor = dataclasses.replace(predictor, half_width=conformal_quantile(errors, COVERAGE))
    _, low, high = predicted(test)
    covered = (low <= test.rating) & (test.rating <= high)
    return predictor, {
        "coverage": COVERAGE,
        "half_width": predictor.half_width if len(errors) and math.isfinite(predictor.half_width) else None,
        "num_calibration_ratings": len(calibration),
        "test_coverage": float(covered.mean()) if len(test) else None,
        "num_test_ratings": len(test),
    }


def conformal_quantile(errors: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest of n errors; infinity where there are too few."""
    rank = math.ceil((len(errors) + 1) * coverage - 1e-9)
    return float(np.sort(errors)[rank - 1]) if 1 <= rank <= len(errors) else math.inf
