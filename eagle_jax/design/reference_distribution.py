"""Which of an entity's candidate actions the reference policy learns from (EAGLE, section 4.3).

All kinds are judged on the same footing: the changes delta_a = z_a - z_anchor, projected on the
leading directions of their own span. Axis letters: K candidates, k kept, d domain width, r rank.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.base.settings import setting, settings
from eagle_jax.design.design_problem import GOptimalSettings, prepare
from eagle_jax.design.float64_batches import in_float64
from eagle_jax.design.g_optimal import g_optimal_design
from eagle_jax.design.kept_subset import approximation_factor, exchange_subset
from eagle_jax.design.next_embeddings import project_changes


class DesignNotConvergedError(ValueError):
    """The solver ran out of iterations before the certificate was good enough."""


@settings
class ReferenceDistributionSettings:
    """What the kinds need beside the number of candidates to keep."""

    rank: int = setting("r, directions of change, at most num_kept.", at_least=1)
    num_best: int = setting("Candidates that best_next_step keeps; the paper: 1.", at_least=1)
    subsample_factor: float = setting("C of g_optimal_subsample; the paper: 1.", above=0)
    max_draws: int = setting("After so many g_optimal_subsample gives up and keeps the last one.", at_least=1)
    solver: GOptimalSettings


class Chosen(NamedTuple):
    """The kept candidates and how well they cover the directions of change. NumPy values.

    indices: kept candidates, ascending: all valid ones for `uniform`, num_best for
        `best_next_step`, num_kept otherwise.
    design_weights: [K], the distribution q of this kind (for `g_optimal` the solver's).
    approximation_factor: max_a delta_a' M(q)^-1 delta_a / rank over all valid candidates; inf when
        q leaves out a direction.
    kept_approximation_factor: the same for equal weights 1 / k on `indices`, which is what the
        reference policy is trained on.
    rank: of the projected changes, at most settings.rank.
    kept_energy: share of the changes' energy on the leading settings.rank directions.
    num_draws, accepted: of the random kinds; an unaccepted `g_optimal_subsample` is its last draw.
    """

    indices: np.ndarray
    design_weights: np.ndarray
    approximation_factor: float
    kept_approximation_factor: float
    rank: int
    kept_energy: float
    num_draws: int
    accepted: bool


def choose(
    kind: str,
    next_embeddings: jax.Array,
    anchor_embedding: jax.Array,
    next_utilities: jax.Array,
    is_valid: jax.Array,
    *,
    num_kept: int,
    settings: ReferenceDistributionSettings,
    key: jax.Array,
) -> Chosen:
    """Choose the reference distribution over one entity's candidates (EAGLE, section 4.3), as the
    kind's function in `KINDS` says.

    Args:
      kind: one of KINDS.
      next_embeddings: [K, d]; rows that are not valid may hold anything. Keep K the same for all
        entities (mark the malformed as not valid): one compilation per kind and shape.
      anchor_embedding: [d].
      next_utilities: [K], utility after the candidate's step; used by `best_next_step`.
      is_valid: [K] bool.
      num_kept: k, at least settings.rank.
      settings: static.
      key: typed key; consumed by the random kinds, unused by the others.

    Raises:
      ValueError: unknown kind, too few valid candidates, num_kept below the rank, not finite.
      DesignNotConvergedError: the solver's certificate is worse than its settings demand.
    """
    _check_arguments(kind, next_embeddings, anchor_embedding, next_utilities, is_valid, num_kept, settings)
    changes, kept_energy = _project(next_embeddings, anchor_embedding, is_valid, rank=settings.rank)
    candidates = Candidates(changes, next_embeddings, next_utilities, is_valid)
    indices, num_draws, accepted = KINDS[kind].keep(candidates, num_kept, settings, key)
    is_kept = np.zeros(len(is_valid), bool)
    is_kept[np.asarray(indices)] = True
    weights = (is_kept / np.sum(is_kept)).astype(changes.dtype)
    kept_factor, rank = _judge(changes, weights, settings=settings.solver)
    factor = kept_factor
    solve = KINDS[kind].design
    # Where nothing moves the solver spreads its weight over every row, valid or not.
    if solve is not None and rank > 0:
        weights, factor = solve(changes, settings.solver)
    return Chosen(
        np.flatnonzero(is_kept),
        np.asarray(weights),
        float(factor),
        float(kept_factor),
        int(rank),
        float(kept_energy),
        int(num_draws),
        bool(accepted),
    )


def _check_arguments(kind, next_embeddings, anchor_embedding, next_utilities, is_valid, num_kept, settings):
    if kind not in KINDS:
        raise ValueError(f"unknown reference distribution {kind!r}, expected one of {tuple(KINDS)}")
    is_valid = np.asarray(is_valid)
    if next_utilities.shape != is_valid.shape or is_valid.shape != next_embeddings.shape[:1]:
        raise ValueError(
            "next_embeddings [K, d], next_utilities [K] and is_valid [K] must have the same K, got"
            f" {next_embeddings.shape}, {next_utilities.shape}, {is_valid.shape}"
        )
    needed = KINDS[kind].num_needed(num_kept, settings)
    if is_valid.sum() < needed:
        raise ValueError(f"{kind} keeps {needed} candidates, only {is_valid.sum()} are valid")
    if num_kept < settings.rank:
        raise ValueError(
            f"num_kept ({num_kept}) candidates cannot span rank ({settings.rank}) directions:"
            " keep more or lower the rank"
        )
    for name, values in (
        ("next_embeddings", np.asarray(next_embeddings)[is_valid]),
        ("anchor_embedding", np.asarray(anchor_embedding)),
        ("next_utilities", np.asarray(next_utilities)[is_valid]),
    ):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} of valid candidates must be finite, got nan or inf")


@functools.partial(jax.jit, static_argnames="rank")
@jax.default_matmul_precision("highest")
def _project(next_embeddings, anchor_embedding, is_valid, rank):
    # A candidate that is not valid changes nothing: no leverage, no influence on the directions.
    next_embeddings = jnp.where(is_valid[:, None], next_embeddings, anchor_embedding[None, :])
    return project_changes(next_embeddings, anchor_embedding, rank)


class Candidates(NamedTuple):
    """One entity's candidates as a kind sees them; rows that are not valid change nothing, and hold
    anything but in `changes`."""

    changes: jax.Array  # [K, r], projected
    next_embeddings: jax.Array  # [K, d]
    next_utilities: jax.Array  # [K]
    is_valid: jax.Array  # [K]


class Kind(NamedTuple):
    """keep: (candidates, num_kept, settings, key) -> indices, num_draws, accepted; design: (rows,
    solver's settings) -> q [K] and its approximation factor, where q is not equal weights on what
    is kept. num_needed: (num_kept, settings) -> candidates that have to be valid."""

    keep: Callable[[Candidates, int, ReferenceDistributionSettings, jax.Array], tuple]
    design: Callable[[jax.Array, GOptimalSettings], tuple[jax.Array, jax.Array]] | None = None
    num_needed: Callable[[int, ReferenceDistributionSettings], int] = lambda num_kept, _: num_kept


def _uniform(candidates, num_kept, settings, key):
    """All valid candidates."""
    return np.flatnonzero(candidates.is_valid), 0, True


def _random_subset(candidates, num_kept, settings, key):
    """num_kept of them at random (the control the paper lacks)."""
    return _draw_subset(key, candidates.is_valid, num_kept=num_kept), 1, True


def _best_next_step(candidates, num_kept, settings, key):
    """The num_best candidates of best next-step utility ("optimistic")."""
    utilities, is_valid = candidates.next_utilities, candidates.is_valid
    return _best(utilities, is_valid, num_best=settings.num_best), 0, True


def _g_optimal(candidates, num_kept, settings, key):
    """num_kept candidates by Fedorov exchange on log det, beside the solver's design q.

    Not the largest weights of q (kept factor of 100 Gaussian changes, r = 8, k = 10: 1.6 against
    2.0 in the median of 200 problems, 2.2 against 26 in the worst). approximation_factor certifies
    q; kept_approximation_factor says what equal weights on the kept candidates reach.
    """
    kept = exchange_subset(candidates.changes, num_kept, settings=settings.solver, is_valid=candidates.is_valid)
    return np.flatnonzero(np.asarray(kept.counts) > 0), 0, True


def _g_optimal_subsample(candidates, num_kept, settings, key):
    """The paper's rule: num_kept at random until max over the drawn a of z_a' Sigma^+ z_a <= C d,
    Sigma = mean over the drawn z z', on the z_a themselves.

    That maximum is never below rank Sigma and never above num_kept: with num_kept <= C d every
    draw passes, and with C = 1 and an invertible Sigma only one on which all leverages are equal.
    """
    rows, is_valid = candidates.next_embeddings, candidates.is_valid
    return _draw_until_accepted(key, rows, is_valid, num_kept=num_kept, settings=settings)


def _solve(changes, settings):
    """design_weights and approximation_factor of a design that converged."""
    design = g_optimal_design(changes, settings)
    if not design.converged:
        raise DesignNotConvergedError(
            f"approximation factor {design.approximation_factor:.6f} after"
            f" {settings.max_iterations} iterations, wanted {settings.max_approximation_factor}:"
            " raise one of the two"
        )
    return design.design_weights, design.approximation_factor


@in_float64("settings")
def _judge(changes, weights, settings):
    """approximation_factor [] of weights [K] on the changes, and the rank [] of these."""
    problem = prepare(changes, settings)
    return approximation_factor(problem, weights.astype(jnp.float64), settings), problem.rank


@functools.partial(jax.jit, static_argnames="num_best")
def _best(next_utilities, is_valid, num_best):
    """Indices [num_best] of the largest utilities of valid candidates."""
    return jax.lax.top_k(jnp.where(is_valid, next_utilities, -jnp.inf), num_best)[1]


@functools.partial(jax.jit, static_argnames="num_kept")
def _draw_subset(key, is_valid, num_kept):
    """num_kept distinct valid indices, uniformly at random."""
    probabilities = is_valid / jnp.sum(is_valid)
    return jax.random.choice(key, is_valid.shape[0], (num_kept,), replace=False, p=probabilities)


@functools.partial(jax.jit, static_argnames=("num_kept", "settings"))
@jax.default_matmul_precision("highest")
def _draw_until_accepted(key, next_embeddings, is_valid, num_kept, settings):
    """The paper's rule -> indices [k], num_draws, accepted."""
    # Leverages of num_kept independent rows are all num_kept, up to rounding.
    bound = settings.subsample_factor * next_embeddings.shape[1] * (1.0 + 1e-4)

    def draw(state):
        key, _, num_draws, _ = state
        key, draw_key = jax.random.split(key)
        indices = _draw_subset(draw_key, is_valid, num_kept=num_kept)
        variance = _variance_among(next_embeddings[indices], settings.solver.rank_tolerance)
        return key, indices, num_draws + 1, jnp.max(variance) <= bound

    _, indices, num_draws, accepted = jax.lax.while_loop(
        lambda state: (state[2] < settings.max_draws) & ~state[3],
        draw,
        (key, jnp.zeros(num_kept, jnp.int32), jnp.int32(0), jnp.bool_(False)),
    )
    return indices, num_draws, accepted


def _variance_among(rows, rank_tolerance):
    """z_a' Sigma^+ z_a [k] of the rows [k, d] that Sigma = mean z z' is made of.

    k times the squared norms of the rows of U, rows = U S V', on the directions that count.
    """
    left, singular_values, _ = jnp.linalg.svd(rows, full_matrices=False)
    is_direction = (singular_values > rank_tolerance * singular_values[0]) & (singular_values > 0)
    return rows.shape[0] * jnp.sum(jnp.where(is_direction[None, :], jnp.square(left), 0.0), axis=1)


# What is added here can be asked for by its name in design.kinds.
KINDS = {
    "uniform": Kind(_uniform),
    "random_subset": Kind(_random_subset),
    "best_next_step": Kind(_best_next_step, num_needed=lambda _, settings: settings.num_best),
    "g_optimal": Kind(_g_optimal, design=_solve),
    "g_optimal_subsample": Kind(_g_optimal_subsample),
}
