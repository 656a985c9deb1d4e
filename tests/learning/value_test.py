"""Running statistics against NumPy, and where the value network begins."""

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.learning.value import (
    ValueSettings,
    deviation,
    fit,
    init_value,
    no_statistics,
    observe,
    predict,
    standardize,
    update_statistics,
)


def test_statistics_of_parts_are_those_of_the_whole():
    rows = np.random.default_rng(0).normal(3.0, 2.0, size=(50, 6)).astype(np.float32)
    rows[:, 2:5] = 7.1, 7.1e5, 7.1e-5  # do not vary
    rows[:, 5] *= 1e-7
    statistics = no_statistics((6,))
    for part in np.split(rows, [5, 6, 30]):
        statistics = update_statistics(statistics, jnp.asarray(part))
    np.testing.assert_allclose(statistics.mean, rows.mean(0), rtol=1e-5)
    varying = [0, 1, 5]
    expected = np.float64(rows).std(0)[varying]
    np.testing.assert_allclose(deviation(statistics)[varying,], expected, rtol=1e-5)
    np.testing.assert_array_equal(deviation(statistics)[2:5], 1.0)


def test_values_are_standardised_unless_they_differ_by_rounding():
    values = np.random.default_rng(1).normal(size=64).astype(np.float32)
    expected = (values - values.mean()) / np.float64(values).std()
    np.testing.assert_allclose(standardize(values, jnp.float32(3.0)), expected, rtol=1e-5)
    np.testing.assert_array_equal(standardize(values * 1e-7, jnp.float32(1.0)), 0.0)
    assert np.isnan(standardize(values * np.nan, jnp.float32(1.0))).all()


def test_value_begins_as_the_mean_return_and_learns():
    settings = ValueSettings(value_hidden=(8, 5), value_learning_rate=1e-2, value_updates=500)
    features = np.random.default_rng(2).normal(size=(4, 3, 2)).astype(np.float32)
    returns = np.array([10.0, 20.0, 60.0, 10.0], np.float32)
    state = observe(init_value(jax.random.key(0), 2, settings), features, returns)
    np.testing.assert_array_equal(predict(state, features), np.full((4, 3), 25.0))
    assert [layer["kernel"].shape for layer in state.params] == [(3, 8), (8, 5), (5, 1)]
    wanted = np.tile(returns[:, None], 3)
    state, loss = fit(state, settings, features, wanted)
    np.testing.assert_allclose(loss, 0.5, rtol=1e-5)  # half the variance of standardised returns
    np.testing.assert_allclose(predict(state, features), wanted, atol=0.01)
