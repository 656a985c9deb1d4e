"""The optimiser of everything that is trained: full parameters, LoRA, adapters, value networks."""

from __future__ import annotations

from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import optax

from eagle_jax.language_model.decoder.transformer import Params
from eagle_jax.language_model.sharding import constrain_tree

State = TypeVar("State")
OptimizerName = Literal["adamw", "rmsprop"]


def make_optimizer(
    learning_rate: optax.ScalarOrSchedule,
    *,
    max_gradient_norm: float | None = None,
    weight_decay: float = 0.0,
    second_moment_decay: float = 0.999,
    name: OptimizerName = "adamw",
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015) with decoupled decay (Loshchilov & Hutter 2019, AdamW); or RMSprop.

    RMSprop is PyTorch's: the decay is added to the (clipped) gradient. Gradients are clipped by
    their global norm (None: not). Matrices decay; norms, biases and other vectors do not.
    """
    if name == "rmsprop":
        optimizer = optax.chain(
            optax.add_decayed_weights(weight_decay, _matrices),
            optax.rmsprop(learning_rate, second_moment_decay, eps=1e-8, eps_in_sqrt=False),
        )
    elif weight_decay:
        optimizer = optax.adamw(learning_rate, b2=second_moment_decay, weight_decay=weight_decay, mask=_matrices)
    else:
        optimizer = optax.adam(learning_rate, b2=second_moment_decay)
    if max_gradient_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(max_gradient_norm), optimizer)


def training_start(optimizer: optax.GradientTransformation, trainable: Params) -> tuple[Params, optax.OptState]:
    """What a training starts from: a copy of `trainable`, since updates donate their state, and the
    optimiser's state of it."""
    trainable = jax.tree.map(jnp.copy, trainable)
    return trainable, optimizer.init(trainable)


def apply_gradients(optimizer: optax.GradientTransformation, gradients: Params, state: State) -> State:
    """The state with `trainable` and `optimizer_state` after a step, laid out as before it."""
    updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.trainable)
    return state._replace(
        trainable=constrain_tree(optax.apply_updates(state.trainable, updates)),
        optimizer_state=constrain_tree(optimizer_state),
    )


def _matrices(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def warmup_cosine(peak: float, warmup_steps: int, num_steps: int) -> optax.Schedule:
    """From 0 up to `peak` in `warmup_steps`, along a cosine down to a tenth at `num_steps`."""
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, max(num_steps, warmup_steps + 1), 0.1 * peak)
