"""What users say: as noisy as they are meant to be, of the films that they are shown.

Axis letters: U users, N films.
"""

import numpy as np
import pytest
from scipy.special import expit

from eagle_jax.data.minilens import grammar
from eagle_jax.data.minilens.world import draw_world
from eagle_jax.studies.people.ideal_points import UserPairs
from eagle_jax.studies.people.pair_rewards import slot_features, unit_variance
from eagle_jax.studies.people.tastes import (
    TasteSettings,
    answer_pairs,
    draw_people,
    expected_accuracy,
    first_of_each,
    rate_films,
    show_pairs,
)

SETTINGS = TasteSettings(
    num_films=40,
    num_seen_users=12,
    num_new_users=8,
    feedback_per_seen_user=10,
    num_test_pairs=10,
    rating_noise=0.3,
    pair_temperature=0.3,
)


@pytest.fixture(scope="module")
def people():
    return draw_people(SETTINGS, 0)


def test_films_are_what_the_affinities_are_about(people):
    """Read back by the grammar, the films' vectors span the affinities: least squares leaves nothing."""
    films = np.array([[grammar.parse_film(told)[slot] for slot in grammar.SLOTS] for told in people.films])
    vectors = draw_world().film_vectors(films)
    tastes, *_ = np.linalg.lstsq(vectors, people.affinity.T, rcond=None)
    np.testing.assert_allclose(vectors @ tastes, people.affinity.T, atol=1e-9)
    assert people.affinity.shape == (20, 40) and people.num_seen == 12
    assert np.array_equal(people.affinity, draw_people(SETTINGS, 0).affinity)
    assert not np.array_equal(people.affinity, draw_people(SETTINGS, 1).affinity)


def test_a_slot_feature_is_a_value_that_is_told(people):
    features = slot_features(people.films)
    assert features.shape == (40, len(set(grammar.word_values().values()))) and (features.sum(axis=1) == 10).all()
    scaled = unit_variance(np.hstack([features, np.ones((40, 1), np.float32)]))  # what does not vary is left out
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-4)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)


def test_ratings_and_pairs_are_equally_noisy():
    """Two ratings order two films as the annotator does, at the temperature that the config derives."""
    rng = np.random.default_rng(0)
    affinity = rng.standard_normal((400, 60))
    ratings = rate_films(affinity, 60, 0.3, rng)
    assert len(ratings) == 400 * 60 and all(np.bincount(ratings.user_index) == 60)
    stars = np.zeros((400, 60))
    stars[ratings.user_index, ratings.item_index] = ratings.rating
    pairs = answer_pairs(affinity, 50, 0.3, rng)
    gaps = affinity[pairs.user, pairs.chosen] - affinity[pairs.user, pairs.rejected]
    right = np.mean(gaps > 0)
    assert right == pytest.approx(np.mean(expit(np.abs(gaps) / 0.3)), abs=0.01)
    told = np.sign(stars[pairs.user, pairs.chosen] - stars[pairs.user, pairs.rejected])
    by_stars = np.mean(np.where(told == 0, 0.5, told == np.sign(gaps)))
    assert by_stars == pytest.approx(right, abs=0.03)  # half stars and the ends of the scale cost a little


def test_pairs_are_of_two_films():
    pairs = show_pairs(np.zeros((3, 2)), 40, np.random.default_rng(0))
    assert (pairs.chosen != pairs.rejected).all() and set(pairs.chosen) == {0, 1}


def test_the_first_of_each_user():
    assert first_of_each(np.array([1, 0, 1, 1, 0, 2]), 2).tolist() == [True, True, True, False, True, True]


def test_expected_accuracy_by_hand():
    affinity = np.array([[0.0, 0.3, 0.6], [0.0, 0.3, 0.6]])
    pairs = UserPairs(np.array([0, 0, 1, 1]), np.array([1, 0, 2, 0]), np.array([0, 2, 0, 1]))
    scores = np.array([[0.0, 1.0, 2.0], [5.0, 5.0, 0.0]])
    # Gaps 0.3, -0.6 (both ordered rightly); 0.6 (wrongly) and -0.3 (a tie).
    expected = [np.mean([expit(1.0), expit(2.0)]), np.mean([1 - expit(2.0), 0.5])]
    np.testing.assert_allclose(expected_accuracy(scores, affinity, pairs, 0.3), expected)
