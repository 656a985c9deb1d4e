"""U of many points beside a large catalogue, by this build and by an earlier one, as contenders of `nearest`.

Nothing of the package is imported before a contender says which checkout it comes from.
"""

import sys
import time

import numpy as np

from benchmarks.wals_contenders import matmul_operations
from benchmarks.worker import processor_seconds


def utility(*, num_items, num_points, dim, checkout):
    """`content_gap_utility` with three neighbours; `checkout` is the folder of another build, None this one.

    A turn's values are processor seconds, the first points' neighbour term, and a large product's operations a second.
    """
    if checkout is not None:
        sys.path.insert(0, checkout)
    import jax
    import jax.numpy as jnp

    from eagle_jax.embeddings import utility

    rng = np.random.default_rng(0)
    catalogue = jnp.asarray(rng.normal(size=(num_items, dim)), jnp.float32)
    points = jnp.asarray(rng.normal(size=(num_points, dim)), jnp.float32)
    weights = {"neighbor_weight": 0.3, "num_neighbors": 3}
    is_earlier = not hasattr(utility, "UtilitySettings")
    settings = weights if is_earlier else {"settings": utility.UtilitySettings(**weights)}

    compiled = utility.content_gap_utility.lower(points, points, catalogue, **settings).compile()
    traced = {"neighbor_weight": weights["neighbor_weight"]} if is_earlier else {}
    flops = matmul_operations(jax, jnp)

    def run(_):
        start, processor_start = time.perf_counter(), processor_seconds()
        terms = jax.block_until_ready(compiled(points, points, catalogue, **traced))
        seconds, processor = time.perf_counter() - start, processor_seconds() - processor_start
        distances = np.asarray(terms.neighbor_distance_term[:64]).tolist()
        return seconds, {"processor_seconds": processor, "distances": distances, "matmul_flops": flops}

    return run
