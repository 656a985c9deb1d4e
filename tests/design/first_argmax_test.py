"""The first of the largest: NumPy's on all kinds of values, and whatever a compiler computes twice."""

import jax
import numpy as np
import pytest

from eagle_jax.design.float64_batches import first_argmax
from tests.programs import environment_of, run_module


@pytest.mark.parametrize(
    ("values", "index"),
    [
        ([1.0, 3.0, 2.0], 1),
        ([2.0, 3.0, 3.0], 1),
        ([-0.0, 0.0], 0),
        ([-np.inf, -np.inf], 0),
        ([np.nan, 1.0, 2.0, 2.0], 2),
        ([2.0, np.nan, 1.0], 0),
        ([np.nan, np.nan, np.nan], 2),
        ([7.0], 0),
    ],
)
def test_by_hand(values, index):
    assert int(first_argmax(np.array(values))) == index
    assert np.asarray(jax.vmap(first_argmax)(np.array([values, values[::-1]])))[0] == index


def test_it_is_numpy_s_on_many_values_with_ties():
    values = np.random.default_rng(0).integers(50, size=(40, 1000)).astype(np.float64)
    np.testing.assert_array_equal(jax.jit(jax.vmap(first_argmax))(values), values.argmax(axis=1))


def test_exchanges_are_right_where_the_compiler_computes_gains_twice():
    """XLA without its emitters and optimisations rounds the gains and their maximum differently: a row that was looked
    for by its maximum was then none, and the last row was exchanged in its place."""
    flags = f"{environment_of()['XLA_FLAGS']} --xla_cpu_use_fusion_emitters=false"
    variables = {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    tests = ("tests/design/kept_subset_test.py", "-k", "no_single_exchange", "-n", "0", "-q", "-p", "no:cacheprovider")
    done = run_module("pytest", *tests, **variables)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout
