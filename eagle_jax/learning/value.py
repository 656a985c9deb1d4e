"""The learned value baseline: a small network over features of a state, and running statistics.

Axis letters: `B` states, `F` features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class RunningStatistics(NamedTuple):
    """Count [], mean and sum of squared deviations of all rows seen so far."""

    count: jax.Array
    mean: jax.Array
    squared_deviations: jax.Array


def no_statistics(shape: tuple[int, ...]) -> RunningStatistics:
    """Nothing seen yet of values of this shape."""
    return RunningStatistics(jnp.zeros(()), jnp.zeros(shape), jnp.zeros(shape))


def update_statistics(statistics: RunningStatistics, rows: jax.Array) -> RunningStatistics:
    """Adds rows [B, ...] (Chan et al. 1983, equation 2.1)."""
    num_rows = rows.shape[0]
    count = statistics.count + num_rows
    mean = jnp.mean(rows, axis=0)
    difference = mean - statistics.mean
    return RunningStatistics(
        count,
        statistics.mean + difference * num_rows / count,
        statistics.squared_deviations
        + jnp.sum(jnp.square(rows - mean[None]), axis=0)
        + jnp.square(difference) * statistics.count * num_rows / count,
    )


def deviation(statistics: RunningStatistics) -> jax.Array:
    """Standard deviation; 1 where nothing varies, so that one can divide by it."""
    variance = statistics.squared_deviations / jnp.maximum(statistics.count, 1.0)
    return jnp.where(variance > 1e-12, jnp.sqrt(variance), 1.0)


def init_value(key: jax.Array, num_inputs: int, hidden: Sequence[int]) -> list[dict]:
    """He-normal layers, the last one zeros: V begins as the mean return. The key is consumed."""
    widths = (num_inputs, *hidden)
    keys = jax.random.split(key, len(hidden))
    params = [
        {
            "kernel": jax.random.normal(layer_key, (inputs, outputs)) * (2.0 / inputs) ** 0.5,
            "bias": jnp.zeros((outputs,)),
        }
        for layer_key, inputs, outputs in zip(keys, widths[:-1], widths[1:], strict=True)
    ]
    return [*params, {"kernel": jnp.zeros((widths[-1], 1)), "bias": jnp.zeros((1,))}]


def apply_value(params: list[dict], inputs: jax.Array) -> jax.Array:
    """Standardised values [B] of inputs [B, F]."""
    hidden = inputs
    for layer in params[:-1]:
        hidden = jax.nn.relu(hidden @ layer["kernel"] + layer["bias"][None])
    return (hidden @ params[-1]["kernel"] + params[-1]["bias"][None])[:, 0]
