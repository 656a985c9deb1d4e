"""What a design is worth, by NumPy in float64 from the raw rows: the judge of all design tests."""

import numpy as np

from eagle_jax.design.g_optimal import GOptimalSettings

METHODS = {
    "interior_point": GOptimalSettings(max_approximation_factor=1.0005, rank_tolerance=1e-4),
    "frank_wolfe": GOptimalSettings(
        method="frank_wolfe", max_approximation_factor=1.0005, max_iterations=4000, rank_tolerance=1e-4
    ),
    "multiplicative": GOptimalSettings(
        method="multiplicative", max_approximation_factor=1.0005, max_iterations=20000, rank_tolerance=1e-4
    ),
}


def true_variance(rows, weights, rank_tolerance=1e-6):
    """z_a' M(q)^+ z_a [K] on the leading directions of the rows, and their number."""
    rows = np.asarray(rows, np.float64)
    weights = np.asarray(weights, np.float64)
    _, singular_values, directions = np.linalg.svd(rows, full_matrices=False)
    rank = int((singular_values > rank_tolerance * singular_values[0]).sum())
    white = rows @ directions[:rank].T / singular_values[:rank]
    matrix = white.T @ (weights[:, None] * white) / weights.sum()
    return np.einsum("ki,ij,kj->k", white, np.linalg.inv(matrix), white), rank


def true_factor(rows, weights, rank_tolerance=1e-6):
    """max variance / rank."""
    variance, rank = true_variance(rows, weights, rank_tolerance)
    return variance.max() / rank
