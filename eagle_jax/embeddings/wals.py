"""Behavioral embeddings from ratings: weighted alternating least squares (WALS).

Axis letters: `U` users, `N` items, `d` embedding width, `f` unknowns of one row (d, or d + 1 with a
bias), `R` ratings; `P`, `n`, `F` as in `wals_solver.half_steps`.

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
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.catalogue import RatingTable
from eagle_jax.embeddings.wals_solver.half_steps import (
    WALSFit,
    WALSProblem,
    WALSWeights,
    half_step,
    make_table,
    penalty_scale,
    read_table,
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
    """Prediction: global_bias + user_bias + item_bias + <user_embedding, item_embedding>; whole, on the host."""

    user_embeddings: np.ndarray  # [U, d]
    item_embeddings: np.ndarray  # [N, d]
    user_bias: np.ndarray  # [U]
    item_bias: np.ndarray  # [N]
    global_bias: np.ndarray  # []
    objective: np.ndarray  # [num_iterations + 1], J before the first and after every iteration


def fit_wals(ratings: RatingTable, settings: WALSSettings, key: jax.Array, mesh: Mesh | None = None) -> WALSOutput:
    """Minimise J (module docstring) by exact half steps, users first; the key is consumed.

    Both sides' embeddings and the ratings lie over all devices of the mesh, the same in every process; None: on one
    device. Users and items without ratings get zeros (the minimiser). Raises ValueError on an empty table, UserError
    where float32 does not hold the ratings with so little regularization.
    """
    if len(ratings.rating) == 0:
        raise ValueError("fit_wals needs at least one rating; the table has none")
    mesh, sizes = mesh or _one_device(), (ratings.num_users, ratings.num_items)
    user, item = ratings.user_index, ratings.item_index + ratings.num_users
    global_bias = np.float32(0.0 if settings.bias == "none" else np.mean(ratings.rating, dtype=np.float64))
    rest = ratings.rating - global_bias
    sides = [(user, item), (item, user)]
    blocks, places = pack_ratings(sides, rest, sizes, table_width(settings.dim), mesh.size)
    initial_items = np.asarray(jax.random.normal(key, (ratings.num_items, settings.dim)) * 0.1)
    table = make_table(np.zeros((sizes[0], settings.dim)), initial_items, np.zeros(sizes[1]), places, mesh.size)
    alternate = partial(
        alternate_half_steps,
        *_put((blocks, table), mesh),
        _penalty_at_start(ratings, initial_items, settings),
        np.float32(settings.observed_weight * np.sum(np.square(rest, dtype=np.float64))),
        _weights(settings),
        mesh=mesh,
        problem=WALSProblem(settings.dim, settings.bias == "user_item", sizes, places.sizes, _split_axes(mesh)),
        num_iterations=settings.num_iterations,
    )
    table, objective = _holding(alternate)
    embeddings, bias = read_table(_fetch(table), places, settings.dim)
    output = WALSOutput(
        *np.split(embeddings, [sizes[0]]), *np.split(bias, [sizes[0]]), global_bias, np.asarray(objective)
    )
    return _refuse_rising(output, settings)


def _one_device() -> Mesh:
    return jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.local_devices()[:1])


def _split_axes(mesh: Mesh) -> tuple[str, ...]:
    return tuple(axis for axis in mesh.axis_names if mesh.shape[axis] > 1)


def _specs(mesh: Mesh) -> tuple[RatingBlocks, PartitionSpec]:
    """How blocks and table lie: in a part for each device, of which only `sides` is the same everywhere."""
    parts = PartitionSpec(mesh.axis_names)
    return RatingBlocks(*[parts] * 4, sides=PartitionSpec()), parts


def _put(arrays: Any, mesh: Mesh) -> Any:
    """Blocks and table on the mesh; every process has them whole and gives its devices their parts."""

    def put(array: np.ndarray, spec: PartitionSpec) -> jax.Array:
        return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), array.__getitem__)

    return jax.tree.map(put, arrays, _specs(mesh))


def _fetch(table: jax.Array) -> np.ndarray:
    """Whole, in every process; eight columns at a time, as no device needs room for all of it."""
    if table.is_fully_addressable:
        return np.asarray(table)
    columns = (table[:, start : start + 8] for start in range(0, table.shape[1], 8))
    return np.concatenate([multihost_utils.process_allgather(some, tiled=True) for some in columns], axis=1)


def _penalty_at_start(ratings: RatingTable, items: np.ndarray, settings: WALSSettings) -> np.ndarray:
    """Each side's part of J [2], of users that are 0 and these items [N, d]."""
    counts = np.bincount(ratings.item_index, minlength=len(items)).astype(np.float32)
    scale = np.asarray(penalty_scale(counts, ratings.num_users, _weights(settings)))
    return np.array([0, settings.regularization * np.sum(scale * np.sum(items**2, axis=1))], np.float32)


def _holding(solve: Callable[..., tuple[Any, ...]]) -> tuple[Any, ...]:
    """What solve(by_ratings=False) gives if float32 held its matrices, which it says last, else what
    solve(by_ratings=True) gives.

    Two programs, as the second takes as long to compile and hardly any ratings need it.
    """
    *output, is_held = solve(by_ratings=False)
    return tuple(output) if is_held else solve(by_ratings=True)[:-1]


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


def fold_in_users(output: WALSOutput, ratings: RatingTable, settings: WALSSettings) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [U, d] and biases [U] of users that `output` was fitted without.

    One exact half step: the minimiser of J (module docstring) over these users, the items as they
    are. `ratings` are of the items that `output` was fitted to, and at least one. Raises UserError where float32 does
    not hold them with so little regularization.
    """
    sizes, dim = (ratings.num_users, ratings.num_items), settings.dim
    rest = ratings.rating - np.asarray(output.global_bias)
    sides = [(ratings.user_index, ratings.item_index + sizes[0])]
    blocks, places = pack_ratings(sides, rest, sizes, table_width(dim))
    table = make_table(np.zeros((sizes[0], dim)), output.item_embeddings, output.item_bias, places)
    problem = WALSProblem(dim, settings.bias == "user_item", sizes, places.sizes)
    (table,) = _holding(partial(_fold_in, blocks, table, _weights(settings), problem=problem))
    embeddings, bias = (part[: sizes[0]] for part in read_table(np.asarray(table), places, dim))
    lost = _is_worse_than_zero(embeddings, bias, output, ratings, settings)
    if lost.any():
        raise UserError(
            f"WALS: float32 does not hold the ratings of {lost.sum()} of {sizes[0]} new users with "
            f"wals.regularization = {settings.regularization:g} and wals.bias_regularization = "
            f"{settings.bias_regularization:g}; raise them at least tenfold and fit anew"
        )
    return embeddings, bias


def _is_worse_than_zero(
    embeddings: np.ndarray, bias: np.ndarray, output: WALSOutput, ratings: RatingTable, settings: WALSSettings
) -> np.ndarray:
    """Users [U] whose part of J is more than with zeros for them, or none, in float64: no minimiser's is."""
    users, bias, items = (np.asarray(part, np.float64) for part in (embeddings, bias, output.item_embeddings))
    index, column = ratings.user_index, ratings.item_index
    inner = np.sum(users[index] * items[column], axis=1)
    rest = ratings.rating - np.float64(output.global_bias) - np.float64(output.item_bias)[column]

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(index, values, len(users))

    scale = np.asarray(penalty_scale(summed(np.ones(len(index))), len(items), _weights(settings)))
    found = settings.observed_weight * summed((rest - bias[index] - inner) ** 2 - rest**2)
    found += settings.unobserved_weight * (np.sum((users @ (items.T @ items)) * users, axis=1) - summed(inner**2))
    found += settings.regularization * scale * np.sum(users**2, axis=1) + settings.bias_regularization * bias**2
    return ~(found <= _LARGEST_RISE * settings.observed_weight * summed(np.float64(ratings.rating) ** 2))


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


@partial(jax.jit, static_argnames=("mesh", "problem", "num_iterations", "by_ratings"))
def alternate_half_steps(
    blocks: RatingBlocks,
    table: jax.Array,
    penalty: jax.Array,
    squares: jax.Array,
    weights: WALSWeights,
    *,
    mesh: Mesh,
    problem: WALSProblem,
    num_iterations: int,
    by_ratings: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All iterations in one program, each device's blocks on its part of the table [P n, F]: the table, J before the
    first and after every iteration, and whether float32 held all matrices.

    It begins with each side's part of J [2] and the sum of squares of what is to be explained.
    """
    problem = problem._replace(by_ratings=by_ratings)

    def on_one(blocks, table, penalty, squares, weights):
        def step(fit: WALSFit, side: jax.Array) -> tuple[WALSFit, jax.Array]:
            fit = half_step(blocks, fit, side, weights, problem)
            return fit, fit.objective

        # Nothing is predicted for unrated pairs, and mu for the rated ones.
        before = WALSFit(table, penalty, squares + jnp.sum(penalty), jnp.bool(True))
        fit, after = jax.lax.scan(step, before, jnp.tile(jnp.arange(2), num_iterations))
        return fit.table, jnp.concatenate([before.objective[None], after[1::2]]), fit.is_held

    whole, (of_blocks, parts) = PartitionSpec(), _specs(mesh)
    # Loops start from constants, which do not vary over the mesh, and check_vma refuses those.
    mapped = jax.shard_map(
        on_one,
        mesh=mesh,
        in_specs=(of_blocks, parts, whole, whole, whole),
        out_specs=(parts, whole, whole),
        check_vma=False,
    )
    return mapped(blocks, table, penalty, squares, weights)


@partial(jax.jit, static_argnames=("problem", "by_ratings"))
def _fold_in(
    blocks: RatingBlocks, table: jax.Array, weights: WALSWeights, *, problem: WALSProblem, by_ratings: bool
) -> tuple[jax.Array, jax.Array]:
    """The table after the users' half step alone, and whether float32 held all matrices."""
    fit = WALSFit(table, jnp.zeros(2), jnp.zeros(()), jnp.bool(True))
    fit = half_step(blocks, fit, jnp.int32(0), weights, problem._replace(by_ratings=by_ratings))
    return fit.table, fit.is_held
