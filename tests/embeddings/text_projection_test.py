"""The projection against scikit-learn's discriminant analysis; laws; a style that hides content."""

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.embeddings.text_projection import fit_text_projection


def texts_in_styles(seed, num_items, num_features=12, content=3):
    """[V, N, F]: small content, shared by an item's texts, under a large style of each text."""
    rng = np.random.default_rng(seed)
    maps = np.random.default_rng(0).normal(size=(content + 2, num_features))
    told = rng.normal(size=(num_items, content)) @ maps[:content]
    style = 10 * rng.normal(size=(4, num_items, 2)) @ maps[content:]
    return told + style + 0.05 * rng.normal(size=(4, num_items, num_features))


def cosines(rows):
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows @ rows.T


def test_matches_scikit_learn():
    discriminant = pytest.importorskip("sklearn.discriminant_analysis")
    features = texts_in_styles(1, 30)
    peer = discriminant.LinearDiscriminantAnalysis(solver="eigen", n_components=5)
    flat, labels = features.reshape(-1, 12), np.tile(np.arange(30), 4)
    expected = peer.fit(flat, labels).transform(flat)
    made = fit_text_projection(features, 5, 0.0)(flat)
    np.testing.assert_allclose(np.abs(made), np.abs(expected - expected.mean(0)), rtol=1e-6)


def test_texts_of_one_held_out_item_agree_where_their_features_do_not():
    projection = fit_text_projection(texts_in_styles(2, 80), 3, 1e-4)
    first, second = texts_in_styles(3, 20)[:2]
    raw = np.diag(cosines(np.concatenate([first, second]))[:20, 20:])
    own = cosines(np.concatenate([projection(first), projection(second)]))[:20, 20:]
    assert np.abs(raw).mean() > 0.3 > raw.mean()  # styles agree or oppose each other by chance
    assert np.diag(own).mean() > 0.98
    assert (own.argmax(axis=1) == np.arange(20)).mean() > 0.9


def test_laws():
    features = texts_in_styles(4, 40)
    projection = fit_text_projection(features, 4, 0.0)
    np.testing.assert_allclose(projection(features).mean(axis=(0, 1)), 0.0, atol=1e-8)
    residual = projection(features - features.mean(0) + projection.center).reshape(-1, 4)
    np.testing.assert_allclose(residual.T @ residual / len(residual), np.eye(4), atol=1e-7)
    # Units of the features mean nothing.
    scales = np.exp(np.random.default_rng(5).normal(size=12))
    scaled = fit_text_projection(scales * features + 3.0, 4, 0.0)(scales * features + 3.0)
    np.testing.assert_allclose(np.abs(scaled), np.abs(projection(features)), rtol=1e-5, atol=1e-7)


def test_faults_are_named():
    features = texts_in_styles(6, 5)
    with pytest.raises(UserError, match="at least two texts"):
        fit_text_projection(features[:1], 2, 0.1)
    with pytest.raises(UserError, match="width 5 is not between 1 and 4"):
        fit_text_projection(features, 5, 0.1)
    with pytest.raises(UserError, match="raise shrinkage"):
        fit_text_projection(np.broadcast_to(features[:1], features.shape), 2, 0.0)
    features[1, 2, 3] = np.nan
    with pytest.raises(UserError, match="1 texts have no features"):
        fit_text_projection(features, 2, 0.1)
