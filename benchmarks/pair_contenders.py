"""Pair selection, ours and by scikit-learn and NumPy, as contenders of `pair_selection`.

Each function imports its own library alone, and returns run(turn) -> (seconds, values to be
compared). A turn of a peer takes the first `number` prompts of the same data.
"""

from __future__ import annotations

import time

import numpy as np

_COMPARED = 64  # prompts whose pairs are sent back
_BLOCK = 64  # prompts drawn together
_BASE_ROWS = 4096  # different prompts of a stream


def prompts(number, num_responses, width, seed):
    """float32 [number, K, D]: responses of a prompt lie around a point of their own, in two groups.

    Their cosines are about 0.7, as between answers to one question. Fewer prompts are the
    beginning of more.
    """
    blocks = [
        _block(np.random.default_rng([seed, block]), num_responses, width) for block in range(-(-number // _BLOCK))
    ]
    return np.concatenate(blocks)[:number]


def _block(rng, num_responses, width):
    groups = rng.integers(0, 2, (_BLOCK, num_responses))
    embeddings = rng.standard_normal((_BLOCK, num_responses, width), np.float32) * 0.6
    embeddings += rng.standard_normal((_BLOCK, 1, width), np.float32)
    steps = rng.standard_normal((_BLOCK, 2, width), np.float32) * 0.4
    return embeddings + np.take_along_axis(steps, groups[..., None], axis=1)


def ours(*, strategy, num_responses, width, number, seed, rows_per_program):
    """`select_shards` on one shard of all prompts."""
    import jax

    from eagle_jax.real.selection.pair_shards import Shard, select_shards

    shard = Shard(prompts(number, num_responses, width, seed))

    def run(_):
        start = time.perf_counter()
        (pairs,) = select_shards(
            strategy, [shard], metric="cosine", key=jax.random.key(seed), rows_per_program=rows_per_program
        )
        seconds = time.perf_counter() - start
        return seconds, {"pairs": np.stack([pairs.first, pairs.second], 1)[:_COMPARED].tolist()}

    run(None)  # compiles
    return run


def loops(*, strategy, num_responses, width, number, seed, num_starts):
    """A loop over prompts: NumPy's cosines, or scikit-learn's k-means and the nearest members."""
    embeddings = prompts(number, num_responses, width, seed)
    select = _least_similar if strategy == "easy" else _nearest_to_centres(num_starts)

    def run(_):
        start = time.perf_counter()
        pairs = [select(responses) for responses in embeddings]
        seconds = time.perf_counter() - start
        return seconds, {"pairs": pairs[:_COMPARED]}

    return run


def _unit(responses):
    return responses / np.linalg.norm(responses, axis=1, keepdims=True)


def _least_similar(responses):
    unit = _unit(responses)
    upper = np.triu_indices(len(unit), 1)
    place = np.argmin((unit @ unit.T)[upper])
    return [int(upper[0][place]), int(upper[1][place])]


def _nearest_to_centres(num_starts):
    from sklearn.cluster import KMeans

    def select(responses):
        unit = _unit(responses)
        means = KMeans(n_clusters=2, n_init=num_starts, random_state=0).fit(unit)
        distances = means.transform(unit)
        own = means.labels_[:, None] == np.arange(2)
        # The first of members that are equally near, as of any cluster of two.
        return sorted(np.argmin(np.where(own, np.round(distances, 4), np.inf), axis=0).tolist())

    return select


def stream(*, strategy, num_responses, width, number, seed, rows_per_shard, rows_per_program):
    """`number` prompts, never all in memory: shards of the same few, shifted against each other."""
    import jax

    from eagle_jax.real.selection.pair_shards import Shard, select_shards

    base = prompts(_BASE_ROWS, num_responses, width, seed)

    def shards(count):
        for first in range(0, count, rows_per_shard):
            rows = np.arange(first, min(first + rows_per_shard, count))
            yield Shard(base[(rows * 31 + rows // _BASE_ROWS) % _BASE_ROWS])

    def run(_, count=number):
        start, num_selected = time.perf_counter(), 0
        for pairs in select_shards(
            strategy, shards(count), metric="cosine", key=jax.random.key(seed), rows_per_program=rows_per_program
        ):
            num_selected += int(pairs.is_valid.sum())
        return time.perf_counter() - start, {"selected": num_selected}

    run(None, min(number, rows_per_program))  # compiles
    return run
