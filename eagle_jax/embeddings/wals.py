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

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.data.catalogue import RatingTable
from eagle_jax.embeddings.rating_blocks import RatingBlocks, pack_ratings

BIASES = ("none", "global", "user_item")


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "observed_weight",
        "unobserved_weight",
        "regularization",
        "regularization_scaling",
        "bias_regularization",
    ],
    meta_fields=["dim", "num_iterations", "bias"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class WALSSettings:
    """Knobs of the objective above; the weights are traced, so a sweep over them compiles once."""

    dim: int
    num_iterations: int
    bias: str  # one of BIASES
    observed_weight: float
    unobserved_weight: float  # 0: plain alternating least squares
    regularization: float
    regularization_scaling: float  # exponent of a row's total weight
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

    Users and items without ratings get zeros (the minimiser). Raises ValueError on settings outside
    their range and on an empty table.
    """
    _check_settings(settings)
    if len(ratings.rating) == 0:
        raise ValueError("fit_wals needs at least one rating; the table has none")
    row_width = settings.dim + (settings.bias == "user_item")
    user_blocks = pack_ratings(
        ratings.user_index, ratings.item_index, ratings.rating, ratings.num_users, row_width
    )
    item_blocks = pack_ratings(
        ratings.item_index, ratings.user_index, ratings.rating, ratings.num_items, row_width
    )
    initial_items = jax.random.normal(key, (ratings.num_items, settings.dim)) * 0.1
    global_bias = 0.0 if settings.bias == "none" else np.mean(ratings.rating, dtype=np.float64)
    return _alternate(
        user_blocks,
        item_blocks,
        initial_items,
        jnp.float32(global_bias),
        settings,
        num_users=ratings.num_users,
    )


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


def _check_settings(settings: WALSSettings) -> None:
    if settings.bias not in BIASES:
        raise ValueError(f"bias is {settings.bias!r}; allowed: {', '.join(BIASES)}")
    for name, least in (("dim", 0), ("num_iterations", 1), ("unobserved_weight", 0)):
        if getattr(settings, name) < least:
            raise ValueError(f"{name} is {getattr(settings, name)}; it must be at least {least}")
    # A zero penalty leaves rows with fewer than d ratings without a unique solution.
    for name in ("observed_weight", "regularization", "bias_regularization"):
        if getattr(settings, name) <= 0:
            raise ValueError(f"{name} is {getattr(settings, name)}; it must be positive")
    if settings.dim == 0 and settings.bias != "user_item":
        raise ValueError('dim is 0: nothing to fit unless bias is "user_item"')


@partial(jax.jit, static_argnames=("num_users",))
def _alternate(
    user_blocks: RatingBlocks,
    item_blocks: RatingBlocks,
    initial_items: jax.Array,
    global_bias: jax.Array,
    settings: WALSSettings,
    *,
    num_users: int,
) -> WALSOutput:
    """All iterations in one program, from item embeddings [N, d], zero users and zero biases."""
    num_items = initial_items.shape[0]
    users = _Side(jnp.zeros((num_users, settings.dim)), jnp.zeros(num_users))
    items = _Side(initial_items, jnp.zeros(num_items))

    def iteration(sides, _):
        users, items = sides
        users = _half_step(user_blocks, items, num_users, global_bias, settings)
        items = _half_step(item_blocks, users, num_items, global_bias, settings)
        value = _objective(user_blocks, item_blocks, users, items, global_bias, settings)
        return (users, items), value

    before = _objective(user_blocks, item_blocks, users, items, global_bias, settings)
    (users, items), after = jax.lax.scan(iteration, (users, items), length=settings.num_iterations)
    objective = jnp.concatenate([before[None], after])
    return WALSOutput(
        users.embeddings, items.embeddings, users.bias, items.bias, global_bias, objective
    )


def _half_step(
    blocks: RatingBlocks,
    other: _Side,
    num_rows: int,
    global_bias: jax.Array,
    settings: WALSSettings,
) -> _Side:
    """argmin of J over one side given the other: one f x f positive definite system per row.

    With x_j = [z_j, 1] the row's matrix is observed_weight * sum_rated x x' plus unobserved_weight
    * (Z'Z - sum_rated z z') on the embedding's block: one Gram matrix Z'Z serves all rows.
    """
    d, num_columns = other.embeddings.shape[1], other.embeddings.shape[0]
    features, penalty = other.embeddings, jnp.full(d, settings.regularization)
    if settings.bias == "user_item":
        features = jnp.concatenate([features, jnp.ones((num_columns, 1))], axis=1)
        penalty = jnp.append(penalty, settings.bias_regularization)
    f = features.shape[1]
    is_embedding = jnp.arange(f) < d
    both = jnp.outer(is_embedding, is_embedding)
    gram = jnp.where(
        both, settings.unobserved_weight * _product("nf,ng->fg", features, features), 0
    )
    rated_weight = settings.observed_weight - jnp.where(both, settings.unobserved_weight, 0.0)

    def solve_block(block: RatingBlocks) -> jax.Array:
        x = features[block.column] * block.mask[..., None]
        target = block.rating - global_bias - other.bias[block.column]
        sums = partial(
            jax.ops.segment_sum, segment_ids=block.segment_row, num_segments=block.row.shape[0]
        )
        matrix = sums(_product("slf,slg->sfg", x, x)) * rated_weight[None] + gram[None]
        vector = sums(_product("slf,sl->sf", x, target)) * settings.observed_weight
        scale = _penalty_scale(block.count, num_columns, settings)
        row_penalty = jnp.where(is_embedding[None], scale[:, None], 1.0) * penalty[None]
        matrix += row_penalty[:, :, None] * jnp.eye(f)[None]
        factor = jax.scipy.linalg.cho_factor(matrix, lower=True)
        return jax.scipy.linalg.cho_solve(factor, vector[..., None])[..., 0]

    solved = jax.lax.map(solve_block, blocks)
    unknowns = jnp.zeros((num_rows, f)).at[blocks.row].set(solved, mode="drop")
    bias = unknowns[:, d] if settings.bias == "user_item" else jnp.zeros(num_rows)
    return _Side(unknowns[:, :d], bias)


def _objective(
    user_blocks: RatingBlocks,
    item_blocks: RatingBlocks,
    users: _Side,
    items: _Side,
    global_bias: jax.Array,
    settings: WALSSettings,
) -> jax.Array:
    """J, with sum over unrated <z_u, z_i>^2 = <Z_u'Z_u, Z_i'Z_i> - the same over the rated."""

    def rated_terms(block: RatingBlocks) -> jax.Array:
        row = block.row[block.segment_row]
        inner = _product("slf,sf->sl", items.embeddings[block.column], users.embeddings[row])
        predicted = global_bias + users.bias[row][:, None] + items.bias[block.column] + inner
        squares = settings.observed_weight * (block.rating - predicted) ** 2
        return jnp.sum(block.mask * (squares - settings.unobserved_weight * inner**2))

    def penalty(blocks: RatingBlocks, side: _Side, num_columns: int) -> jax.Array:
        # Rows without ratings are in no block: their scale is that of a count of 0.
        count = jnp.zeros(side.bias.shape).at[blocks.row].set(blocks.count, mode="drop")
        scale = _penalty_scale(count, num_columns, settings)
        squared_norm = jnp.sum(side.embeddings**2, axis=1)
        return settings.regularization * jnp.sum(
            scale * squared_norm
        ) + settings.bias_regularization * jnp.sum(side.bias**2)

    user_gram = _product("nf,ng->fg", users.embeddings, users.embeddings)
    item_gram = _product("nf,ng->fg", items.embeddings, items.embeddings)
    return (
        jnp.sum(jax.lax.map(rated_terms, user_blocks))
        + settings.unobserved_weight * jnp.sum(user_gram * item_gram)
        + penalty(user_blocks, users, items.bias.shape[0])
        + penalty(item_blocks, items, users.bias.shape[0])
    )


def _penalty_scale(count: jax.Array, num_columns: int, settings: WALSSettings) -> jax.Array:
    """(observed_weight * n + unobserved_weight * (columns - n)) ** regularization_scaling."""
    total = settings.observed_weight * count + settings.unobserved_weight * (num_columns - count)
    return jnp.where(total > 0, total, 1.0) ** settings.regularization_scaling


# float32 throughout: the default precision of a TPU's matrix unit would break monotonicity.
_product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
