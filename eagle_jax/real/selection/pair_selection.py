"""Which two responses to label: REAL's pair selection (Zhang et al., arXiv 2409.17169, section 3).

easy: the least similar pair; hard: the most similar one; centroid: of each of two clusters the
response nearest to its centre; random: any pair with the same probability;
implicit_reward_gap_small and _large: the pair whose implicit rewards beta log(pi / pi_ref) differ
least or most (arXiv 2508.04149). Similarity is the cosine, or minus the Euclidean distance. Ties go
to the lowest places.

Axis letters: N prompts, K responses of each, D width of an embedding.
"""

from __future__ import annotations

import functools
import typing
from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.real.selection.two_means import two_means

Strategy = Literal["easy", "hard", "centroid", "random", "implicit_reward_gap_small", "implicit_reward_gap_large"]
STRATEGIES = typing.get_args(Strategy)
GAP_STRATEGIES = STRATEGIES[-2:]
METRICS = ("cosine", "euclidean")
# Of the largest squared distance between two responses: distances to a centre that differ less.
_TIE = 1e-5


class SelectedPairs(NamedTuple):
    """first and second [N] int32, places of the responses, first < second: no order of preference.

    similarity [N] float32: of the two; the cosine or minus the distance.
    is_valid [N] bool: there were two responses to select; else 0, 1 and 0.0, which mean nothing.
    num_unusable [N] int32: responses given as valid of which nothing can be computed: nan or inf in
        the embedding, zero with the cosine, or (where gaps select) a reward that is not finite.
    """

    first: jax.Array
    second: jax.Array
    similarity: jax.Array
    is_valid: jax.Array
    num_unusable: jax.Array


def select_within(
    strategy: str,
    embeddings: jax.Array,
    is_valid: jax.Array,
    implicit_rewards: jax.Array | None,
    *,
    metric: Literal["cosine", "euclidean"],
    key: jax.Array,
    first_row: jax.Array | int = 0,
) -> SelectedPairs:
    """One pair of responses for every prompt; what cannot be used is left out and counted.

    embeddings: [N, K, D], computed in float32. is_valid: [N, K]; what stands in the other places is
        not looked at. implicit_rewards: [N, K], needed by the implicit_reward_gap strategies.
    key: consumed by "random" alone; prompt i draws from fold_in(key, first_row + i), so that the
        draws do not depend on how prompts are divided into calls.
    centroid: k-means with two clusters (`two_means`), of the normalised embeddings with the cosine.
        A cluster is represented by a response of its own, so the two are never the same one; where
        all embeddings are equal they are the first two.
    Raises UserError for a strategy or metric that is not known and for missing rewards.
    """
    _check_choice("strategy", strategy, STRATEGIES)
    _check_choice("metric", metric, METRICS)
    if strategy in GAP_STRATEGIES and implicit_rewards is None:
        raise UserError(f"strategy {strategy!r} needs implicit rewards [N, K], got none")
    if embeddings.ndim != 3 or embeddings.shape[1] < 2:
        raise UserError(
            f"embeddings must be [N, K, D] with at least 2 responses per prompt, got {list(embeddings.shape)}"
        )
    return _select_within(strategy, embeddings, is_valid, implicit_rewards, first_row, metric=metric, key=key)


def _check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{what} {value!r} is not known; expected one of {', '.join(known)}")


@functools.partial(jax.jit, static_argnames=("strategy", "metric"))
def _select_within(strategy, embeddings, is_valid, implicit_rewards, first_row, *, metric, key):
    chex.assert_equal_shape_prefix([embeddings, is_valid], 2)
    embeddings, given = embeddings.astype(jnp.float32), is_valid.astype(bool)
    is_usable = given & _has_distances(embeddings, metric)
    if strategy in GAP_STRATEGIES:
        chex.assert_equal_shape([implicit_rewards, is_valid])
        is_usable &= jnp.isfinite(implicit_rewards)
    points, unit = _points(embeddings, is_usable, metric)
    if strategy == "random":
        rows = jnp.asarray(first_row, jnp.uint32) + jnp.arange(len(points), dtype=jnp.uint32)
        row_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)
        first, second = jax.vmap(_random_pair)(row_keys, is_usable)
    elif strategy == "centroid":
        distances = _squared_distances(points)
        first, second = jax.vmap(_centroid_pair)(distances, is_usable)
    elif strategy in GAP_STRATEGIES:
        rewards = jnp.where(is_usable, implicit_rewards.astype(jnp.float32), 0.0)
        gaps = jnp.abs(rewards[:, :, None] - rewards[:, None, :])
        sign = 1.0 if strategy == "implicit_reward_gap_large" else -1.0
        first, second = _best_pair(sign * gaps, is_usable)
    else:
        sign = 1.0 if strategy == "easy" else -1.0
        first, second = _best_pair(sign * _squared_distances(points), is_usable)
    has_pair = jnp.sum(is_usable, axis=1) >= 2
    first, second = jnp.minimum(first, second), jnp.maximum(first, second)
    return SelectedPairs(
        first=jnp.where(has_pair, first, 0).astype(jnp.int32),
        second=jnp.where(has_pair, second, 1).astype(jnp.int32),
        similarity=jnp.where(has_pair, _similarity(points, unit, first, second, metric), 0.0),
        is_valid=has_pair,
        num_unusable=jnp.sum(given & ~is_usable, axis=1).astype(jnp.int32),
    )


def _has_distances(embeddings, metric):
    """[N, K]: finite, and with the cosine not zero."""
    is_finite = jnp.all(jnp.isfinite(embeddings), axis=-1)
    if metric == "euclidean":
        return is_finite
    # Below the smallest normal number processors may read a zero.
    return is_finite & jnp.any(jnp.abs(embeddings) >= jnp.finfo(jnp.float32).tiny, axis=-1)


def _points(embeddings, is_usable, metric):
    """Points [N, K, D] of which the squared distances order the pairs, and their unit [N].

    On the unit sphere with the cosine: 1 - |x - y|^2 / 2. The first usable one is the origin, so
    that responses which are nearly alike are told apart; zero for what is not usable.
    """
    kept = jnp.where(is_usable[..., None], embeddings, 0.0)
    # Squares of what is scaled neither overflow nor vanish.
    largest = jnp.max(jnp.abs(kept), axis=-1)
    if metric == "euclidean":
        largest = jnp.broadcast_to(jnp.max(largest, axis=1, keepdims=True), largest.shape)
    largest = jnp.where(largest < jnp.finfo(jnp.float32).tiny, 1.0, largest)
    # In two steps: a compiler multiplies by the inverse, which is read as 0 if it is too small.
    step = jnp.where(largest > 2.0**64, 2.0**-64, jnp.where(largest < 2.0**-64, 2.0**64, 1.0))
    points = (kept * step[..., None]) / (largest * step)[..., None]
    if metric == "cosine":
        norms = jnp.linalg.norm(points, axis=-1, keepdims=True)
        points /= jnp.where(is_usable[..., None], norms, 1.0)
    first = jnp.argmax(is_usable, axis=1)
    points -= jnp.take_along_axis(points, first[:, None, None], axis=1)
    unit = largest[:, 0] if metric == "euclidean" else jnp.ones(len(points))
    return jnp.where(is_usable[..., None], points, 0.0), unit


def _squared_distances(points):
    """[N, K, D] -> [N, K, K]."""
    gram = jnp.einsum("nid,njd->nij", points, points, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.diagonal(gram, axis1=1, axis2=2)
    distances = jnp.maximum(norms[:, :, None] + norms[:, None, :] - 2.0 * gram, 0.0)
    return distances * (1.0 - jnp.eye(points.shape[1]))[None]


def _similarity(points, unit, first, second, metric):
    rows = (jnp.take_along_axis(points, place[:, None, None], axis=1) for place in (first, second))
    squared = jnp.sum((next(rows) - next(rows)) ** 2, axis=(1, 2))
    return 1.0 - 0.5 * squared if metric == "cosine" else -jnp.sqrt(squared) * unit


def _best_pair(values, is_usable):
    """Places [N], [N] of the largest value [N, K, K] above the diagonal, usable in both places."""
    num_responses = values.shape[1]
    is_pair = is_usable[:, :, None] & is_usable[:, None, :]
    is_pair &= jnp.triu(jnp.ones((num_responses, num_responses), bool), 1)[None]
    best = jnp.argmax(jnp.where(is_pair, values, -jnp.inf).reshape(len(values), -1), axis=1)
    return best // num_responses, best % num_responses


def _random_pair(key, is_usable):
    """Two places of [K], every pair of usable ones with the same probability."""
    first_key, second_key = jax.random.split(key)
    count = jnp.maximum(jnp.sum(is_usable), 2)
    first = jax.random.randint(first_key, (), 0, count)
    second = jax.random.randint(second_key, (), 0, count - 1)
    second += second >= first
    numbers = jnp.cumsum(is_usable) - 1
    return tuple(jnp.argmax(is_usable & (numbers == number)) for number in (first, second))


def _centroid_pair(squared_distances, is_usable):
    clusters = two_means(squared_distances, is_usable)
    # The two of a cluster of two are equally near to its centre, and rounding must not choose.
    tie = _TIE * jnp.max(squared_distances)

    def nearest(members):
        distances = jnp.where(members, clusters.centre_distances, jnp.inf)
        return jnp.argmax(distances <= jnp.min(distances) + tie)

    return nearest(clusters.is_first), nearest(clusters.is_second)


def select_across(
    strategy: str,
    similarities: jax.Array,
    implicit_reward_gaps: jax.Array | None,
    num_kept: int,
    *,
    key: jax.Array,
    is_valid: jax.Array,
) -> np.ndarray:
    """The prompts [num_kept] int32 whose pairs are labelled, one pair per prompt: what is left to
    choose with two responses (REAL, section 4).

    Best first, ties by row: a smaller num_kept gives the beginning of the same list. similarities,
    implicit_reward_gaps (of either sign), is_valid: [N]. The key is consumed by "random".
    Raises UserError for a strategy without a meaning here, for too few valid prompts, and for a
    valid one whose value is not finite, by its row.
    """
    across = tuple(name for name in STRATEGIES if name != "centroid")
    if strategy == "centroid":
        raise UserError("strategy 'centroid' selects within a prompt; across prompts use one of " + ", ".join(across))
    _check_choice("strategy", strategy, across)
    is_valid = np.asarray(is_valid, bool)
    if not 1 <= num_kept <= is_valid.sum():
        raise UserError(f"num_kept is {num_kept}, but {is_valid.sum()} of {len(is_valid)} prompts have a pair")
    if strategy == "random":
        order = np.asarray(jax.random.permutation(key, len(is_valid)))
        return order[is_valid[order]][:num_kept].astype(np.int32)
    what, values = "similarity", similarities
    if strategy in GAP_STRATEGIES:
        if implicit_reward_gaps is None:
            raise UserError(f"strategy {strategy!r} needs implicit reward gaps [N], got none")
        what, values = "implicit reward gap", np.abs(implicit_reward_gaps)
    values = np.asarray(values)
    if len(wrong := np.flatnonzero(is_valid & ~np.isfinite(values))):
        raise UserError(f"prompt {wrong[0]}: the {what} is {values[wrong[0]]}")
    sign = 1 if strategy in ("easy", "implicit_reward_gap_small") else -1
    order = np.argsort(sign * values, kind="stable")
    return order[is_valid[order]][:num_kept].astype(np.int32)
