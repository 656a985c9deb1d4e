"""The pull-back metric of an ELM: how far what it writes moves when its input embedding moves.

Tennenholtz et al. 2024 (EAGLE), section 2: a decoder g of Jacobian J makes a metric J'J of the
domain space. Axes: B batch, T tokens, V vocabulary, d domain width, D model width.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.elm.model.embedding_lm import EmbeddingLM, embedded_logits
from eagle_jax.elm.model.prompts import EmbeddedBatch, EmbeddedPrompt
from eagle_jax.language_model.decoder.config import DecoderConfig
from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.sharding import fetch, on_mesh_of


def expected_output_embedding(config: DecoderConfig, params: Params, batch: EmbeddedBatch) -> jax.Array:
    """g [B, D]: the mean over a completion's tokens of sum_v p(v | what stands before) e_v.

    e_v are the decoder's own token embeddings; what stands before is the prompt with its vectors
    and the completion up to there, kept as it is.
    """
    probabilities = jax.nn.softmax(embedded_logits(config, params, batch)[:, :-1])
    weights = batch.loss_weights[:, 1:]
    expected = jnp.einsum("btv,bt->bv", probabilities, weights)
    expected @= params["token_embedding"].astype(jnp.float32)
    return expected / jnp.sum(weights, axis=1, keepdims=True)


@functools.partial(jax.jit, static_argnames="config")
def output_jacobian(config: DecoderConfig, params: Params, batch: EmbeddedBatch) -> jax.Array:
    """J = dg/dz [B, D, d] of prompts with one vector each: d directional derivatives, forward."""
    ((kind, vectors),) = batch.vectors.items()
    chex.assert_axis_dimension(vectors, 1, 1)

    def g(vectors: jax.Array) -> jax.Array:
        spliced = batch._replace(vectors={kind: vectors})
        return expected_output_embedding(config, params, spliced)

    def column(direction: jax.Array) -> jax.Array:
        moved = jnp.broadcast_to(direction[None, None], vectors.shape)
        return jax.jvp(g, (vectors,), (moved,))[1]

    return jnp.moveaxis(jax.vmap(column)(jnp.eye(vectors.shape[2])), 0, 2)


def normalised_metric(jacobians: np.ndarray, ridge: float) -> np.ndarray:
    """G = d M / tr M of M = J'J + ridge (tr J'J / d) I, [B, D, d] -> [B, d, d] in float64.

    J's unit is the decoder's own, so only the shape of J'J can be kept. With tr G = d, as of the
    Euclidean metric I, the mean of v'Gv over unit vectors v is 1: a radius means the same length in
    a direction drawn at random, and the volume of a ball is at least that of the Euclidean one
    (det G <= 1). The ridge bounds a ball: no half-axis is beyond radius sqrt((1 + ridge) / ridge).
    Where J is zero, G is I. Raises ValueError for a negative ridge.
    """
    if ridge < 0:
        raise ValueError(f"the ridge of a metric must not be negative, got {ridge}")
    jacobians = np.asarray(jacobians, np.float64)
    products = np.einsum("bia,bic->bac", jacobians, jacobians)
    identity = np.eye(products.shape[1])[None]
    sizes = np.trace(products, axis1=1, axis2=2)[:, None, None] / products.shape[1]
    shapes = np.where(sizes > 0, products / np.where(sizes > 0, sizes, 1), identity)
    return (shapes + ridge * identity) / (1 + ridge)


def pull_back_metrics(
    elm: EmbeddingLM, prompts: Sequence[EmbeddedPrompt], completions: Sequence[str | Sequence[int]], ridge: float
) -> np.ndarray:
    """`normalised_metric` [B, d, d] at each prompt's one vector, along its completion."""
    jacobians = []
    for start in range(0, len(prompts), elm.batch_size):
        rows = slice(start, start + elm.batch_size)
        batch = elm.encode(prompts[rows], completions[rows])
        with on_mesh_of(elm.model.params):
            made = output_jacobian(elm.model.config, elm.model.params, batch)
            jacobians.append(np.asarray(fetch(made)))
    return normalised_metric(np.concatenate(jacobians), ridge)
