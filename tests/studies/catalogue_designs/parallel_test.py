"""Spread over devices or threads, the designs are those of one call."""

import functools

import jax
import numpy as np
import pytest

from eagle_jax.design.g_optimal import GOptimalSettings, g_optimal_design
from eagle_jax.design.kept_subset import exchange_subset
from eagle_jax.studies.catalogue_designs import parallel as parallel_designs
from eagle_jax.studies.catalogue_designs.parallel import make_designer

SETTINGS = GOptimalSettings()
NUM_KEPT = 5


def draw(num_problems, dtype=np.float32):
    rows = np.random.default_rng(0).normal(size=(num_problems, 10, 3)).astype(dtype)
    rows[1, :, 2] = 0  # of rank 2
    rows[2, 5] = rows[2, 4]
    rows[3, 7, 1] = np.nan
    rows[4] = 0
    rows[num_problems - 1, 0, 0] = np.inf
    return rows


@functools.cache
def direct(dtype):
    """The two functions of the design layer, called by hand."""
    rows = draw(13, dtype)
    with jax.enable_x64(True):
        design = g_optimal_design(rows, SETTINGS)
        kept = exchange_subset(rows, NUM_KEPT, settings=SETTINGS)
    return rows, *jax.device_get((design, kept))


def assert_is_direct(designs, dtype):
    """The rows of `designs` against as many of the direct answer."""
    size = len(designs.rank)
    rows, design, kept = jax.tree.map(lambda leaf: leaf[:size], direct(dtype))
    for field in ("rank", "num_iterations", "converged"):
        np.testing.assert_array_equal(getattr(designs, field), getattr(design, field), field)
    # Compiled for other sizes, float64 sums are taken in another order.
    for field in ("design_weights", "approximation_factor"):
        np.testing.assert_allclose(
            getattr(designs, field), getattr(design, field), rtol=1e-6, atol=1e-12, err_msg=field
        )
    is_finite = np.isfinite(rows).all(axis=(1, 2))
    assert 0 < is_finite.sum() < size
    np.testing.assert_array_equal(designs.is_finite, is_finite)
    np.testing.assert_array_equal(designs.converged, is_finite)
    np.testing.assert_allclose(designs.kept_factor, kept.approximation_factor, rtol=1e-6)
    for problem, taken in enumerate(designs.kept_rows):
        if is_finite[problem]:
            counts = np.bincount(taken, minlength=rows.shape[1])
            np.testing.assert_array_equal(counts, kept.counts[problem])
        else:
            assert (taken == -1).all()


@pytest.fixture(scope="module")
def over_devices():
    assert len(jax.devices()) == 8
    return make_designer(SETTINGS, NUM_KEPT, 14, jax.devices(), 1)


@pytest.mark.parametrize("num_problems", [13, 7])
def test_a_mesh_of_eight_devices_gives_the_answer_of_one(over_devices, num_problems):
    assert_is_direct(over_devices(draw(13)[:num_problems]), "float32")


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    """Nor do parts that are filled up; and whatever is asked for, it is traced once."""
    traces = []

    def traced(*arguments):
        traces.append(arguments)
        return g_optimal_design(*arguments)

    monkeypatch.setattr(parallel_designs, "g_optimal_design", traced)
    one, many = (make_designer(SETTINGS, NUM_KEPT, 160, jax.devices()[:1], n) for n in (1, 3))
    rows = np.tile(draw(13), (12, 1, 1))
    answer = one(rows)
    assert_is_direct(type(answer)(*(leaf[:13] for leaf in answer)), "float32")
    for size in (len(rows), 70):
        for field, values in many(rows[:size])._asdict().items():
            np.testing.assert_array_equal(values, getattr(answer, field)[:size], field)
    assert len(traces) == 2


@pytest.mark.parametrize(("dtype", "answer"), [("float16", "float32"), ("float64", "float64")])
def test_floats_come_back_in_the_dtype_of_the_input(dtype, answer):
    designs = make_designer(SETTINGS, NUM_KEPT, 13, jax.devices()[:1], 2)(draw(13, dtype))
    for field in ("design_weights", "approximation_factor", "kept_factor"):
        assert getattr(designs, field).dtype == answer
    if dtype == "float64":
        assert_is_direct(designs, dtype)
