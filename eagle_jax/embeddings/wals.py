"""Behavioral embeddings from ratings: weighted alternating least squares (WALS).

Axis letters: `U` users, `N` items, `d` embedding width, `f` unknowns of one row (d, or d + 1 with a
bias), `R` ratings; `S`, `L` as in `rating_blocks`.

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

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.base.settings import setting, settings
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.embeddings.rating_blocks import RatingBlocks, pack_ratings


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


class _Weights(NamedTuple):
    """Traced, so that a sweep over them compiles once."""

    observed_weight: float
    unobserved_weight: float
    regularization: float
    regularization_scaling: float
    bias_regularization: float


class WALSOutput(NamedTuple):
    """Prediction: global_bias + user_bias + item_bias + <user_embedding, item_embedding>."""

    user_embeddings: jax.Array  # [U, d]
    item_embeddings: jax.Array  # [N, d]
    user_bias: jax.Array  # [U]
    item_bias: jax.Array  # [N]
    global_bias: jax.Array  # []
    objective: jax.Array  # [num_iterations + 1], J before the first and after every iteration


class _Side(NamedTuple):
    """Unknowns of one side."""

    embeddings: jax.Array  # [rows, d]
    bias: jax.Array  # [rows]


def fit_wals(ratings: RatingTable, settings: WALSSettings, key: jax.Array) -> WALSOutput:
    """Minimise J (module docstring) by exact half steps, users first; the key is consumed.

    Users and items without ratings get zeros (the minimiser). Raises ValueError on an empty table.
    """
    if len(ratings.rating) == 0:
        raise ValueError("fit_wals needs at least one rating; the table has none")
    row_width = settings.dim + (settings.bias == "user_item")
    user_blocks = _user_blocks(ratings, row_width)
    item_blocks = pack_ratings(ratings.item_index, ratings.user_index, ratings.rating, ratings.num_items, row_width)
    initial_items = jax.random.normal(key, (ratings.num_items, settings.dim)) * 0.1
    global_bias = 0.0 if settings.bias == "none" else np.mean(ratings.rating, dtype=np.float64)
    return _alternate(
        user_blocks,
        item_blocks,
        initial_items,
        jnp.float32(global_bias),
        _weights(settings),
        has_bias=settings.bias == "user_item",
        num_iterations=settings.num_iterations,
        num_users=ratings.num_users,
    )


def fold_in_users(output: WALSOutput, ratings: RatingTable, settings: WALSSettings) -> tuple[jax.Array, jax.Array]:
    """Embeddings [U, d] and biases [U] of users that `output` was fitted without.

    One exact half step: the minimiser of J (module docstring) over these users, the items as they
    are. `ratings` are of the items that `output` was fitted to, and at least one.
    """
    has_bias = settings.bias == "user_item"
    blocks = _user_blocks(ratings, settings.dim + has_bias)
    items = _Side(jnp.asarray(output.item_embeddings), jnp.asarray(output.item_bias))
    return _half_step(blocks, items, ratings.num_users, jnp.asarray(output.global_bias), _weights(settings), has_bias)


def _user_blocks(ratings: RatingTable, row_width: int) -> RatingBlocks:
    return pack_ratings(ratings.user_index, ratings.item_index, ratings.rating, ratings.num_users, row_width)


def _weights(settings: WALSSettings) -> _Weights:
    return _Weights(*(getattr(settings, name) for name in _Weights._fields))


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


@partial(jax.jit, static_argnames=("has_bias", "num_iterations", "num_users"))
def _alternate(
    user_blocks: RatingBlocks,
    item_blocks: RatingBlocks,
    initial_items: jax.Array,
    global_bias: jax.Array,
    weights: _Weights,
    *,
    has_bias: bool,
    num_iterations: int,
    num_users: int,
) -> WALSOutput:
    """All iterations in one program, from item embeddings [N, d], zero users and zero biases."""
    num_items, dim = initial_items.shape
    users = _Side(jnp.zeros((num_users, dim)), jnp.zeros(num_users))
    items = _Side(initial_items, jnp.zeros(num_items))

    def iteration(sides, _):
        users, items = sides
        users = _half_step(user_blocks, items, num_users, global_bias, weights, has_bias)
        items = _half_step(item_blocks, users, num_items, global_bias, weights, has_bias)
        value = _objective(user_blocks, item_blocks, users, items, global_bias, weights)
        return (users, items), value

    before = _objective(user_blocks, item_blocks, users, items, global_bias, weights)
    (users, items), after = jax.lax.scan(iteration, (users, items), length=num_iterations)
    objective = jnp.concatenate([before[None], after])
    return WALSOutput(users.embeddings, items.embeddings, users.bias, items.bias, global_bias, objective)


def _half_step(
    blocks: RatingBlocks, other: _Side, num_rows: int, global_bias: jax.Array, weights: _Weights, has_bias: bool
) -> _Side:
    """argmin of J over one side given the other: one f x f positive definite system per row.

    With x_j = [z_j, 1] the row's matrix is observed_weight * sum_rated x x' plus unobserved_weight
    * (Z'Z - sum_rated z z') on the embedding's block: one Gram matrix Z'Z serves all rows.
    """
    d, num_columns = other.embeddings.shape[1], other.embeddings.shape[0]
    features = other.embeddings
    penalty = jnp.full(d, weights.regularization)
    if has_bias:
        features = jnp.concatenate([features, jnp.ones((num_columns, 1))], axis=1)
        penalty = jnp.append(penalty, weights.bias_regularization)
    f = features.shape[1]
    is_embedding = jnp.arange(f) < d
    both = jnp.outer(is_embedding, is_embedding)
    gram = jnp.where(both, weights.unobserved_weight * _product("nf,ng->fg", features, features), 0)
    rated_weight = weights.observed_weight - jnp.where(both, weights.unobserved_weight, 0.0)

    def solve_block(block: RatingBlocks) -> jax.Array:
        x = features[block.column] * block.mask[..., None]
        target = block.rating - global_bias - other.bias[block.column]
        sums = partial(jax.ops.segment_sum, segment_ids=block.segment_row, num_segments=block.row.shape[0])
        matrix = sums(_product("slf,slg->sfg", x, x)) * rated_weight[None] + gram[None]
        vector = sums(_product("slf,sl->sf", x, target)) * weights.observed_weight
        scale = _penalty_scale(block.count, num_columns, weights)
        row_penalty = jnp.where(is_embedding[None], scale[:, None], 1.0) * penalty[None]
        matrix += row_penalty[:, :, None] * jnp.eye(f)[None]
        factor = jax.scipy.linalg.cho_factor(matrix, lower=True)
        return jax.scipy.linalg.cho_solve(factor, vector[..., None])[..., 0]

    solved = jax.lax.map(solve_block, blocks)
    unknowns = jnp.zeros((num_rows, f)).at[blocks.row].set(solved, mode="drop")
    bias = unknowns[:, d] if has_bias else jnp.zeros(num_rows)
    return _Side(unknowns[:, :d], bias)


def _objective(
    user_blocks: RatingBlocks,
    item_blocks: RatingBlocks,
    users: _Side,
    items: _Side,
    global_bias: jax.Array,
    weights: _Weights,
) -> jax.Array:
    """J, with sum over unrated <z_u, z_i>^2 = <Z_u'Z_u, Z_i'Z_i> - the same over the rated."""

    def rated_terms(block: RatingBlocks) -> jax.Array:
        row = block.row[block.segment_row]
        inner = _product("slf,sf->sl", items.embeddings[block.column], users.embeddings[row])
        predicted = global_bias + users.bias[row][:, None] + items.bias[block.column] + inner
        squares = weights.observed_weight * (block.rating - predicted) ** 2
        return jnp.sum(block.mask * (squares - weights.unobserved_weight * inner**2))

    def penalty(blocks: RatingBlocks, side: _Side, num_columns: int) -> jax.Array:
        # Rows without ratings are in no block: their scale is that of a count of 0.
        count = jnp.zeros(side.bias.shape).at[blocks.row].set(blocks.count, mode="drop")
        scale = _penalty_scale(count, num_columns, weights)
        squared_norm = jnp.sum(side.embeddings**2, axis=1)
        return weights.regularization * jnp.sum(scale * squared_norm) + weights.bias_regularization * jnp.sum(
            side.bias**2
        )

    user_gram = _product("nf,ng->fg", users.embeddings, users.embeddings)
    item_gram = _product("nf,ng->fg", items.embeddings, items.embeddings)
    return (
        jnp.sum(jax.lax.map(rated_terms, user_blocks))
        + weights.unobserved_weight * jnp.sum(user_gram * item_gram)
        + penalty(user_blocks, users, items.bias.shape[0])
        + penalty(item_blocks, items, users.bias.shape[0])
    )


def _penalty_scale(count: jax.Array, num_columns: int, weights: _Weights) -> jax.Array:
    """(observed_weight * n + unobserved_weight * (columns - n)) ** regularization_scaling."""
    total = weights.observed_weight * count + weights.unobserved_weight * (num_columns - count)
    return jnp.where(total > 0, total, 1.0) ** weights.regularization_scaling


# float32 throughout: the default precision of a TPU's matrix unit would break monotonicity.
_product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
