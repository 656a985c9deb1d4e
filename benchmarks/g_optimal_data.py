"""Problems of the benchmark: candidates' embeddings as they come, and two awkward kinds.

All entries are float32 numbers held in float64, so that both precisions get the same problems.

Axis letters: B problems, K candidates, d domain width.
"""

from __future__ import annotations

import numpy as np

_NUM_CLUSTERS = 10


def gaussian(generator: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Independent normal entries: no direction is special."""
    return generator.standard_normal(shape)


def clustered(generator: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Ten centres and a tenth of their spread around them: near-duplicates."""
    num_problems, num_candidates, width = shape
    centres = generator.standard_normal((num_problems, _NUM_CLUSTERS, width))
    of_candidate = generator.integers(_NUM_CLUSTERS, size=(num_problems, num_candidates))
    near = np.take_along_axis(centres, of_candidate[:, :, None], axis=1)
    return near + 0.1 * generator.standard_normal(shape)


def sentence_like(generator: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Unit vectors about a common direction, the i-th coordinate's spread falling as 1 / sqrt(i).

    So are sentence embeddings: their cosines are high, and few directions carry most variance.
    """
    num_problems, _, width = shape
    spread = 1.0 / np.sqrt(1.0 + np.arange(width))
    rows = spread * generator.standard_normal(shape)
    common = generator.standard_normal((num_problems, 1, width))
    common *= np.linalg.norm(spread) / np.linalg.norm(common, axis=-1, keepdims=True)
    rows += common
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def ill_conditioned(generator: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Gaussian rows with singular values replaced by a geometric sequence from 1 to 1e-3."""
    left, _, right = np.linalg.svd(generator.standard_normal(shape), full_matrices=False)
    return (left * np.geomspace(1.0, 1e-3, left.shape[-1])) @ right


DATASETS = {
    "gaussian": gaussian,
    "clustered": clustered,
    "sentence-like": sentence_like,
    "condition 1e3": ill_conditioned,
}


def problems(dataset: str, num_problems: int, num_candidates: int, width: int, seed: int) -> np.ndarray:
    """[B, K, d] float64, exactly representable in float32; the same for the same arguments."""
    generator = np.random.default_rng([seed, width, list(DATASETS).index(dataset)])
    rows = DATASETS[dataset](generator, (num_problems, num_candidates, width))
    return rows.astype(np.float32).astype(np.float64)


def orthonormal_coordinates(rows: np.ndarray, max_rank: int | None) -> np.ndarray:
    """[B, K, r]: rows [B, K, d] in coordinates along their r leading directions, whitened.

    An invertible change of basis changes no leverage, so these are the raw rows (with max_rank:
    their projection) to a certificate; and they are what the peers are given.
    """
    left, singular_values, _ = np.linalg.svd(rows, full_matrices=False)
    rank = min(*rows.shape[1:], max_rank or rows.shape[2])
    if not np.all(singular_values[:, rank - 1] > 1e-5 * singular_values[:, 0]):
        raise ValueError(f"a problem of shape {rows.shape[1:]} has a rank below {rank}")
    return left[:, :, :rank]


def true_gaps(coordinates: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[B]: max_a z_a' M(q)^-1 z_a / r - 1 of weights [B, K], by LU in float64; nan stays nan."""
    weights = weights.astype(np.float64) / np.sum(weights, axis=1, keepdims=True, dtype=np.float64)
    transposed = coordinates.swapaxes(1, 2)
    information_matrix = transposed @ (weights[:, :, None] * coordinates)
    solved = np.linalg.solve(information_matrix, transposed)
    variance = np.sum(transposed * solved, axis=1)
    return np.max(variance, axis=1) / coordinates.shape[2] - 1.0
