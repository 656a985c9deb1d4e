"""Regression from features to embeddings: ridge in closed form, or one hidden layer.

Axis letters: `N` examples, `F` features, `d` embedding width, `P` penalties, `B` batch.

Both minimise sum_n w_n ||y_n - h(x_n)||_2^2 / sum_n w_n over standardised features: "ridge" plus
penalty * ||weights||^2, the penalty chosen on a validation split and the head refitted on
everything; "mlp" with AdamW, dropout, and early stopping on the validation split.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eagle_jax.base.settings import setting, settings

Layers = tuple[tuple[jax.Array, jax.Array], ...]


@settings
class DomainEncoderSettings:
    """A head on frozen features; what follows `penalties` is for mlp."""

    head: Literal["ridge", "mlp"] = setting("Affine, or with one hidden layer.")
    validation_fraction: float = setting("Of the examples.", above=0, below=1)
    penalties: tuple[float, ...] = setting(
        "Ridge penalties to choose from; features have unit variance, so 1e-3 to 100.", above=0
    )
    hidden_width: int = setting("Hidden units.", at_least=1)
    dropout_rate: float = setting("Of hidden units.", at_least=0, below=1)
    learning_rate: float = setting("AdamW's.", above=0)
    weight_decay: float = setting("AdamW's.", at_least=0)
    batch_size: int = setting("Examples of an optimiser step.", at_least=1)
    max_epochs: int = setting("Passes over the examples at most.", at_least=1)
    patience: int = setting("Stop after so many without a better validation error.", at_least=0, unit="epochs")


class RegressionHead(NamedTuple):
    """h(x): standardise, then affine layers with gelu between them."""

    feature_mean: jax.Array  # [F]
    feature_scale: jax.Array  # [F]
    layers: Layers  # (weights [in, out], bias [out]) each


class HeadFit(NamedTuple):
    """A fitted head and the share of the validation split's variance it left (1 - R^2)."""

    head: RegressionHead
    validation_errors: jax.Array  # [P] by penalty, or [max_epochs] by epoch, nan once stopped


@jax.jit
def apply_regression_head(head: RegressionHead, features: jax.Array) -> jax.Array:
    """Features [B, F] -> embeddings [B, d]."""
    standardized = (features - head.feature_mean[None]) / head.feature_scale[None]
    return _apply_layers(head.layers, standardized)


def fit_head(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, settings: DomainEncoderSettings, key: jax.Array
) -> HeadFit:
    """Fit targets [N, d] to features [N, F] with weights [N]; the key is consumed.

    Raises ValueError on weights that are negative or all zero, and where the validation split or
    what it leaves is empty.
    """
    num_validation = _num_validation(settings, len(features))
    if np.any(np.asarray(weights) < 0) or not np.sum(weights) > 0:
        raise ValueError("weights must be at least 0, and one of them positive")
    split_key, training_key = jax.random.split(key)
    order = np.asarray(jax.random.permutation(split_key, len(features)))
    data = tuple(jnp.asarray(array, jnp.float32) for array in (features, targets, weights))
    validation = tuple(array[order[:num_validation]] for array in data)
    training = tuple(array[order[num_validation:]] for array in data)
    if settings.head == "mlp":
        fit = _fit_mlp(training, validation, training_key, settings)
    else:
        penalties = jnp.asarray(settings.penalties, jnp.float32)
        errors = jax.lax.map(partial(_error, data=validation), _fit_ridge(training, penalties))
        refitted = _fit_ridge(data, penalties[jnp.nanargmin(errors)][None])
        fit = HeadFit(jax.tree.map(lambda leaf: leaf[0], refitted), errors)
    if not np.any(np.isfinite(fit.validation_errors)):
        raise ValueError(
            f"no {settings.head} head has a finite validation error: features, targets and weights "
            "must be finite, the validation targets must differ, the learning rate be small enough"
        )
    return fit


def _num_validation(settings: DomainEncoderSettings, num_examples: int) -> int:
    num_validation = round(settings.validation_fraction * num_examples)
    if not 0 < num_validation < num_examples:
        raise ValueError(
            f"{num_examples} examples are too few for validation_fraction "
            f"{settings.validation_fraction}: {num_validation} for validation"
        )
    if settings.head == "mlp" and settings.batch_size > num_examples - num_validation:
        raise ValueError(
            f"batch_size is {settings.batch_size}; only {num_examples - num_validation} examples are left for training"
        )
    return num_validation


def _apply_layers(layers: Layers, values: jax.Array, dropout=lambda hidden: hidden) -> jax.Array:
    for weights, bias in layers[:-1]:
        values = dropout(jax.nn.gelu(values @ weights + bias[None]))
    weights, bias = layers[-1]
    return values @ weights + bias[None]


def _weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.sum(values * weights[:, None], axis=0) / jnp.sum(weights)


def _moments(values: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and scale by column; a column that is constant up to rounding gets scale 1."""
    mean = _weighted_mean(values, weights)
    deviation = jnp.sqrt(_weighted_mean((values - mean[None]) ** 2, weights))
    return mean, jnp.where(deviation > 1e-6 * jnp.abs(mean), deviation, 1.0)


def _error(head: RegressionHead, data: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
    """sum_n w_n ||y_n - h(x_n)||^2 / sum_n w_n ||y_n - mean||^2."""
    features, targets, weights = data
    residual = _weighted_mean((targets - apply_regression_head(head, features)) ** 2, weights)
    mean = _weighted_mean(targets, weights)
    return jnp.sum(residual) / jnp.sum(_weighted_mean((targets - mean[None]) ** 2, weights))


@jax.jit
def _fit_ridge(data: tuple[jax.Array, jax.Array, jax.Array], penalties: jax.Array) -> RegressionHead:
    """Heads for all penalties [P], stacked: (X'WX + penalty I)^-1 X'WY, W of unit sum."""
    features, targets, weights = data
    mean, scale = _moments(features, weights)
    target_mean = _weighted_mean(targets, weights)
    standardized = (features - mean[None]) / scale[None]
    weighted = standardized * (weights / jnp.sum(weights))[:, None]
    # float32 throughout: a TPU's default would round the products to bfloat16.
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    gram = product(weighted.T, standardized)
    moment = product(weighted.T, targets - target_mean[None])

    def head(penalty: jax.Array) -> RegressionHead:
        factor = jax.scipy.linalg.cho_factor(gram + penalty * jnp.eye(len(gram)), lower=True)
        solution = jax.scipy.linalg.cho_solve(factor, moment)
        return RegressionHead(mean, scale, ((solution, target_mean),))

    return jax.lax.map(head, penalties)


@partial(jax.jit, static_argnames=("settings",))
def _fit_mlp(
    training: tuple[jax.Array, jax.Array, jax.Array],
    validation: tuple[jax.Array, jax.Array, jax.Array],
    key: jax.Array,
    settings: DomainEncoderSettings,
) -> HeadFit:
    """AdamW on minibatches of scaled targets; keeps the layers of the best validation error."""
    features, targets, weights = training
    mean, scale = _moments(features, weights)
    target_mean = _weighted_mean(targets, weights)
    target_scale = jnp.sqrt(jnp.mean(_weighted_mean((targets - target_mean[None]) ** 2, weights)))
    standardized = (features - mean[None]) / scale[None]
    scaled_targets = (targets - target_mean[None]) / target_scale
    relative_weights = weights / jnp.mean(weights)
    optimizer = optax.adamw(settings.learning_rate, weight_decay=settings.weight_decay)
    num_batches = len(features) // settings.batch_size

    def unscaled(layers: Layers) -> RegressionHead:
        *hidden, (last, bias) = layers
        layers = (*hidden, (last * target_scale, bias * target_scale + target_mean))
        return RegressionHead(mean, scale, layers)

    def loss(layers: Layers, rows: jax.Array, key: jax.Array) -> jax.Array:
        def dropout(hidden):
            kept = jax.random.bernoulli(key, 1 - settings.dropout_rate, hidden.shape)
            return jnp.where(kept, hidden / (1 - settings.dropout_rate), 0.0)

        residual = scaled_targets[rows] - _apply_layers(layers, standardized[rows], dropout)
        return jnp.mean(relative_weights[rows][:, None] * residual**2)

    def update(state, rows_and_key):
        layers, optimizer_state = state
        gradient = jax.grad(loss)(layers, *rows_and_key)
        change, optimizer_state = optimizer.update(gradient, optimizer_state, layers)
        return (optax.apply_updates(layers, change), optimizer_state), None

    def epoch(carry):
        count, key, state, best_layers, best_count, errors = carry
        key, order_key, dropout_key = jax.random.split(key, 3)
        rows = jax.random.permutation(order_key, len(features))
        rows = rows[: num_batches * settings.batch_size].reshape(num_batches, -1)
        state, _ = jax.lax.scan(update, state, (rows, jax.random.split(dropout_key, num_batches)))
        error = _error(unscaled(state[0]), validation)
        better = error < jnp.nanmin(errors, initial=jnp.inf)
        best_layers = jax.tree.map(lambda new, old: jnp.where(better, new, old), state[0], best_layers)
        best_count = jnp.where(better, count, best_count)
        return count + 1, key, state, best_layers, best_count, errors.at[count].set(error)

    def goes_on(carry):
        count, _, _, _, best_count, _ = carry
        return (count < settings.max_epochs) & (count - best_count <= settings.patience)

    init_key, epoch_key = jax.random.split(key)
    layers = _init_layers(init_key, features.shape[1], settings.hidden_width, targets.shape[1])
    errors = jnp.full(settings.max_epochs, jnp.nan)
    carry = (0, epoch_key, (layers, optimizer.init(layers)), layers, 0, errors)
    _, _, _, best_layers, _, errors = jax.lax.while_loop(goes_on, epoch, carry)
    return HeadFit(unscaled(best_layers), errors)


def _init_layers(key: jax.Array, num_features: int, hidden_width: int, dim: int) -> Layers:
    """Unit variance in, unit variance out; the last layer starts at zero, at the targets' mean."""
    weights = jax.random.normal(key, (num_features, hidden_width)) / jnp.sqrt(num_features)
    return ((weights, jnp.zeros(hidden_width)), (jnp.zeros((hidden_width, dim)), jnp.zeros(dim)))
