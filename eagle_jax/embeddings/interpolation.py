"""Points between two embeddings: hypothetical items or users (ELM, section 4).

Axis letters: d width of an embedding.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from eagle_jax.base.errors import UserError

How = Literal["linear", "spherical"]
# Of unit vectors: below this their sum is rounding, float32 embeddings included.
_LEAST_SUM = 1e-5


def interpolate(first: np.ndarray, second: np.ndarray, alpha: float, how: How = "linear") -> np.ndarray:
    """The point at `alpha` on the way from `first` (0) to `second` (1), row by row, in float64.

    linear:    (1 - alpha) x + alpha y                      (Tennenholtz et al. 2024, section 4)
    spherical: r (sin((1 - alpha) t) x / |x| + sin(alpha t) y / |y|) / sin(t), t the angle between
               x and y, r = (1 - alpha) |x| + alpha |y|                          (Shoemake 1985)

    Linear is for spaces in which lengths mean something (WALS). Where embeddings have one length
    it cuts through the sphere, and spherical stays on it.

    Args:
      first, second: [..., d], of one shape.

    Raises:
      UserError: another alpha or way; shapes that differ; a vector that is zero or not finite; a
        linear point that is zero, or a spherical way between opposite vectors, which is not one.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim < 1:
        raise UserError(f"interpolation needs two embeddings of one shape, got {first.shape}, {second.shape}")
    if not 0.0 <= alpha <= 1.0:
        raise UserError(f"alpha must lie in [0, 1], got {alpha}: beyond an end is no mixture")
    if how not in ("linear", "spherical"):
        raise UserError(f"no interpolation {how!r}: expected linear or spherical")
    lengths = [np.linalg.norm(end, axis=-1, keepdims=True) for end in (first, second)]
    for name, length in zip(("first", "second"), lengths, strict=True):
        bad = ~(np.isfinite(length) & (length > 0))
        _refuse(bad, f"the {name} embedding is zero or not finite: it is no item and no user")
    x, y = first / lengths[0], second / lengths[1]
    mean_length = (1.0 - alpha) * lengths[0] + alpha * lengths[1]
    if how == "linear":
        point = (1.0 - alpha) * first + alpha * second
        is_zero = np.linalg.norm(point, axis=-1, keepdims=True) < _LEAST_SUM * mean_length
        _refuse(is_zero, f"the embeddings cancel at alpha {alpha}: their mixture is zero")
        return point
    total = np.linalg.norm(x + y, axis=-1, keepdims=True)
    _refuse(total < _LEAST_SUM, "the embeddings are opposite: no way between them is the shortest")
    # Kahan's angle: exact for small ones, where the arc cosine has lost half of its digits.
    angle = 2.0 * np.arctan2(np.linalg.norm(x - y, axis=-1, keepdims=True), total)
    return mean_length * (_share(1.0 - alpha, angle) * x + _share(alpha, angle) * y)


def _share(part: float, angle: np.ndarray) -> np.ndarray:
    """sin(part * angle) / sin(angle), and its limit `part` at angle 0."""
    return part * np.sinc(part * angle / np.pi) / np.sinc(angle / np.pi)


def _refuse(is_bad: np.ndarray, what: str) -> None:
    if is_bad.any():
        rows = np.flatnonzero(is_bad)
        raise UserError(f"row {rows[0]} ({len(rows)} such rows): {what}")
