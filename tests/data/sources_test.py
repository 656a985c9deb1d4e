"""A source is what a module of the data layer adds; settings, reading and refusals follow."""

import pytest

from eagle_jax.base.settings import SettingsError, to_settings
from eagle_jax.data.sources import SOURCES, CatalogueSettings, fingerprint, load_catalogue

WORLD = {
    "seed": 0,
    "num_films": 30,
    "num_users": 12,
    "ratings_per_user": 8,
    "rating_noise": 0.3,
    "popularity_exponent": 0.8,
    "selection_strength": 0.5,
}


def settings(**changes):
    return to_settings(CatalogueSettings, {"source": "minilens", **changes}, "config.catalogue")


def test_every_source_is_found_and_the_settings_of_the_others_may_be_left_out():
    assert sorted(SOURCES) == ["amazon", "files", "minilens", "movielens"]
    chosen = settings(minilens=WORLD)
    assert chosen == settings(minilens=WORLD, movielens=None)
    catalogue, found = load_catalogue(chosen)
    assert len(catalogue.entities) == 30 and catalogue.ratings.num_users == 12 and found == {}
    other, _ = load_catalogue(settings(minilens=WORLD | {"seed": 1}))
    assert fingerprint(catalogue) != fingerprint(other)


def test_a_source_that_is_not_there_or_has_no_settings_is_refused():
    with pytest.raises(SettingsError, match="source 'goodreads' is none of amazon, files, minilens, movielens"):
        settings(source="goodreads")
    with pytest.raises(SettingsError, match="catalogue: unknown setting 'goodreads'"):
        settings(goodreads={})
    with pytest.raises(SettingsError, match="catalogue: minilens: needed by source 'minilens'"):
        settings()
