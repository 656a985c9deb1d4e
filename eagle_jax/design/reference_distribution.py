"""Which of an entity's candidate actions the reference policy learns from (EAGLE, section 4.3).

All kinds are judged on the same footing: the changes delta_a = z_a - z_anchor, projected on the
leading directions of their own span. Axis letters: K candidates, k kept, d domain width, r rank.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.design.g_optimal import GOptimalSettings, g_optimal_design, whiten
from eagle_jax.design.kept_subset import design_variance, exchange_subset
from eagle_jax.design.next_embeddings import project_changes

KINDS = ("uniform", "random_subset", "best_next_step", "g_optimal", "g_optimal_subsample")


class DesignNotConvergedError(ValueError):
    """The solver ran out of iterations before the certificate was good enough."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceDistributionSettings:
    """What the kinds need beside the number of candidates to keep.

    rank: r, directions of change the design is about; at most num_kept.
    num_best: candidates that `best_next_step` keeps (the paper: 1).
    subsample_factor: C of `g_optimal_subsample` (the paper: 1).
    max_draws: draws after which `g_optimal_subsample` gives up and keeps the last one.
    solver: settings of the design.
    """

    rank: int
    num_best: int
    subsample_factor: float
    max_draws: int
    solver: GOptimalSettings

    def __post_init__(self):
        for name in ("rank", "num_best", "max_draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.subsample_factor > 0:
            raise ValueError(f"subsample_factor must be above 0, got {self.subsample_factor}")


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
    """Choose the reference distribution over one entity's candidates (EAGLE, section 4.3).

    - `uniform`: all valid candidates.
    - `random_subset`: num_kept of them at random (the control the paper lacks).
    - `best_next_step`: the num_best candidates of best next-step utility ("optimistic").
    - `g_optimal`: the solver's design q on the projected changes; kept are num_kept candidates by
      Fedorov exchange on log det, not the largest weights of q (kept factor of 100 Gaussian
      changes, r = 8, k = 10: 1.6 against 1.9 in the median of 60 problems, 2.2 against 4.3 in the
      worst). approximation_factor certifies q; kept_approximation_factor says what equal weights
      on the kept candidates reach.
    - `g_optimal_subsample`: the paper's rule: num_kept at random until
      max over the drawn a of z_a' Sigma^+ z_a <= C d, Sigma = mean over the drawn z z', on the z_a
      themselves. That maximum is never below rank Sigma and never above num_kept: with
      num_kept <= C d every draw passes, and with C = 1 and an invertible Sigma only a draw
      on which all leverages are equal does.

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
    _check_arguments(
        kind, next_embeddings, anchor_embedding, next_utilities, is_valid, num_kept, settings
    )
    output = _choose(
        kind, next_embeddings, anchor_embedding, next_utilities, is_valid, num_kept, settings, key
    )
    is_kept, weights, factor, kept_factor, rank, energy, num_draws, accepted, converged = (
        jax.device_get(output)
    )
    if not converged:
        raise DesignNotConvergedError(
            f"approximation factor {factor:.4f} after {settings.solver.max_iterations} iterations,"
            f" wanted {settings.solver.max_approximation_factor}: raise one of the two"
        )
    return Chosen(
        np.flatnonzero(is_kept), weights, float(factor), float(kept_factor), int(rank),
        float(energy), int(num_draws), bool(accepted),
    )


def _check_arguments(
    kind, next_embeddings, anchor_embedding, next_utilities, is_valid, num_kept, settings
):
    if kind not in KINDS:
        raise ValueError(f"unknown reference distribution {kind!r}, expected one of {KINDS}")
    is_valid = np.asarray(is_valid)
    if next_utilities.shape != is_valid.shape or is_valid.shape != next_embeddings.shape[:1]:
        raise ValueError(
            "next_embeddings [K, d], next_utilities [K] and is_valid [K] must have the same K, got"
            f" {next_embeddings.shape}, {next_utilities.shape}, {is_valid.shape}"
        )
    needed = settings.num_best if kind == "best_next_step" else num_kept
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


def _draw_subset(key, is_valid, num_kept):
    """num_kept distinct valid indices, uniformly at random."""
    probabilities = is_valid / jnp.sum(is_valid)
    return jax.random.choice(
        key, is_valid.shape[0], (num_kept,), replace=False, p=probabilities
    )


def _draw_until_accepted(key, next_embeddings, is_valid, num_kept, settings):
    """The paper's rule -> indices [k], num_draws, accepted."""
    # Leverages of num_kept independent rows are all num_kept, up to rounding.
    bound = settings.subsample_factor * next_embeddings.shape[1] * (1.0 + 1e-4)
    equal_weights = jnp.full(num_kept, 1.0 / num_kept, next_embeddings.dtype)

    def draw(state):
        key, _, num_draws, _ = state
        key, draw_key = jax.random.split(key)
        indices = _draw_subset(draw_key, is_valid, num_kept)
        drawn = next_embeddings[indices]
        variance, _ = design_variance(drawn, equal_weights, drawn, settings.solver.rank_tolerance)
        return key, indices, num_draws + 1, jnp.max(variance) <= bound

    _, indices, num_draws, accepted = jax.lax.while_loop(
        lambda state: (state[2] < settings.max_draws) & ~state[3],
        draw,
        (key, jnp.zeros(num_kept, jnp.int32), jnp.int32(0), jnp.bool_(False)),
    )
    return indices, num_draws, accepted


@functools.partial(jax.jit, static_argnames=("kind", "num_kept", "settings"))
@jax.default_matmul_precision("highest")
def _choose(
    kind, next_embeddings, anchor_embedding, next_utilities, is_valid, num_kept, settings, key
):
    num_candidates = next_embeddings.shape[0]
    # A candidate that is not valid changes nothing: no leverage, no influence on the directions.
    next_embeddings = jnp.where(is_valid[:, None], next_embeddings, anchor_embedding[None, :])
    changes, kept_energy = project_changes(next_embeddings, anchor_embedding, settings.rank)
    whitened = whiten(changes, settings.solver.rank_tolerance)
    num_draws, accepted, converged = jnp.int32(0), jnp.bool_(True), jnp.bool_(True)

    if kind == "uniform":
        is_kept = is_valid
    elif kind == "best_next_step":
        _, indices = jax.lax.top_k(
            jnp.where(is_valid, next_utilities, -jnp.inf), settings.num_best
        )
        is_kept = jnp.zeros(num_candidates, bool).at[indices].set(True)
    elif kind == "random_subset":
        indices, num_draws = _draw_subset(key, is_valid, num_kept), jnp.int32(1)
        is_kept = jnp.zeros(num_candidates, bool).at[indices].set(True)
    elif kind == "g_optimal_subsample":
        indices, num_draws, accepted = _draw_until_accepted(
            key, next_embeddings, is_valid, num_kept, settings
        )
        is_kept = jnp.zeros(num_candidates, bool).at[indices].set(True)
    else:
        is_kept = exchange_subset(whitened.rows, is_valid, num_kept)

    kept_weights = is_kept / jnp.sum(is_kept)
    kept_factor = _approximation_factor(whitened, kept_weights, settings)
    weights, factor = kept_weights, kept_factor
    if kind == "g_optimal":
        design = g_optimal_design(changes, settings.solver)
        # Where nothing moves the solver spreads its weight over every row, valid or not.
        weights = jnp.where(whitened.rank > 0, design.design_weights, kept_weights)
        factor = design.approximation_factor
        converged = design.converged
    return (
        is_kept, weights, factor, kept_factor, whitened.rank, kept_energy,
        num_draws, accepted, converged,
    )


def _approximation_factor(whitened, weights, settings):
    """max leverage / rank under the given weights; inf when they miss a direction."""
    variance, rank = design_variance(
        whitened.rows, weights, whitened.rows, settings.solver.rank_tolerance
    )
    factor = jnp.max(variance) / jnp.maximum(whitened.rank, 1)
    return jnp.where(
        whitened.rank == 0, 1.0, jnp.where(rank < whitened.rank, jnp.inf, factor)
    )
