"""Behavioral embeddings from ratings: weighted alternating least squares (WALS).

Axis letters: `U` users, `N` items, `d` embedding width, `f` unknowns of one row (d, or d + 1 with a
bias), `R` ratings; `S`, `L` as in `wals_solver.rating_blocks`.

Objective (Hu, Koren, Volinsky 2008, with the biases of Koren 2009; ELM, section 3.1):

    J = observed_weight   * sum over rated (u, i)   (r_ui - mu - b_u - b_i - <z_u, z_i>)^2
      + unobserved_weight * sum over unrated (u, i) <z_u, z_i>^2
      + regularization      * (sum_u s_u |z_u|^2 + sum_i s_i |z_i|^2)
      + bias_regularization * (sum_u b_u^2 + sum_i b_i^2)

`mu` is the mean training rating ("global" and "user_item") or 0 ("none"); b = 0 unless "user_item".
s_u = (observed_weight * n_u + unobserved_weight * (N - n_u)) ** regularization_scaling: 0 is a
constant prior, 1 the prior per rating of Zhou et al. 2008. Biases keep the constant prior: they
need the shrinkage most where ratings are few. A row's embedding and bias are one (d + 1)-vector of
unknowns, solved together, so that each half step is the exact minimiser of J over its side and J
never increases. With `dim=0` what is left is the regularised global-plus-bias baseline.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.embeddings.wals_solver.half_steps import (
    WALSFit,
    WALSWeights,
    half_step,
    make_table,
    penalty_scale,
    table_width,
)
from eagle_jax.embeddings.wals_solver.rating_blocks import RatingBlocks, pack_ratings


@settings
class WALSSettings:
    """Knobs of the objective of `embeddings/wals.py`."""

    dim: int = setting("d; 0: biases alone.", at_least=0)
    num_iterations: int = setting("Half steps of each side.", at_least=1)
    bias: Literal["none", "global", "user_item"] = setting("What the embeddings do not explain.")
    observed_weight: float = setting("Of a rating's squared error.", above=0)
    unobserved_weight: float = setting("Of a pair that has none; 0: not at all.", at_least=0)
    # A zero penalty leaves rows with fewer than d ratings without a unique solution.
    regularization: float = setting("Of the embeddings' squares.", above=0)
    regularization_scaling: float = setting("Exponent of a row's total weight.", at_least=0)
    bias_regularization: float = setting("Of the biases' squares.", above=0)

    def __post_init__(self):
        if self.dim == 0 and self.bias != "user_item":
            raise ValueError('dim is 0: nothing to fit unless bias is "user_item"')


_LARGEST_RISE = 1e-3  # of J, as rounding


class WALSOutput(NamedTuple):
    """Prediction: global_bias + user_bias + item_bias + <user_embedding, item_embedding>."""

    user_embeddings: jax.Array  # [U, d]
    item_embeddings: jax.Array  # [N, d]
    user_bias: jax.Array  # [U]
    item_bias: jax.Array  # [N]
    global_bias: jax.Array  # []
    objective: jax.Array  # [num_iterations + 1], J before the first and after every iteration


def fit_wals(ratings: RatingTable, settings: WALSSettings, key: jax.Array) -> WALSOutput:
    """Minimise J (module docstring) by exact half steps, users first; the key is consumed.

    Users and items without ratings get zeros (the minimiser). Raises ValueError on an empty table,
    UserError where float32 does not hold the ratings with so little regularization.
    """
    if len(ratings.rating) == 0:
        raise ValueError("fit_wals needs at least one rating; the table has none")
    num_users, num_rows = ratings.num_users, ratings.num_users + ratings.num_items
    user, item = ratings.user_index, ratings.item_index + num_users
    global_bias = np.float32(0.0 if settings.bias == "none" else np.mean(ratings.rating, dtype=np.float64))
    rest = ratings.rating - global_bias
    blocks = pack_ratings([(user, item), (item, user)], rest, num_rows, table_width(settings.dim))
    initial_items = jax.random.normal(key, (ratings.num_items, settings.dim)) * 0.1
    counts = np.bincount(ratings.item_index, minlength=ratings.num_items).astype(np.float32)
    alternate = partial(
        _alternate,
        *(blocks, initial_items, counts, global_bias, _weights(settings)),
        has_bias=settings.bias == "user_item",
        num_iterations=settings.num_iterations,
        num_users=num_users,
    )
    return _refuse_rising(_holding(alternate), settings)


def _holding(solve: Callable[..., tuple[Any, jax.Array]]) -> Any:
    """What solve(by_ratings=False) gives if float32 held its matrices, else what solve(by_ratings=True) gives.

    Two programs, as the second takes as long to compile and hardly any ratings need it.
    """
    output, is_held = solve(by_ratings=False)
    return output if is_held else solve(by_ratings=True)[0]


def _refuse_rising(output: WALSOutput, settings: WALSSettings) -> WALSOutput:
    """`output`; raises UserError where J is not finite or rises, which an exact half step cannot bring about."""
    objective = np.asarray(output.objective, np.float64)
    rise = objective[1:] - objective[:-1]
    broken = ~np.isfinite(objective[1:]) | (rise > _LARGEST_RISE * (abs(objective[:-1]) + 0.01 * objective[0]))
    if broken.any():
        at = int(np.argmax(broken)) + 1
        raise UserError(
            f"WALS: its objective went from {objective[at - 1]:g} to {objective[at]:g} in iteration {at}: float32 does "
            f"not hold these ratings with wals.regularization = {settings.regularization:g} and "
            f"wals.bias_regularization = {settings.bias_regularization:g}; raise the former at least tenfold"
        )
    return output


def fold_in_users(output: WALSOutput, ratings: RatingTable, settings: WALSSettings) -> tuple[jax.Array, jax.Array]:
    """Embeddings [U, d] and biases [U] of users that `output` was fitted without.

    One exact half step: the minimiser of J (module docstring) over these users, the items as they
    are. `ratings` are of the items that `output` was fitted to, and at least one.
    """
    num_users, num_rows = ratings.num_users, ratings.num_users + ratings.num_items
    item = ratings.item_index + num_users
    rest = ratings.rating - np.asarray(output.global_bias)
    blocks = pack_ratings([(ratings.user_index, item)], rest, num_rows, table_width(settings.dim))
    items = jnp.asarray(output.item_embeddings), jnp.asarray(output.item_bias)
    has_bias = settings.bias == "user_item"
    return _holding(partial(_fold_in, blocks, *items, _weights(settings), has_bias=has_bias, num_users=num_users))


def _weights(settings: WALSSettings) -> WALSWeights:
    return WALSWeights(*(getattr(settings, name) for name in WALSWeights._fields))


def predict_ratings(output: WALSOutput, user_index: jax.Array, item_index: jax.Array) -> jax.Array:
    """mu + b_u + b_i + <z_u, z_i> for pairs of indices [B] -> [B], not clipped to the scale."""
    user_index, item_index = jnp.asarray(user_index), jnp.asarray(item_index)
    inner = jnp.sum(output.user_embeddings[user_index] * output.item_embeddings[item_index], -1)
    bias = output.user_bias[user_index] + output.item_bias[item_index]
    return output.global_bias + bias + inner


def rating_embeddings(output: WALSOutput) -> tuple[jax.Array, jax.Array]:
    """Users [U, d+1] and items [N, d+1] whose inner product is the rating less mu + b_u.

    [z_u, 1] and [z_i, b_i]: within a user the order is that of the predicted ratings, where z_u and
    z_i alone (bias "user_item") leave out what everybody likes in the item.
    """
    ones = jnp.ones_like(output.user_bias)
    users = jnp.concatenate([output.user_embeddings, ones[:, None]], axis=1)
    items = jnp.concatenate([output.item_embeddings, output.item_bias[:, None]], axis=1)
    return users, items


def with_item_bias(output: WALSOutput) -> WALSOutput:
    """The same predictions by `rating_embeddings`, of width d + 1, and no item bias beside them."""
    users, items = rating_embeddings(output)
    return output._replace(user_embeddings=users, item_embeddings=items, item_bias=jnp.zeros_like(output.item_bias))


@partial(jax.jit, static_argnames=("has_bias", "num_iterations", "num_users", "by_ratings"))
def _alternate(
    blocks: RatingBlocks,
    initial_items: jax.Array,
    item_counts: jax.Array,
    global_bias: jax.Array,
    weights: WALSWeights,
    *,
    has_bias: bool,
    num_iterations: int,
    num_users: int,
    by_ratings: bool,
) -> tuple[WALSOutput, jax.Array]:
    """All iterations in one program, from item embeddings [N, d], zero users and zero biases; see `_holding`."""
    num_items, dim = initial_items.shape
    table = make_table(jnp.zeros((num_users, dim)), initial_items, jnp.zeros(num_items))
    # Nothing is predicted for unrated pairs, and mu for the rated ones, all of which are in the items' blocks.
    squares = jnp.sum(jnp.where(jnp.arange(len(blocks.row)) >= blocks.sides[1], jnp.sum(blocks.rating**2, (1, 2)), 0))
    scale = penalty_scale(item_counts, num_users, weights)
    penalty = weights.regularization * jnp.sum(scale * jnp.sum(initial_items**2, axis=1))
    before = WALSFit(table, jnp.stack([0.0, penalty]), weights.observed_weight * squares + penalty, jnp.bool(True))

    def step(fit: WALSFit, side: jax.Array) -> tuple[WALSFit, jax.Array]:
        fit = half_step(blocks, fit, side, (num_users, num_items), dim, weights, has_bias, by_ratings)
        return fit, fit.objective

    fit, after = jax.lax.scan(step, before, jnp.tile(jnp.arange(2), num_iterations))
    embeddings, bias = fit.table[:-1, :dim], -fit.table[:-1, dim + 1]
    output = WALSOutput(
        embeddings[:num_users],
        embeddings[num_users:],
        bias[:num_users],
        bias[num_users:],
        global_bias,
        jnp.concatenate([before.objective[None], after[1::2]]),
    )
    return output, fit.is_held


@partial(jax.jit, static_argnames=("has_bias", "num_users", "by_ratings"))
def _fold_in(
    blocks: RatingBlocks,
    items: jax.Array,
    item_bias: jax.Array,
    weights: WALSWeights,
    *,
    has_bias: bool,
    num_users: int,
    by_ratings: bool,
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """The users' half step alone: embeddings [U, d] and biases [U]; see `_holding`."""
    num_items, dim = items.shape
    fit = WALSFit(
        make_table(jnp.zeros((num_users, dim)), items, item_bias), jnp.zeros(2), jnp.zeros(()), jnp.bool(True)
    )
    fit = half_step(blocks, fit, jnp.int32(0), (num_users, num_items), dim, weights, has_bias, by_ratings)
    return (fit.table[:num_users, :dim], -fit.table[:num_users, dim + 1]), fit.is_held
