"""E_A against NumPy in float64, the scale it starts at, and rows that it cannot read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from eagle_jax.elm.model.adapter import (
    EmbeddingError,
    apply_adapter,
    bad_rows,
    check_embeddings,
    init_adapter,
    input_statistics,
    standardise,
    unchanged_input,
)


def test_it_is_a_two_layer_perceptron_with_gelu_between():
    rng = np.random.default_rng(0)
    shapes = {"up": ((3, 5), (5,)), "down": ((5, 4), (4,))}
    params = {
        layer: dict(zip(("kernel", "bias"), (np.float32(rng.normal(size=s)) for s in both), strict=True))
        for layer, both in shapes.items()
    }
    inputs = np.float32(rng.normal(size=(2, 7, 3)))
    exact = jax.tree.map(np.float64, params)
    inner = np.float64(inputs) @ exact["up"]["kernel"] + exact["up"]["bias"]
    expected = (inner * norm.cdf(inner)) @ exact["down"]["kernel"] + exact["down"]["bias"]
    found = apply_adapter(params, inputs)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    np.testing.assert_allclose(apply_adapter(params, inputs[0, 0]), found[0, 0], atol=1e-6)


@pytest.mark.parametrize("width", [2, 8, 384])
def test_it_starts_at_the_scale_of_token_embeddings(width):
    params = init_adapter(jax.random.key(width), width, 256, 64, 0.03)
    embeddings = np.random.default_rng(0).normal(5.0, 3.0, (500, width)).astype(np.float32)
    outputs = apply_adapter(params, standardise(input_statistics(embeddings), embeddings))
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(outputs))), 0.03, rtol=0.2)
    assert jnp.std(outputs, axis=0).min() > 0.003  # which embedding it was can be told


def test_statistics_are_those_of_the_catalogue_and_constant_coordinates_stay_put():
    embeddings = np.array([[1.0, 0.1, 0.0], [3.0, 0.1, 0.0], [5.0, 0.1, 0.0]], np.float32)
    statistics = input_statistics(embeddings)
    np.testing.assert_allclose(statistics["mean"], [3.0, 0.1, 0.0])
    np.testing.assert_allclose(statistics["scale"], [np.sqrt(8 / 3), 1.0, 1.0], rtol=1e-6)
    spread = np.sqrt(1.5)
    np.testing.assert_allclose(
        standardise(statistics, embeddings), [[-spread, 0, 0], [0, 0, 0], [spread, 0, 0]], atol=1e-6
    )
    np.testing.assert_array_equal(standardise(unchanged_input(3), embeddings), embeddings)


def test_bad_rows_are_told_and_refused():
    embeddings = np.array([[1, 2], [0, 0], [np.nan, 1], [3, np.inf], [0, 1]], np.float32)
    assert bad_rows(embeddings) == {"not finite": [2, 3], "all zeros": [1]}
    assert bad_rows(embeddings[[0, 4]]) == {}
    with pytest.raises(EmbeddingError, match=r"film 2 \(and 1 more\): the embedding is not finite"):
        check_embeddings(embeddings, 2, "film {}")
    with pytest.raises(EmbeddingError, match="film 1: the embedding is all zeros"):
        check_embeddings(embeddings[:2], 2, "film {}")
    with pytest.raises(EmbeddingError, match="width 2, but the adapter reads width 3"):
        check_embeddings(embeddings, 3, "film {}")
    with pytest.raises(EmbeddingError, match=r"expected embeddings \[N, d\], got the shape \(0, 2"):
        input_statistics(embeddings[:0])
