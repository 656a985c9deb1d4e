"""Designs of many problems at once: over the devices of a mesh, or over the threads of one CPU.

Every problem is solved by itself: how many threads there are changes the time and not a bit of the
answer, how many devices there are no more than its last bits (they run another compiled program).

Axis letters: n problems, K candidates, k kept candidates, d domain width.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from eagle_jax.design.g_optimal import GOptimalSettings, g_optimal_design
from eagle_jax.design.kept_subset import exchange_subset

# Of one program on one CPU: few enough that no thread has long to wait for the slowest, and always
# the same, since programs of other sizes may round differently.
_PROBLEMS_PER_THREAD = 64


class CatalogueDesigns(NamedTuple):
    """NumPy arrays, one row per problem; floats in the input's dtype, float32 for float16.

    A problem with a nan or inf: is_finite and converged False, weights and factors nan, rank 0,
    kept_rows -1.
    """

    design_weights: np.ndarray  # [n, K]
    approximation_factor: np.ndarray  # [n] of the design, the certificate
    rank: np.ndarray  # [n] int32
    num_iterations: np.ndarray  # [n] int32
    converged: np.ndarray  # [n] bool
    is_finite: np.ndarray  # [n] bool
    kept_rows: np.ndarray  # [n, k] int32, ascending
    kept_factor: np.ndarray  # [n] of equal weights on the kept rows; inf: they miss a direction


def make_designer(
    settings: GOptimalSettings, num_kept: int, problems_per_chunk: int, devices: Sequence[jax.Device], num_threads: int
) -> Callable[[np.ndarray], CatalogueDesigns]:
    """A function from next embeddings [n, K, d] to their designs and kept subsets.

    Takes at most problems_per_chunk at once and fills up fewer, so that there is one compilation.
    The problems are sharded over a mesh axis `data` of the devices. One CPU device solves one
    problem after the other on one core, but several host threads may each have it run a program:
    there num_threads of them share the work. (Elsewhere one call does it all.)
    """
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    spec = PartitionSpec("data")
    sharding = NamedSharding(mesh, spec)
    is_one_cpu = len(devices) == 1 and devices[0].platform == "cpu"
    multiple = _PROBLEMS_PER_THREAD if is_one_cpu else len(devices)
    padded_size = -(-problems_per_chunk // multiple) * multiple
    num_parts = padded_size // _PROBLEMS_PER_THREAD if is_one_cpu else 1

    # Loops start from constants, which do not vary over the mesh, and check_vma refuses those.
    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    def solve(next_embeddings):
        design = g_optimal_design(next_embeddings, settings)
        return design, exchange_subset(next_embeddings, num_kept, settings=settings)

    @functools.cache
    def compiled(shape, dtype):
        with jax.enable_x64(True):
            return solve.lower(jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)).compile()

    def solve_part(program, rows):
        # Threads begin with the switch off, which would make float32 of float64 rows.
        with jax.enable_x64(True):
            design, kept = jax.device_get(program(jax.device_put(rows, sharding)))
        return _to_designs(rows, design, kept, num_kept)

    def design_all(next_embeddings):
        size = len(next_embeddings)
        padded = np.pad(next_embeddings, ((0, padded_size - size), (0, 0), (0, 0)))
        parts = np.split(padded, num_parts)
        program = compiled(parts[0].shape, parts[0].dtype)  # here, not by every thread at once
        with ThreadPoolExecutor(num_threads) as pool:
            parts = list(pool.map(functools.partial(solve_part, program), parts))
        return CatalogueDesigns(*(np.concatenate(leaves)[:size] for leaves in zip(*parts, strict=True)))

    return design_all


def _to_designs(rows, design, kept, num_kept) -> CatalogueDesigns:
    is_finite = np.isfinite(rows).all(axis=(1, 2))
    kept_rows = np.full((len(rows), num_kept), -1, np.int32)
    # No row is taken twice, and always num_kept of them.
    kept_rows[is_finite] = np.nonzero(kept.counts[is_finite])[1].reshape(-1, num_kept)
    return CatalogueDesigns(
        design_weights=design.design_weights,
        approximation_factor=design.approximation_factor,
        rank=design.rank,
        num_iterations=design.num_iterations,
        converged=design.converged,
        is_finite=is_finite,
        kept_rows=kept_rows,
        kept_factor=kept.approximation_factor,
    )
