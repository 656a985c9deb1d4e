"""How a function of one design problem is run: in float64, and over a batch of problems.

A certificate is only worth its arithmetic, so it is float64 whatever the input is.
"""

import functools
import math

import jax
import jax.numpy as jnp


def in_float64(*static_argnames: str):
    """Jit `function(rows, ...)` with float64 arithmetic; floats come back in the rows' dtype.

    64-bit types are switched on for the call only, so a float32 program needs no setting. It also
    works inside a caller's own jit, which is lowered after the switch is back: therefore code
    below must not use what JAX lowers through Python in the caller's mode (argmax, argmin).
    Matmuls are exact to the last bits: accelerators multiply float32 in fewer by default.
    """

    def decorate(function):
        @functools.partial(jax.jit, static_argnames=static_argnames)
        def jitted(rows, *args, **kwargs):
            dtype = jnp.promote_types(rows.dtype, jnp.float32)

            def back(leaf):
                is_integer = jnp.issubdtype(leaf.dtype, jnp.integer)
                return leaf.astype(jnp.int32 if is_integer else dtype)

            with jax.default_matmul_precision("highest"):
                output = function(_as_float64(rows), *args, **kwargs)
            return jax.tree.map(lambda leaf: leaf if leaf.dtype == bool else back(leaf), output)

        @functools.wraps(function)
        def computed_in_float64(rows, *args, **kwargs):
            rows = jnp.asarray(rows)  # in the caller's mode: NumPy's float64 may mean float32
            with jax.enable_x64(True):
                return jitted(rows, *args, **kwargs)

        return computed_in_float64

    return decorate


def _as_float64(rows):
    """Rows in float64; float32's numbers below 1.2e-38 as well, which hardware reads as zeros."""
    if rows.dtype == jnp.float64:
        return rows
    bits = jax.lax.bitcast_convert_type(rows.astype(jnp.float32), jnp.int32)
    subnormal = jnp.sign(bits) * (bits & 0x7FFFFF).astype(jnp.float64) * 2.0**-149
    return jnp.where((bits & 0x7F800000) == 0, subnormal, rows.astype(jnp.float64))


def over_problems(solve, rows: jax.Array, *per_problem: jax.Array):
    """`solve(rows [K, d], ...)` of every problem in rows [..., K, d] and arrays of the same batch.

    One problem after the other is 1.2 to 2 times faster on a CPU, whose caches hold one problem;
    accelerators want them side by side.
    """
    batch = rows.shape[:-2]
    if not batch:
        return solve(rows, *per_problem)
    flat = [array.reshape(math.prod(batch), *array.shape[len(batch) :]) for array in (rows, *per_problem)]
    if jax.default_backend() == "cpu":
        output = jax.lax.map(lambda problem: solve(*problem), flat)
    else:
        output = jax.vmap(solve)(*flat)
    return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), output)


def first_argmax(values: jax.Array) -> jax.Array:
    """[] int32, the first index of the largest value; nan is no value, and the last row's where all are.

    One reduction of (value, index): a compiler may compute the values once for their maximum and again
    to look for it, and where it rounds these differently, no value equals the maximum.
    """
    last = jnp.int32(values.shape[0] - 1)
    is_nan = jnp.isnan(values)
    index = jnp.where(is_nan, last, jnp.arange(values.shape[0], dtype=jnp.int32))

    def larger(one, other):
        is_other = (other[0] > one[0]) | ((other[0] == one[0]) & (other[1] < one[1]))
        return jnp.where(is_other, other[0], one[0]), jnp.where(is_other, other[1], one[1])

    nothing = jnp.array(-jnp.inf, values.dtype), last
    return jax.lax.reduce((jnp.where(is_nan, -jnp.inf, values), index), nothing, larger, (0,))[1]
