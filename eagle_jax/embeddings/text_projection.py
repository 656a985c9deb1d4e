"""A semantic space in which texts about one item agree, made from features of any model.

Features of a language model's states tell style before content: the telling of a film and its
review are far apart, two films in one dialect near. The projection is Fisher's linear discriminant
with items as classes: for x_vi, the features of text v about item i,

    S_w = mean_vi (x_vi - m_i)(x_vi - m_i)',   S_b = mean_i (m_i - m)(m_i - m)',
    maximise  tr(L' S_b L)  with  L' (S_w + shrinkage tr(S_w) / F I) L = I.

An item's semantic embedding is the mean over its texts (Tennenholtz et al. 2024, section 3.1).

Axis letters: V texts of an item, N items, F features, d width of the space.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg

from eagle_jax.base.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class TextProjection:
    """L' (x - m); center: m [F], matrix: L [F, d]."""

    center: np.ndarray
    matrix: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """[..., F] -> [..., d] float64."""
        return (np.asarray(features, np.float64) - self.center) @ self.matrix


def fit_text_projection(features: np.ndarray, width: int, shrinkage: float) -> TextProjection:
    """The projection of the training items' texts (module docstring), best directions first.

    Args:
      features: [V, N, F], the same kinds of text of every item.
      shrinkage: 0 needs as many texts as features.

    Raises:
      UserError: fewer than two texts of an item, a width that N items or F features cannot give,
        features that are not finite, texts that do not differ within items.
    """
    features = np.asarray(features, np.float64)
    num_texts, num_items, num_features = features.shape
    if num_texts < 2:
        raise UserError(f"each item needs at least two texts to learn what they share: {num_texts}")
    if not 1 <= width <= min(num_items - 1, num_features):
        raise UserError(
            f"width {width} is not between 1 and {min(num_items - 1, num_features)}: there are "
            f"{num_items} items and {num_features} features"
        )
    if not np.isfinite(features).all():
        raise UserError(f"{(~np.isfinite(features)).any(axis=-1).sum()} texts have no features")
    means = features.mean(axis=0)
    center = means.mean(axis=0)
    residual = (features - means).reshape(-1, num_features)
    within = residual.T @ residual / len(residual)
    between = (means - center).T @ (means - center) / num_items
    within[np.diag_indices(num_features)] += shrinkage * np.trace(within) / num_features
    last = (num_features - width, num_features - 1)
    try:
        _, vectors = scipy.linalg.eigh(between, within, subset_by_index=last)
    except np.linalg.LinAlgError as error:
        raise UserError("the texts of an item differ in too few directions: raise shrinkage") from error
    return TextProjection(center, vectors[:, ::-1])
