"""The adapter E_A of ELM: from domain embeddings to the space of token embeddings.

Tennenholtz et al. 2024 (ELM), section 2, "Architecture", and section 5: a two-layer MLP.
Axes: N embeddings, d domain width, M hidden width, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.language_model.decoder.transformer import Params

_GELU_POWER = 0.42513  # E[gelu(x)^2] of x ~ N(0, 1)


class EmbeddingError(UserError):
    """A domain embedding cannot be read: its width is wrong, it is zero, NaN or infinite."""


def init_adapter(key: jax.Array, input_width: int, hidden_width: int, output_width: int, output_scale: float) -> Params:
    """{up, down: {kernel, bias}}; for standardised embeddings the outputs' root mean square is
    about `output_scale` (that of token embeddings). The key is consumed."""
    up_key, down_key = jax.random.split(key)
    up = jax.random.normal(up_key, (input_width, hidden_width)) / math.sqrt(input_width)
    down = jax.random.normal(down_key, (hidden_width, output_width))
    down = down * output_scale / math.sqrt(hidden_width * _GELU_POWER)
    return {
        "up": {"kernel": up, "bias": jnp.zeros(hidden_width)},
        "down": {"kernel": down, "bias": jnp.zeros(output_width)},
    }


def apply_adapter(params: Params, embeddings: jax.Array) -> jax.Array:
    """E_A(w) = gelu(w W_up + b_up) W_down + b_down: standardised [..., d] -> [..., D]."""
    flat = embeddings.reshape(-1, embeddings.shape[-1])
    hidden = flat @ params["up"]["kernel"] + params["up"]["bias"][None]
    outputs = jax.nn.gelu(hidden) @ params["down"]["kernel"]
    outputs += params["down"]["bias"][None]
    return outputs.reshape(*embeddings.shape[:-1], outputs.shape[-1])


def input_statistics(embeddings: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and scale (standard deviation; 1 where a coordinate is constant) [d] of a catalogue's
    embeddings [N, d]: what `standardise` takes. Raises EmbeddingError that names a bad row."""
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or not len(embeddings):
        raise EmbeddingError(f"expected embeddings [N, d], got the shape {embeddings.shape}")
    check_embeddings(embeddings, embeddings.shape[1], "row {}")
    exact = embeddings.astype(np.float64)
    deviation = exact.std(axis=0)
    # Of a constant coordinate only rounding is left.
    is_constant = deviation <= 1e-6 * np.abs(exact).max(axis=0)
    return {
        "mean": exact.mean(axis=0).astype(np.float32),
        "scale": np.where(is_constant, 1.0, deviation).astype(np.float32),
    }


def unchanged_input(width: int) -> dict[str, np.ndarray]:
    """Statistics that leave embeddings [..., d] as they are."""
    return {"mean": np.zeros(width, np.float32), "scale": np.ones(width, np.float32)}


def standardise(statistics: Mapping[str, jax.Array], embeddings: jax.Array) -> jax.Array:
    """(w - mean) / scale, [..., d]."""
    leading = (1,) * (embeddings.ndim - 1)
    mean, scale = (statistics[name].reshape(*leading, -1) for name in ("mean", "scale"))
    return (embeddings - mean) / scale


def bad_rows(embeddings: np.ndarray) -> dict[str, list[int]]:
    """Rows of embeddings [N, d] that say nothing, by fault: "not finite" or "all zeros".

    For data: count them, report them and leave them out.
    """
    is_finite = np.isfinite(embeddings).all(axis=1)
    is_zero = ~np.asarray(embeddings, bool).any(axis=1)
    faults = {"not finite": ~is_finite, "all zeros": is_zero}
    return {fault: np.flatnonzero(rows).tolist() for fault, rows in faults.items() if rows.any()}


def check_embeddings(embeddings: np.ndarray, width: int, named: str) -> None:
    """Raises EmbeddingError for the first of embeddings [N, d] that an adapter cannot read.

    `named` says which one it is: a text with {} where the row's number goes.
    """
    if embeddings.shape[1] != width:
        raise EmbeddingError(
            f"{named.format(0)}: an embedding of width {embeddings.shape[1]}, but the adapter reads width {width}"
        )
    for fault, rows in bad_rows(embeddings).items():
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        raise EmbeddingError(f"{named.format(rows[0])}{more}: the embedding is {fault}; leave such rows out")
