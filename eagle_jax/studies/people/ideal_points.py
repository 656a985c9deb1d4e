"""PAL: a reward of pairs in which every user's ideal point is a mixture of prototypes.

Chen et al. 2024 (arXiv 2406.08469), PAL-A of section 3: with f a map of item features, p_k the
prototypes and w_u in the simplex,

    a_u = sum_k w_uk f(p_k),    r_u(x) = -|f(x) - a_u|^2,
    P(u prefers x to y) = sigmoid(r_u(x) - r_u(y)).

f, prototypes and weights are learned from the pairs of many users. A new user has the weights alone
to learn: f and the prototypes stay. K = 1 is one reward for all, Bradley and Terry's.

What the paper leaves open and is chosen here: w_u = softmax of logits; the prototypes start at random
items; all pairs at every step of Adam; the step with the least loss on pairs held
out is kept, of several starts the best. Logits are drawn to their mean over seen users,
`logit_penalty` |l_u - mean l|^2 in nats beside a user's own pairs (0: as in the paper), as a user
with one pair has else a weight of 1 on one prototype.

Axis letters: `N` items, `F` features, `d` width of f, `K` prototypes, `U` users, `R` pairs.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eagle_jax.base.settings import setting, settings
from eagle_jax.embeddings.regression_head import Layers

# Of fresh kernels and logits: with small rewards of users who are apart training does not begin at a saddle.
_KERNEL_SCALE, _LOGIT_SCALE = 0.5, 1.0


@settings
class PalSettings:
    """How PAL is fitted."""

    dim: int = setting("d, of the space of ideal points.", at_least=1)
    hidden_width: int = setting("Of f, a network of two layers as the paper's; 0: f is linear.", at_least=0)
    learning_rate: float = setting("Adam's.", above=0)
    num_steps: int = setting("Of all pairs each.", at_least=1)
    weight_decay: float = setting("Of f and the prototypes, AdamW's.", at_least=0)
    num_starts: int = setting("Of which the best on held-out pairs is kept.", at_least=1)
    held_out_fraction: float = setting("Of the pairs: which step and start are kept.", above=0, below=1)
    new_user_steps: int = setting("In which a new user's weights are fitted.", at_least=1)
    new_user_learning_rate: float = setting("Adam's, of these.", above=0)


class UserPairs(NamedTuple):
    """user preferred item `chosen` to item `rejected`; indices [R]."""

    user: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray

    def take(self, rows: np.ndarray) -> UserPairs:
        """Some of the pairs, by index or mask."""
        return UserPairs(*(column[rows] for column in self))


class PalParams(NamedTuple):
    """mapping: kernel and bias of the layers of f. prototypes: [K, F], in the space of features. logits: [U, K]."""

    mapping: Layers
    prototypes: jax.Array
    logits: jax.Array


class PalFit(NamedTuple):
    """The kept parameters and the loss [] of their held-out pairs, in nats a pair."""

    params: PalParams
    held_out_loss: jax.Array


def apply_mapping(mapping: Layers, features: jax.Array) -> jax.Array:
    """f: [N, F] -> [N, d], ReLU between layers.

    Kernels are divided by the root of their inputs' number, so that one learning rate is right for
    them and the prototypes.
    """
    for kernel, bias in mapping[:-1]:
        features = jax.nn.relu(features @ kernel / np.sqrt(len(kernel)) + bias[None])
    kernel, bias = mapping[-1]
    return features @ kernel / np.sqrt(len(kernel)) + bias[None]


def ideal_points(params: PalParams) -> jax.Array:
    """a_u of every user [U, d]."""
    return jax.nn.softmax(params.logits) @ apply_mapping(params.mapping, params.prototypes)


def pal_rewards(params: PalParams, features: jax.Array) -> jax.Array:
    """r_u(x) = -|f(x) - a_u|^2, [U, N]."""
    points, items = ideal_points(params), apply_mapping(params.mapping, features)
    return 2 * points @ items.T - jnp.sum(items**2, axis=1)[None] - jnp.sum(points**2, axis=1)[:, None]


def pal_losses(params: PalParams, features: jax.Array, pairs: UserPairs) -> jax.Array:
    """-log sigmoid(r_u(chosen) - r_u(rejected)), [R] nats."""
    rewards = pal_rewards(params, features)
    return jax.nn.softplus(rewards[pairs.user, pairs.rejected] - rewards[pairs.user, pairs.chosen])


def fit_pal(
    features: jax.Array, pairs: UserPairs, num_users: int, num_prototypes: int, logit_penalty: float,
    settings: PalSettings, key: jax.Array,
) -> PalFit:  # fmt: skip
    """The best of several fits to the users' pairs; the key is consumed.

    features: [N, F], of about unit variance. logit_penalty: see the module. Raises ValueError for
    fewer items than prototypes.
    """
    if num_prototypes > len(features):
        raise ValueError(f"{num_prototypes} prototypes start at as many items, but there are {len(features)}")
    split_key, *start_keys = jax.random.split(key, 1 + settings.num_starts)
    order = np.asarray(jax.random.permutation(split_key, len(pairs.user)))
    num_held_out = max(1, round(settings.held_out_fraction * len(order)))
    held_out, training = pairs.take(order[:num_held_out]), pairs.take(order[num_held_out:])
    fits = []
    for start_key in start_keys:
        start = _start(features, num_users, num_prototypes, settings, start_key)
        fits.append(_train(start, features, training, held_out, logit_penalty, settings))
    return min(fits, key=lambda fit: float(fit.held_out_loss))


def _start(features, num_users, num_prototypes, settings, key) -> PalParams:
    item_key, logit_key, *layer_keys = jax.random.split(key, 4)
    widths = [features.shape[1], *([settings.hidden_width] if settings.hidden_width else []), settings.dim]
    shapes = list(zip(widths[:-1], widths[1:], strict=True))
    mapping = tuple(
        (_KERNEL_SCALE * jax.random.normal(layer_key, shape), jnp.zeros(shape[1]))
        for layer_key, shape in zip(layer_keys[: len(shapes)], shapes, strict=True)
    )
    items = jax.random.choice(item_key, len(features), (num_prototypes,), replace=False)
    logits = _LOGIT_SCALE * jax.random.normal(logit_key, (num_users, num_prototypes))
    return PalParams(mapping, features[items], logits)


def _penalty(logits: jax.Array, mean: jax.Array, logit_penalty) -> jax.Array:
    return logit_penalty * jnp.sum((logits - mean[None]) ** 2)


@functools.partial(jax.jit, static_argnames="settings")
def _train(start: PalParams, features, training, held_out, logit_penalty, settings: PalSettings) -> PalFit:
    decayed = PalParams(jax.tree.map(lambda _: True, start.mapping), True, False)
    optimizer = optax.adamw(settings.learning_rate, weight_decay=settings.weight_decay, mask=decayed)

    def objective(params):
        penalty = _penalty(params.logits, jnp.mean(params.logits, axis=0), logit_penalty)
        return (jnp.sum(pal_losses(params, features, training)) + penalty) / len(training.user)

    def step(carry, _):
        params, state, best = carry
        updates, state = optimizer.update(jax.grad(objective)(params), state, params)
        params = optax.apply_updates(params, updates)
        fit = PalFit(params, jnp.mean(pal_losses(params, features, held_out)))
        best = jax.tree.map(lambda new, old: jnp.where(fit.held_out_loss < best.held_out_loss, new, old), fit, best)
        return (params, state, best), None

    first = PalFit(start, jnp.mean(pal_losses(start, features, held_out)))
    (_, _, best), _ = jax.lax.scan(step, (start, optimizer.init(start), first), length=settings.num_steps)
    return best


@functools.partial(jax.jit, static_argnames=("num_users", "settings"))
def fit_new_users(
    params: PalParams,
    features: jax.Array,
    pairs: UserPairs,
    is_known: jax.Array,
    num_users: int,
    logit_penalty: jax.Array | float,
    settings: PalSettings,
) -> PalParams:
    """`params` with the logits [num_users, K] of other users, f and prototypes as they are.

    Each user's own problem: what one says changes no other's. is_known: [R], pairs that count; another number of
    them is compiled no second time. Starts at the mean logits of the users that `params` was fitted to, which is
    where a user without pairs stays.
    """
    mean = jnp.mean(params.logits, axis=0)
    optimizer = optax.adam(settings.new_user_learning_rate)

    def objective(logits):
        losses = pal_losses(params._replace(logits=logits), features, pairs)
        return jnp.sum(jnp.where(is_known, losses, 0.0)) + _penalty(logits, mean, logit_penalty)

    def step(carry, _):
        logits, state = carry
        updates, state = optimizer.update(jax.grad(objective)(logits), state)
        return (optax.apply_updates(logits, updates), state), None

    start = jnp.broadcast_to(mean, (num_users, len(mean)))
    (logits, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=settings.new_user_steps)
    return params._replace(logits=logits)
