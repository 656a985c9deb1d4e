"""The plane against scikit-learn's PCA."""

import numpy as np
import pytest

from eagle_jax.reports.principal_plane import fit_principal_plane


def test_it_is_that_of_the_first_two_principal_components():
    decomposition = pytest.importorskip("sklearn.decomposition")
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5)
    others = rng.normal(size=(7, 5))
    theirs = decomposition.PCA(n_components=2, svd_solver="full").fit(embeddings)
    plane = fit_principal_plane(embeddings)
    signs = np.sign((plane.axes * theirs.components_).sum(axis=1))
    for points in (embeddings, others):
        np.testing.assert_allclose(plane.project(points), theirs.transform(points) * signs, atol=1e-9)
    np.testing.assert_allclose(plane.explained_variance, theirs.explained_variance_ratio_)
    assert all(axis[np.abs(axis).argmax()] > 0 for axis in plane.axes)
