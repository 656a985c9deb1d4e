"""The learned value baseline: a small network over features of a state, and running statistics.

It reads standardised features and how far the episode is, and predicts standardised returns, so
that one learning rate suits any utility.

Axis letters: `E` episodes, `H` horizon, `F` features, `B` rows.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from eagle_jax.base.settings import setting, settings
from eagle_jax.learning.losses import value_loss
from eagle_jax.learning.optimizers import make_optimizer

# Equal float32 numbers have a deviation of up to 7e-7 of their size, by the rounding of their mean.
_ROUNDING = 2.0**-19


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


def deviation(statistics: RunningStatistics, of_constants: float = 1.0) -> jax.Array:
    """Standard deviation; `of_constants` where nothing varies, so that one can divide by it."""
    variance = statistics.squared_deviations / jnp.maximum(statistics.count, 1.0)
    is_constant = variance <= jnp.square(_ROUNDING * statistics.mean)
    return jnp.where(is_constant, of_constants, jnp.sqrt(variance))


def standardize(values: jax.Array, size: jax.Array) -> jax.Array:
    """(values - mean) / deviation; 0 where they differ by no more than rounding.

    size: of the numbers of which the values are differences.
    """
    spread = jnp.std(values)
    is_constant = spread <= _ROUNDING * size
    return (values - jnp.mean(values)) / jnp.where(is_constant, jnp.inf, spread + 1e-8)


def _standard(statistics: RunningStatistics, rows: jax.Array) -> jax.Array:
    """(rows - mean) / deviation [B, ...]; 0 where nothing varies: rounding is nothing to learn."""
    return (rows - statistics.mean[None]) / deviation(statistics, jnp.inf)[None]


@settings
class ValueSettings:
    """The value network and its training."""

    value_hidden: tuple[int, ...] = setting("Hidden units of each layer.", at_least=1, may_be_empty=True)
    value_learning_rate: float = setting("Adam's, of the value network.", above=0)
    value_updates: int = setting("Gradient steps of that network in an iteration.", at_least=1)


class ValueState(NamedTuple):
    """The network, its optimiser, and statistics of all features [F] and returns [] so far."""

    params: list[dict]
    optimizer_state: optax.OptState
    features: RunningStatistics
    returns: RunningStatistics


def init_value(key: jax.Array, num_features: int, settings: ValueSettings) -> ValueState:
    """He-normal layers, the last one zeros: V begins as the mean return. The key is consumed."""
    widths = (num_features + 1, *settings.value_hidden)
    keys = jax.random.split(key, len(settings.value_hidden))
    params = [
        {
            "kernel": jax.random.normal(layer_key, (inputs, outputs)) * (2.0 / inputs) ** 0.5,
            "bias": jnp.zeros((outputs,)),
        }
        for layer_key, inputs, outputs in zip(keys, widths[:-1], widths[1:], strict=True)
    ]
    params.append({"kernel": jnp.zeros((widths[-1], 1)), "bias": jnp.zeros((1,))})
    return ValueState(
        params,
        make_optimizer(settings.value_learning_rate).init(params),
        no_statistics((num_features,)),
        no_statistics(()),
    )


def observe(state: ValueState, features: jax.Array, returns: jax.Array) -> ValueState:
    """With features [E, H, F] and returns [E] in its statistics.

    With an iteration's own in them the untrained V is already their mean.
    """
    rows = features.reshape(-1, features.shape[-1])
    return state._replace(
        features=update_statistics(state.features, rows), returns=update_statistics(state.returns, returns)
    )


def predict(state: ValueState, features: jax.Array) -> jax.Array:
    """V [E, H] of features [E, H, F], in units of the return."""
    standard = _apply(state.params, _inputs(state, features)).reshape(features.shape[:2])
    return state.returns.mean + deviation(state.returns) * standard


def fit(
    state: ValueState, settings: ValueSettings, features: jax.Array, returns: jax.Array
) -> tuple[ValueState, jax.Array]:
    """`value_updates` steps of regression on returns [E, H], and the loss [] before the first."""
    inputs = _inputs(state, features)
    targets = _standard(state.returns, returns.reshape(-1))
    optimizer = make_optimizer(settings.value_learning_rate)

    def step(carry, _):
        params, optimizer_state = carry
        loss, gradients = jax.value_and_grad(lambda params: value_loss(_apply(params, inputs), targets))(params)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state)
        return (optax.apply_updates(params, updates), optimizer_state), loss

    carry = (state.params, state.optimizer_state)
    (params, optimizer_state), losses = jax.lax.scan(step, carry, length=settings.value_updates)
    return state._replace(params=params, optimizer_state=optimizer_state), losses[0]


def _inputs(state: ValueState, features: jax.Array) -> jax.Array:
    """[E, H, F] -> [E H, F + 1]: standardised, and the share of the episode that is over."""
    num_episodes, horizon, num_features = features.shape
    rows = features.reshape(-1, num_features)
    step_share = jnp.tile(jnp.arange(horizon) / horizon, num_episodes)
    return jnp.concatenate([_standard(state.features, rows), step_share[:, None]], axis=1)


def _apply(params: list[dict], inputs: jax.Array) -> jax.Array:
    """Standardised values [B] of inputs [B, F + 1]."""
    hidden = inputs
    for layer in params[:-1]:
        hidden = jax.nn.relu(hidden @ layer["kernel"] + layer["bias"][None])
    return (hidden @ params[-1]["kernel"] + params[-1]["bias"][None])[:, 0]
