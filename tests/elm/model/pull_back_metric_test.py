"""The pull-back metric on a tiny ELM: its Jacobian against differences, its law."""

import jax
import numpy as np
import pytest

from eagle_jax.elm.model.embedding_lm import embedded_logits
from eagle_jax.elm.model.pull_back_metric import (
    expected_output_embedding,
    normalised_metric,
    output_jacobian,
    pull_back_metrics,
)
from tests.elm.model.small_embedding_lm import TABLES, embedded, on_base, small_model

ROWS = (0, 3, 5)
PROMPTS = [embedded("w1 <item> w2", ("semantic", row)) for row in ROWS]
COMPLETIONS = ("w10 w11 w12", "w13", "w14 w15")
g = jax.jit(expected_output_embedding, static_argnames="config")
WIDTH = TABLES["semantic"].shape[1]


@pytest.fixture(scope="module")
def elm(tmp_path_factory):
    """Reads semantic embeddings only."""
    both = on_base(small_model("llama", tmp_path_factory.mktemp("llama")), slot_multiple=1)
    own = {name: {"semantic": both.model.params[name]["semantic"]} for name in ("adapter", "adapter_input")}
    return both.with_params(both.model.params | own)


@pytest.fixture(scope="module")
def batch(elm):
    return elm.encode(PROMPTS, COMPLETIONS)


def test_expected_output_is_the_mean_of_what_each_place_predicts(elm, batch):
    config, params = elm.model.config, elm.model.params
    logits = np.float64(jax.jit(embedded_logits, static_argnums=0)(config, params, batch))
    table = np.float64(params["token_embedding"])
    expected = []
    for row in range(len(ROWS)):
        places = np.flatnonzero(batch.loss_weights[row]) - 1  # what predicts the token behind it
        odds = np.exp(logits[row, places] - logits[row, places].max(axis=1, keepdims=True))
        expected.append((odds / odds.sum(axis=1, keepdims=True) @ table).mean(axis=0))
    np.testing.assert_allclose(g(config, params, batch), expected, rtol=1e-4, atol=1e-7)


def test_jacobian_is_that_of_finite_differences(elm, batch):
    config, params = elm.model.config, elm.model.params
    forward = np.asarray(output_jacobian(config, params, batch))
    assert forward.shape == (len(ROWS), config.hidden_size, WIDTH)
    scale = np.abs(forward).max()
    assert scale > 1e-5
    step, vectors = 0.01, batch.vectors["semantic"]
    for axis in range(WIDTH):
        sides = []
        for sign in (1, -1):
            moved = vectors + sign * step * np.eye(WIDTH, dtype=np.float32)[axis]
            sides.append(np.float64(g(config, params, batch._replace(vectors={"semantic": moved}))))
        slope = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(slope, forward[:, :, axis], atol=3e-3 * scale)


def test_metric_tells_how_far_outputs_move(elm, batch):
    """|g(z + v) - g(z)|^2 is v'Gv tr(J'J) / d for small v, with vectors as they are given."""
    metrics = pull_back_metrics(elm, PROMPTS, COMPLETIONS, ridge=0.0)
    config, params = elm.model.config, elm.model.params
    sizes = np.square(np.float64(output_jacobian(config, params, batch))).sum(axis=(1, 2)) / WIDTH
    step = 0.03 * np.random.default_rng(0).normal(size=(len(ROWS), WIDTH)).astype(np.float32)
    vectors = batch.vectors["semantic"] + step[:, None]
    moved = np.float64(g(config, params, batch._replace(vectors={"semantic": vectors})))
    squares = np.square(moved - np.float64(g(config, params, batch))).sum(axis=1)
    told = np.einsum("bd,bde,be->b", step, metrics, step) * sizes
    np.testing.assert_allclose(squares, told, rtol=0.1)


def test_normalised_metric_keeps_the_mean_length_and_bounds_the_balls():
    rng = np.random.default_rng(0)
    jacobians = rng.normal(size=(5, 7, 4)) * [1.0, 0.1, 0.01, 0.0]
    for ridge in (0.0, 0.01, 0.5):
        made = normalised_metric(1e-3 * jacobians, ridge)
        np.testing.assert_allclose(made, normalised_metric(jacobians, ridge), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(np.trace(made, axis1=1, axis2=2), 4.0)
        directions = rng.normal(size=(20_000, 4))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        squares = np.einsum("nd,bde,ne->bn", directions, made, directions)
        np.testing.assert_allclose(squares.mean(axis=1), 1.0, atol=0.05)
        values = np.linalg.eigvalsh(made)
        assert np.prod(values, axis=1).max() <= 1 + 1e-9
        np.testing.assert_allclose(values[:, 0], ridge / (1 + ridge), atol=1e-6)


def test_where_nothing_moves_the_metric_is_euclidean_and_a_negative_ridge_is_refused():
    np.testing.assert_array_equal(normalised_metric(np.zeros((2, 5, 3)), 0.1), [np.eye(3)] * 2)
    with pytest.raises(ValueError, match="negative, got -1"):
        normalised_metric(np.ones((1, 5, 3)), -1)
