"""The plane of two leading principal directions, on which embeddings of any width can be drawn.

Axis letters: `N` entities, `d` domain width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class PrincipalPlane(NamedTuple):
    """Of some embeddings: their mean [d], two orthonormal directions [2, d], and the shares of variance along them."""

    mean: np.ndarray
    axes: np.ndarray
    explained_variance: np.ndarray

    def project(self, embeddings: np.ndarray) -> np.ndarray:
        """Embeddings [N, d] -> places on the plane [N, 2]."""
        return (embeddings - self.mean) @ self.axes.T


def fit_principal_plane(embeddings: np.ndarray) -> PrincipalPlane:
    """Of embeddings [N, d]; of each direction the entry of largest size is positive, so that the plane is always the
    same way round."""
    mean = embeddings.mean(axis=0)
    _, scales, directions = np.linalg.svd(embeddings - mean, full_matrices=False)
    axes = directions[:2]
    axes = axes * np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])[:, None]
    return PrincipalPlane(mean, axes, scales[:2] ** 2 / (scales**2).sum())
