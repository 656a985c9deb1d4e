"""Running statistics against NumPy, and where the value network begins."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.learning.value import (
    apply_value,
    deviation,
    init_value,
    no_statistics,
    update_statistics,
)


def test_statistics_of_parts_are_those_of_the_whole():
    rows = np.random.default_rng(0).normal(3.0, 2.0, size=(50, 3)).astype(np.float32)
    rows[:, 2] = 7.0  # does not vary
    statistics = no_statistics((3,))
    for part in np.split(rows, [5, 6, 30]):
        statistics = update_statistics(statistics, jnp.asarray(part))
    np.testing.assert_allclose(statistics.mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation(statistics)[:2], rows.std(0)[:2], rtol=1e-5)
    assert deviation(statistics)[2] == 1.0


def test_value_begins_at_zero_and_can_move():
    inputs = jnp.ones((4, 3))
    params = init_value(jax.random.key(0), 3, (8, 5))
    np.testing.assert_array_equal(apply_value(params, inputs), np.zeros(4))
    assert [layer["kernel"].shape for layer in params] == [(3, 8), (8, 5), (5, 1)]
    gradients = jax.grad(lambda p: jnp.sum(apply_value(p, inputs)))(params)
    assert float(jnp.abs(gradients[-1]["kernel"]).max()) > 0
