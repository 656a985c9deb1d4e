"""Half steps of WALS (`embeddings/wals.py`, whose objective J this is about): one side given the other.

Axis letters: `U` users, `N` items, `d` embedding width, `f` unknowns of one row (d, or d + 1 with a bias), `F` width of
the table; `P`, `M`, `S`, `L` as in `rating_blocks`; `n` places of a part of the table, the last one's among them.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.embeddings.wals_solver.rating_blocks import RatingBlocks, TablePlaces

# Of a factor's pivot to its matrix's diagonal, and steps where one is less: float32 then gives three digits and fewer.
_LEAST_PIVOT, _GRADIENT_STEPS = 1e-3, 32


class WALSWeights(NamedTuple):
    """Traced, so that a sweep over them compiles once."""

    observed_weight: float
    unobserved_weight: float
    regularization: float
    regularization_scaling: float
    bias_regularization: float


class WALSProblem(NamedTuple):
    """What a half step is compiled for."""

    dim: int
    has_bias: bool
    totals: tuple[int, int]  # U and N
    sizes: tuple[int, int]  # as in `TablePlaces`
    axes: tuple[str, ...] = ()  # of the mesh, those along which the table lies in parts
    by_ratings: bool = False


# The table of both sides has a row [z, 1, -b, 0 ...] for each user, then for each item, and a last one of zeros that
# padding gathers. With the rating less mu added to its -b a gathered row is [x, t], t being what z and the own bias
# have to explain, and the sum of such rows' outer products holds X'X, X't and their number: one gather and one matrix
# product for everything. Both sides in one table are one program to compile. Over the devices of a mesh it lies in
# parts of this form, each with the rows whose ratings its device has: only what is gathered crosses between them.


def table_width(dim: int) -> int:
    return -(-(dim + 2) // 8) * 8


def make_table(
    users: np.ndarray, items: np.ndarray, item_bias: np.ndarray, places: TablePlaces, num_parts: int = 1
) -> np.ndarray:
    """The table [P n, F], the users' biases being 0."""
    dim = items.shape[1]
    table = np.zeros((num_parts * places.part_size, table_width(dim)), np.float32)
    of_users, of_items = np.split(places.place, [len(users)])
    table[of_users, :dim], table[of_items, :dim] = users, items
    table[places.place, dim], table[of_items, dim + 1] = 1, -item_bias
    return table


def read_table(table: np.ndarray, places: TablePlaces, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [U + N, d] and biases [U + N] from a table [P n, F]."""
    return table[places.place, :dim], -table[places.place, dim + 1]


def _pad_rows(rows: jax.Array) -> jax.Array:
    """[M, d + 2] -> [M, F]."""
    return jnp.pad(rows, ((0, 0), (0, table_width(rows.shape[1] - 2) - rows.shape[1])))


def _gather(table: jax.Array, place: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Rows [S, L, F] at places [S, L] of the whole table, of which this device has a part [n, F].

    Along the axes each looks up for all what it has, and the sum goes to who asked (ALX; Mehta et al. 2021, arXiv
    2112.02194). One axis after the other: a TPU's compiler makes an all-reduce of a scattered sum over several at once.
    """
    if axes:
        for axis in axes:
            place = jax.lax.all_gather(place, axis, tiled=True)
        place = place - jax.lax.axis_index(axes) * len(table)
        place = jnp.where((place >= 0) & (place < len(table)), place, len(table) - 1)
    rows = table.at[place].get(mode="promise_in_bounds")
    shape = rows.shape[1:]
    rows = rows.reshape(len(rows), -1)  # or each row would cross padded to 128
    for axis in reversed(axes):
        rows = jax.lax.psum_scatter(rows, axis, tiled=True)
    return rows.reshape(-1, *shape)


class WALSFit(NamedTuple):
    """What half steps read and write."""

    table: jax.Array  # [n, F] this device's part
    penalty: jax.Array  # [2] each side's part of J
    objective: jax.Array  # [] J; after a half step of the users, that of the step before
    is_held: jax.Array  # [] whether float32 held all rows' matrices so far


class _Solved(NamedTuple):
    """Sums over the rows that a half step has solved; J's parts are left out for users."""

    gram: jax.Array  # [d, d] Z'Z
    penalty: jax.Array  # []
    rated: jax.Array  # [] the part of J of the rated pairs, beyond what Z'Z says of them
    is_held: jax.Array  # []


def half_step(
    blocks: RatingBlocks, fit: WALSFit, side: jax.Array, weights: WALSWeights, problem: WALSProblem
) -> WALSFit:
    """argmin of J over one side (0: users) given the other: an f x f positive definite system per row.

    With x_j = [z_j, 1] the row's matrix is observed_weight * sum_rated x x' plus unobserved_weight
    * (Z'Z - sum_rated z z') on the embedding's block: one Gram matrix Z'Z serves all rows.
    `blocks` are this device's G.
    """
    dim, _, totals, sizes, axes, _ = problem
    is_own = (jnp.arange(sum(sizes) + 1) >= sizes[0]) == side
    table = jnp.where(is_own[:, None], 0, fit.table)
    gram = jax.lax.psum(_product("nd,ne->de", table[:, :dim], table[:, :dim]), axes)
    num_columns = jnp.where(side == 0, totals[1], totals[0])

    def solve_block(index: jax.Array, carry: tuple[jax.Array, _Solved]) -> tuple[jax.Array, _Solved]:
        table, solved = carry
        row, segment_row, *ratings = (array[index] for array in blocks[:4])
        place, rating = (array.reshape(len(segment_row), -1) for array in ratings)
        target = jnp.arange(table.shape[1]) == dim + 1
        x = _gather(table, place, axes) + jnp.where(target[None, None], rating[..., None], 0)
        unknowns, penalty, rated, is_held = _solve_rows(x, segment_row, len(row), gram, num_columns, weights, problem)
        is_row = (row < sum(sizes)).astype(x.dtype)[:, None]  # padding's row is the table's last, and stays 0
        unknowns *= is_row
        z, bias = unknowns[:, :dim], unknowns[:, dim] if problem.has_bias else jnp.zeros(len(row))
        rows = _pad_rows(jnp.concatenate([z, is_row, -bias[:, None]], axis=1))
        solved = _Solved(
            solved.gram + _product("md,me->de", z, z),
            solved.penalty + jnp.sum(penalty * unknowns**2),
            solved.rated + rated,
            solved.is_held & is_held,
        )
        return table.at[row].set(rows, mode="promise_in_bounds"), solved

    nothing = _Solved(jnp.zeros((dim, dim)), jnp.zeros(()), jnp.zeros(()), fit.is_held)
    table, solved = jax.lax.fori_loop(blocks.sides[side], blocks.sides[side + 1], solve_block, (table, nothing))
    table = jnp.where(is_own[:, None], table, fit.table)
    solved_gram, solved_penalty, rated = jax.lax.psum(solved[:3], axes)
    is_held = jax.lax.pmin(solved.is_held.astype(jnp.int32), axes) == 1
    penalty = fit.penalty.at[side].set(solved_penalty)
    objective = rated + weights.unobserved_weight * jnp.sum(gram * solved_gram) + jnp.sum(penalty)
    return WALSFit(table, penalty, jnp.where(side == 1, objective, fit.objective), is_held)


def _solve_rows(
    x: jax.Array,
    segment_row: jax.Array,
    num_rows: int,
    gram: jax.Array,
    num_columns: jax.Array,
    weights: WALSWeights,
    problem: WALSProblem,
) -> tuple[jax.Array, ...]:
    """Unknowns [M, f] of a block from its gathered rows x [S, L, F], their penalty [M, f], and what `_solve` tells."""
    dim = problem.dim
    sums = jax.ops.segment_sum(_product("slf,slg->sfg", x, x), segment_row, num_rows)
    system = _normal_equations(sums, gram, num_columns, dim, weights, problem.has_bias)
    unknowns, rated, is_held = _solve(system, sums, weights, dim)
    if problem.by_ratings:
        again = partial(_solve_again, system, x, segment_row, sums, weights, dim)
        unknowns, rated = jax.lax.cond(is_held, lambda: (unknowns, rated), again)
    return unknowns, system.penalty, rated, is_held


class _System(NamedTuple):
    """Normal equations of M rows, of f unknowns each."""

    matrix: jax.Array  # [M, f, f]
    vector: jax.Array  # [M, f]
    penalty: jax.Array  # [M, f] what the diagonal has of it
    gram: jax.Array  # [f, f] unobserved_weight Z'Z


def _normal_equations(
    sums: jax.Array, gram: jax.Array, num_columns: jax.Array, dim: int, weights: WALSWeights, has_bias: bool
) -> _System:
    """Those of rows with `sums` [M, F, F] of outer products, and Z'Z [d, d] of the other side."""
    f = dim + has_bias
    is_embedding = jnp.arange(f) < dim
    scale = penalty_scale(sums[:, dim, dim], num_columns, weights)
    penalty = jnp.where(is_embedding[None], weights.regularization * scale[:, None], weights.bias_regularization)
    gram = weights.unobserved_weight * jnp.pad(gram, (0, f - dim))
    matrix = sums[:, :f, :f] * _rated_weight(f, dim, weights)[None] + gram[None]
    matrix += penalty[:, :, None] * jnp.eye(f)[None]
    return _System(matrix, weights.observed_weight * sums[:, :f, dim + 1], penalty, gram)


def _rated_weight(f: int, dim: int, weights: WALSWeights) -> jax.Array:
    """Of products of two unknowns [f, f] at rated pairs, beside what Z'Z counts of them."""
    is_embedding = jnp.arange(f) < dim
    both = jnp.outer(is_embedding, is_embedding)
    return weights.observed_weight - jnp.where(both, weights.unobserved_weight, 0.0)


def _solve(system: _System, sums: jax.Array, weights: WALSWeights, dim: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """By Cholesky factors: the unknowns [M, f], the part of J of the rated pairs, beyond what Z'Z says of them [],
    and whether no factor shows that float32 does not hold a row's matrix []."""
    f = system.vector.shape[1]
    factor = jax.lax.linalg.cholesky(system.matrix, symmetrize_input=False)
    unknowns = _back(factor, system.vector)
    squares = _product("mf,mfg,mg->", unknowns, sums[:, :f, :f] * _rated_weight(f, dim, weights)[None], unknowns)
    rest = weights.observed_weight * jnp.sum(sums[:, dim + 1, dim + 1]) - 2 * jnp.sum(unknowns * system.vector)
    pivot = jnp.diagonal(factor, axis1=1, axis2=2) ** 2
    is_held = jnp.all(pivot > _LEAST_PIVOT * jnp.diagonal(system.matrix, axis1=1, axis2=2))
    return unknowns, squares + rest, is_held


def _solve_again(
    system: _System, x: jax.Array, segment_row: jax.Array, sums: jax.Array, weights: WALSWeights, dim: int
) -> tuple[jax.Array, jax.Array]:
    """The first two of `_solve` from the ratings, x [S, L, F], which hold more than sums of products of them."""
    f = system.vector.shape[1]
    unknowns = _solve_from_ratings(system, x[..., :f], segment_row, sums[:, :dim, :dim], weights)
    error = x[..., dim + 1] - _product("slf,sf->sl", x[..., :f], unknowns[segment_row])
    inner = _product("md,mde,me->", unknowns[:, :dim], sums[:, :dim, :dim], unknowns[:, :dim])
    return unknowns, weights.observed_weight * jnp.sum(error**2) - weights.unobserved_weight * inner


def _solve_from_ratings(
    system: _System, x: jax.Array, segment_row: jax.Array, embedding_sums: jax.Array, weights: WALSWeights
) -> jax.Array:
    """Unknowns [M, f] by conjugate gradients (Hestenes and Stiefel 1952), X'X never being formed.

    Preconditioned by the factor of the system with unit diagonal, to which as much is added as rounding can take away.
    """
    num_rows, f = system.vector.shape
    scale = jax.lax.rsqrt(jnp.diagonal(system.matrix, axis1=1, axis2=2))
    unit = system.matrix * scale[:, :, None] * scale[:, None, :]
    shift = 8 * f * jnp.finfo(unit.dtype).eps
    factor = jax.lax.linalg.cholesky(unit + shift * jnp.eye(f)[None], symmetrize_input=False)

    def apply(p: jax.Array) -> jax.Array:
        along = _product("slf,sf->sl", x, p[segment_row])
        rated = jax.ops.segment_sum(_product("slf,sl->sf", x, along), segment_row, num_rows)
        z = p[:, : embedding_sums.shape[1]]
        counted_twice = jnp.pad(_product("mde,me->md", embedding_sums, z), ((0, 0), (0, f - z.shape[1])))
        unrated = _product("fg,mg->mf", system.gram, p) - weights.unobserved_weight * counted_twice
        return weights.observed_weight * rated + unrated + system.penalty * p

    def step(_, state):
        unknowns, rest, direction, size = state
        applied = apply(direction)
        length = _ratio(size, jnp.sum(direction * applied, axis=1))[:, None]
        unknowns, rest = unknowns + length * direction, rest - length * applied
        towards = scale * _back(factor, scale * rest)
        new_size = jnp.sum(rest * towards, axis=1)
        return unknowns, rest, towards + _ratio(new_size, size)[:, None] * direction, new_size

    first = scale * _back(factor, scale * system.vector)
    state = (jnp.zeros_like(first), system.vector, first, jnp.sum(first * system.vector, axis=1))
    return jax.lax.fori_loop(0, _GRADIENT_STEPS, step, state)[0]


def _back(factor: jax.Array, vector: jax.Array) -> jax.Array:
    """(L L')^-1 v for L [M, f, f] and v [M, f]."""
    return jax.scipy.linalg.cho_solve((factor, True), vector[..., None])[..., 0]


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    """0 where there is nothing left to go."""
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), 0)


def penalty_scale(count: jax.Array, num_columns: jax.Array, weights: WALSWeights) -> jax.Array:
    """(observed_weight * n + unobserved_weight * (columns - n)) ** regularization_scaling."""
    total = weights.observed_weight * count + weights.unobserved_weight * (num_columns - count)
    return jnp.where(total > 0, total, 1.0) ** weights.regularization_scaling


# float32 throughout: the default precision of a TPU's matrix unit would break monotonicity.
_product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
