"""The utility against a float64 loop, and its laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import told
from eagle_jax.embeddings.scorer import Scorer
from eagle_jax.embeddings.utility import UtilitySettings, catalogue_neighbor_limit, content_gap_utility


def _settings(weight=1.0, num_neighbors=3, neighbor_cap=None):
    return UtilitySettings(neighbor_weight=weight, num_neighbors=num_neighbors, neighbor_cap=neighbor_cap)


def _problem(seed, batch=11, num_entities=37, d=5):
    rng = np.random.default_rng(seed)
    shapes = ((batch, d), (batch, d), (num_entities, d))
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def _loop(domain, users, catalogue, neighbor_weight, num_neighbors):
    user_terms, distances = [], []
    for z, user in zip(domain.astype(np.float64), users.astype(np.float64), strict=True):
        all_distances = sorted(np.sqrt(((z - other) ** 2).sum()) for other in catalogue)
        user_terms.append(z @ user)
        distances.append(sum(all_distances[:num_neighbors]))
    user_terms, distances = np.array(user_terms), np.array(distances)
    return user_terms + neighbor_weight * distances, user_terms, distances


@pytest.mark.parametrize("num_neighbors", [1, 3, 37])
def test_matches_a_float64_loop(num_neighbors):
    domain, users, catalogue = _problem(0)
    expected = _loop(domain, users, catalogue, 0.7, num_neighbors)
    terms = content_gap_utility(domain, users, catalogue, _settings(0.7, num_neighbors))
    np.testing.assert_allclose(terms.utility, expected[0], rtol=2e-6, atol=1e-5)
    np.testing.assert_allclose(terms.user_term, expected[1], rtol=2e-6, atol=1e-5)
    np.testing.assert_allclose(terms.neighbor_distance_term, expected[2], rtol=2e-6)
    assert terms.creator_term is None


def test_worked_arithmetic():
    # z = (3, 4), user (1, 2): 3 + 8 = 11. Distances to the four entities: 5, 4, 0, 10.
    # The nearest three: 0 + 4 + 5 = 9. U = 11 + 0.5 + 2 * 9 = 29.5.
    # The mean user (1, 1) would have 3 + 4 = 7; this one has 4 more.
    catalogue = jnp.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0], [9.0, 12.0]])
    terms = content_gap_utility(
        jnp.array([[3.0, 4.0]]),
        jnp.array([[1.0, 2.0]]),
        catalogue,
        _settings(2.0),
        creator_utility=jnp.array([0.5]),
        mean_user=jnp.array([1.0, 1.0]),
    )
    assert [float(term[0]) for term in terms] == [29.5, 11.0, 0.5, 9.0, 7.0, 4.0]


def test_small_distances_survive_large_norms():
    # Expanded squares |a|^2 - 2ab + |b|^2 would lose this distance at norm 1000 in float32.
    catalogue = jnp.array([[1000.0, 0.0], [0.0, 0.0]])
    near = jnp.array([[1000.0, 2.0**-10]])
    terms = content_gap_utility(near, near * 0, catalogue, _settings(num_neighbors=1))
    assert float(terms.neighbor_distance_term[0]) == 2.0**-10


def test_gradient_is_finite_at_an_existing_entity():
    domain, users, catalogue = _problem(4)

    def total(domain):
        return jnp.sum(content_gap_utility(domain, users, catalogue, _settings()).utility)

    assert np.all(np.isfinite(jax.grad(total)(jnp.asarray(catalogue[:11]))))


def test_more_neighbors_than_entities_is_refused():
    domain, users, catalogue = _problem(5)
    with pytest.raises(ValueError, match="num_neighbors is 38"):
        content_gap_utility(domain, users, catalogue, _settings(num_neighbors=38))


@pytest.mark.parametrize("sign", [0x7FC00000, 0xFFC00000])
def test_a_row_of_nan_takes_no_neighbors_place(sign):
    """top_k orders a NaN by its sign bit: one sign is taken as the nearest, one as the farthest."""
    nan = np.array([sign], np.uint32).view(np.float32)[0]
    assert np.isnan(nan) and np.signbit(nan) == (sign == 0xFFC00000)
    domain, users, catalogue = _problem(6)
    catalogue[5, 2] = nan
    for negated in (catalogue, -catalogue):
        terms = content_gap_utility(domain, users, negated, _settings())
        assert np.isnan(terms.neighbor_distance_term).all() and np.isnan(terms.utility).all()
        assert np.isfinite(terms.user_term).all()
    domain[3] = nan  # a text without an embedding has no distance to anything, 0 among others
    terms = content_gap_utility(domain, users, users, _settings())
    np.testing.assert_array_equal(np.isnan(terms.neighbor_distance_term), np.arange(11) == 3)
    with pytest.raises(UserError, match="catalogue_embeddings: row 5 holds NaN or infinity"):
        Scorer(None, users, catalogue, _settings())


def test_capped_novelty_by_hand():
    # On a line at 0, 1, 3 and 7, the nearest other is 1, 1, 2 and 4 away: the median is 1.5, the largest 4.
    catalogue, points = np.float32([[0], [1], [3], [7]]), np.float32([[10], [0.5], [7]])
    for cap, limit, expected in ((0.5, 1.5, [1.5, 0.5, 0]), (1.0, 4.0, [3, 0.5, 0])):
        settings = _settings(2.0, 1, cap)
        assert catalogue_neighbor_limit(catalogue, settings) == limit
        scorer = Scorer(None, np.float32([[0]]), catalogue, settings)
        terms = scorer.terms(points, np.zeros(3, int))
        np.testing.assert_allclose(terms.neighbor_distance_term, expected)
        np.testing.assert_allclose(terms.utility, 2 * np.array(expected))
    assert catalogue_neighbor_limit(catalogue, _settings()) is None


def test_the_cap_is_the_quantile_of_a_float64_loop_and_of_a_sample_of_many(monkeypatch):
    catalogue = _problem(7)[2]
    others = [_loop(catalogue[[i]], catalogue[[i]], np.delete(catalogue, i, 0), 1, 3)[2][0] for i in range(37)]
    settings = _settings(neighbor_cap=0.9)
    assert catalogue_neighbor_limit(catalogue, settings) == pytest.approx(np.quantile(others, 0.9), rel=1e-5)
    monkeypatch.setattr("eagle_jax.embeddings.utility._MOST_MEASURED", 1)
    drawn = catalogue_neighbor_limit(catalogue, settings)
    assert np.isclose(others, drawn, rtol=1e-5).sum() == 1
    assert catalogue_neighbor_limit(catalogue, settings) == drawn


def test_a_cap_and_its_limit_come_together():
    domain, users, catalogue = _problem(8)
    with pytest.raises(ValueError, match="neighbor_cap is 0.9, .* is missing"):
        content_gap_utility(domain, users, catalogue, _settings(neighbor_cap=0.9))
    with pytest.raises(ValueError, match="neighbor_cap is None, .* is given"):
        content_gap_utility(domain, users, catalogue, _settings(), neighbor_limit=3.0)
    with pytest.raises(ValueError, match="num_neighbors is 37; with a neighbor_cap it must be below the 37 "):
        catalogue_neighbor_limit(catalogue, _settings(num_neighbors=37, neighbor_cap=0.9))


def test_settings_are_told_as_they_were_before_there_was_a_cap():
    assert told(_settings()) == {"neighbor_weight": 1.0, "num_neighbors": 3}
    assert told(_settings(neighbor_cap=0.9)) == {"neighbor_weight": 1.0, "num_neighbors": 3, "neighbor_cap": 0.9}
