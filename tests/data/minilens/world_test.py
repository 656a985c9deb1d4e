"""The people of MiniLens: scale, biases that are really there, and the catalogue as shipped."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from eagle_jax.base.settings import to_settings
from eagle_jax.data.minilens import grammar, world
from eagle_jax.data.minilens.world import MiniLensSettings, draw_films, draw_world, make_catalogue
from experiments.configs.eagle_minilens import get_config
from tests.small_world import MINILENS

SMALL = dataclasses.replace(
    MINILENS, seed=3, num_films=300, num_users=150, ratings_per_user=60, popularity_exponent=0.8
)


@pytest.fixture(scope="module", params=["default", "quick"])
def shipped(request):
    config = get_config(request.param).catalogue.minilens
    settings = to_settings(MiniLensSettings, config.to_dict(), "config.catalogue.minilens")
    return settings, make_catalogue(settings)


def films_of(catalogue):
    films = [grammar.parse_film(entity.description) for entity in catalogue.entities]
    return np.array([[film[slot] for slot in grammar.SLOTS] for film in films])


def counts_of(catalogue):
    ratings = catalogue.ratings
    return np.bincount(ratings.item_index, minlength=ratings.num_items)


def rating_residuals(ratings):
    """Ratings minus the user's mean: what a user says beyond being generous."""
    counts = np.bincount(ratings.user_index, minlength=ratings.num_users)
    means = np.bincount(ratings.user_index, ratings.rating, ratings.num_users) / counts
    return ratings.rating - means[ratings.user_index]


def test_a_random_film_and_user_have_affinity_of_scale_one():
    drawn = draw_world()
    rng = np.random.default_rng(0)
    vectors = drawn.film_vectors(draw_films(2000, rng))
    tastes = drawn.draw_tastes(2000, rng)
    assert vectors.shape == tastes.shape == (2000, drawn.latent_width)
    affinity = tastes @ vectors.T
    assert 0.8 < affinity.std() < 1.25
    assert abs(affinity.mean()) < 0.1  # value vectors are centred
    # No user is indifferent, and users differ: the mean taste explains a small part only.
    assert affinity.std(axis=1).min() > 0.1
    assert spearmanr(affinity[0], affinity[1]).statistic < 0.9


def test_a_films_vector_is_the_sum_of_its_values():
    drawn = draw_world()
    rng = np.random.default_rng(1)
    films, taste = draw_films(5, rng), drawn.draw_tastes(1, rng)[0]
    value_affinity = drawn.value_affinity(taste)
    assert len(value_affinity) == sum(map(grammar.num_values, grammar.SLOTS))
    for film, vector in zip(films, drawn.film_vectors(films), strict=True):
        total = sum(value_affinity[place] for place in world.as_film(film).items())
        np.testing.assert_allclose(vector @ taste, total, rtol=1e-10)


def test_no_two_films_are_the_same():
    films = draw_films(3000, np.random.default_rng(2))
    assert films.shape == (3000, len(grammar.SLOTS))
    assert len(np.unique(films, axis=0)) == 3000
    sizes = [grammar.num_values(slot) for slot in grammar.SLOTS]
    np.testing.assert_array_equal(films.min(axis=0), 0)
    np.testing.assert_array_equal(films.max(axis=0) + 1, sizes)


@pytest.mark.parametrize(
    ("rating", "stars"), [(-3.0, 0.5), (0.1, 0.5), (0.8, 1.0), (3.3, 3.5), (3.2, 3.0), (4.76, 5.0), (9.0, 5.0)]
)
def test_stars_are_halves_from_one_half_to_five(rating, stars):
    assert world.to_stars(np.array([rating])) == np.float32(stars)


def test_the_shipped_catalogue_is_as_large_as_promised(shipped):
    settings, catalogue = shipped
    ratings = catalogue.ratings
    assert len(catalogue.entities) == ratings.num_items == settings.num_films >= 1000
    assert ratings.num_users == settings.num_users >= 500
    pairs = np.stack([ratings.user_index, ratings.item_index])
    assert np.unique(pairs, axis=1).shape == pairs.shape  # nobody rates a film twice
    per_user = np.bincount(ratings.user_index, minlength=ratings.num_users)
    assert per_user.min() >= 20
    assert 0.85 < np.median(per_user) / settings.ratings_per_user < 1.15
    assert set(np.unique(ratings.rating)) == set(np.arange(1, 11) / 2)  # all of them occur
    assert 0.6 < ratings.rating.std() < 1.3 and 2.8 < ratings.rating.mean() < 4.0


def test_films_are_distinct_and_told_in_both_dialects(shipped):
    _, catalogue = shipped
    films = films_of(catalogue)
    assert len(np.unique(films, axis=0)) == len(films)
    texts = catalogue.descriptions
    assert len(set(texts)) == len(texts)
    titles = [entity.title for entity in catalogue.entities]
    assert titles == [grammar.title_of(world.as_film(film)) for film in films]
    assert len({entity.entity_id for entity in catalogue.entities}) == len(titles)
    assert tuple(entity.entity_id for entity in catalogue.entities) == catalogue.ratings.item_names
    own_words = {
        d: {value[k] for values in grammar.LEXICON.values() for value in values} for d, k in (("a", 0), ("b", 2))
    }
    told = {
        dialect: sum(bool(words & set(text.replace(".", " ").split())) for text in texts)
        for dialect, words in own_words.items()
    }
    assert all(0.4 < count / len(texts) < 0.6 for count in told.values()), told


def test_tags_name_a_value_of_the_film_and_come_from_who_rated_it(shipped):
    _, catalogue = shipped
    films, ratings = films_of(catalogue), catalogue.ratings
    rated = set(zip(ratings.user_index.tolist(), ratings.item_index.tolist(), strict=True))
    assert 0.08 < len(catalogue.tags) / len(ratings) < 0.12
    for user, item, tag in catalogue.tags:
        assert (user, item) in rated
        slot, value = grammar.word_values()[tag]
        assert films[item, grammar.SLOTS.index(slot)] == value


def test_some_films_are_far_more_popular(shipped):
    _, catalogue = shipped
    counts = np.sort(counts_of(catalogue))[::-1]
    top = counts[: len(counts) // 10].sum() / counts.sum()
    assert top > 0.2  # uniform would be 0.1
    level = dataclasses.replace(SMALL, popularity_exponent=0.0, selection_strength=0.0)
    steep = dataclasses.replace(SMALL, popularity_exponent=1.5, selection_strength=0.0)
    assert counts_of(make_catalogue(steep)).std() > 2 * counts_of(make_catalogue(level)).std()


def test_people_watch_what_they_like():
    """With selection, rated films suit their user better than films that the user did not rate."""
    ratings_mean, rank_correlation = {}, {}
    for strength in (0.0, 1.0):
        settings = dataclasses.replace(SMALL, selection_strength=strength, popularity_exponent=0.0, num_users=300)
        catalogue = make_catalogue(settings)
        ratings = catalogue.ratings
        ratings_mean[strength] = ratings.rating.mean()
        counts = counts_of(catalogue)
        item_means = np.bincount(ratings.item_index, ratings.rating, ratings.num_items) / counts
        rank_correlation[strength] = spearmanr(counts, item_means).statistic
    assert ratings_mean[1.0] > ratings_mean[0.0] + 0.3
    # And so what is rated more often is rated higher, more than the films' quality explains.
    assert rank_correlation[1.0] > max(0.3, rank_correlation[0.0] + 0.1)


def test_ratings_follow_the_films_values_but_not_exactly(shipped):
    """Least squares on a user's taste: the slots explain much of a rating, noise the rest."""
    _, catalogue = shipped
    films, ratings = films_of(catalogue), catalogue.ratings
    vectors = draw_world().film_vectors(films)
    residual = rating_residuals(ratings)
    explained = []
    for user in range(60):
        rows = ratings.user_index == user
        own = vectors[ratings.item_index[rows]]
        own = own - own.mean(axis=0)
        fit = own @ np.linalg.lstsq(own, residual[rows], rcond=None)[0]
        explained.append(1 - np.sum((residual[rows] - fit) ** 2) / np.sum(residual[rows] ** 2))
    assert 0.5 < np.mean(explained) < 0.95


def test_noise_is_noise():
    quiet, loud = (make_catalogue(dataclasses.replace(SMALL, rating_noise=noise)).ratings for noise in (0.0, 2.0))
    np.testing.assert_array_equal(quiet.item_index, loud.item_index)  # it changes no one's choice
    assert rating_residuals(loud).std() > 1.3 * rating_residuals(quiet).std()


def test_the_seed_decides():
    one, again = make_catalogue(SMALL), make_catalogue(SMALL)
    other = make_catalogue(dataclasses.replace(SMALL, seed=4))
    assert one.entities == again.entities and one.tags == again.tags
    for name in ("user_index", "item_index", "rating"):
        np.testing.assert_array_equal(getattr(one.ratings, name), getattr(again.ratings, name))
    assert not set(one.descriptions) & set(other.descriptions)
    # The world itself, what a value is worth to whom, is one: models are trained in it.
    np.testing.assert_array_equal(draw_world().mean_taste, draw_world().mean_taste)
    assert one.oracle.single_edits(one.entities[0].description)
