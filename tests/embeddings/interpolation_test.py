"""Ways between embeddings: SciPy's rotations, worked points, laws, and what has no way."""

import numpy as np
import pytest
from scipy.spatial import geometric_slerp

from eagle_jax.base.errors import UserError
from eagle_jax.embeddings.interpolation import interpolate


def unit_rows(seed, shape):
    rows = np.random.default_rng(seed).normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_by_hand():
    first, second = np.array([2.0, 0.0]), np.array([0.0, 4.0])
    np.testing.assert_allclose(interpolate(first, second, 0.25), [1.5, 1.0])
    # A third of 90 degrees is 30 degrees; a third of the way from length 2 to 4 is 8 / 3.
    third = interpolate(first, second, 1 / 3, "spherical")
    np.testing.assert_allclose(third, 8 / 3 * np.array([np.sqrt(3) / 2, 0.5]))


def test_spherical_matches_scipy():
    first, second = unit_rows(0, (5, 7)), unit_rows(1, (5, 7))
    for alpha in (0.0, 0.3, 0.5, 1.0):
        expected = [geometric_slerp(a, b, alpha) for a, b in zip(first, second, strict=True)]
        made = interpolate(first, second, alpha, "spherical")
        np.testing.assert_allclose(made, expected, atol=1e-12)


@pytest.mark.parametrize("how", ["linear", "spherical"])
def test_laws(how):
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 3, 4, 6))
    np.testing.assert_allclose(interpolate(first, second, 0.0, how), first)
    np.testing.assert_allclose(interpolate(first, second, 1.0, how), second)
    np.testing.assert_allclose(interpolate(first, second, 0.3, how), interpolate(second, first, 0.7, how))
    np.testing.assert_allclose(interpolate(5 * first, 5 * second, 0.3, how), 5 * interpolate(first, second, 0.3, how))
    np.testing.assert_allclose(interpolate(first, first, 0.3, how), first)
    np.testing.assert_allclose(  # a row does not depend on the others
        interpolate(first, second, 0.3, how)[1, 2], interpolate(first[1, 2], second[1, 2], 0.3, how)
    )


def test_nearly_equal_and_nearly_opposite():
    first = np.array([1.0, 0.0])
    near = interpolate(first, np.array([1.0, 1e-9]), 0.5, "spherical")
    np.testing.assert_allclose(near, [1.0, 5e-10], rtol=1e-12)
    far = interpolate(first, np.array([-1.0, 1e-3]), 0.5, "spherical")
    np.testing.assert_allclose(far / np.linalg.norm(far), [0.0, 1.0], atol=1e-3)


def test_what_has_no_way_between():
    rows = np.float32(unit_rows(5, (3, 4)))
    opposite = rows.copy()
    opposite[1] *= -2.5
    with pytest.raises(UserError, match=r"row 1 \(1 such rows\).*opposite"):
        interpolate(rows, opposite, 0.5, "spherical")
    assert np.isfinite(interpolate(rows, opposite, 0.5)).all()
    with pytest.raises(UserError, match="row 1 .*cancel at alpha 0.5"):
        interpolate(rows, rows * np.float32([[1.0], [-1.0], [1.0]]), 0.5)
    for bad, value in (("second", 0.0), ("second", np.nan)):
        broken = rows.copy()
        broken[2] = value
        for how in ("linear", "spherical"):
            with pytest.raises(UserError, match=f"row 2 .*the {bad} embedding is zero or not fin"):
                interpolate(rows, broken, 0.5, how)
    with pytest.raises(UserError, match="one shape"):
        interpolate(rows, rows[:, :3], 0.5)
    for alpha in (-0.1, 1.1, np.nan):
        with pytest.raises(UserError, match="alpha must lie"):
            interpolate(rows, rows, alpha)
    with pytest.raises(UserError, match="no interpolation 'cubic'"):
        interpolate(rows, rows, 0.5, "cubic")
