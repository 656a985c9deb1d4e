"""A source is what a module of the data layer adds; settings, reading and refusals follow."""

import dataclasses

import pytest

from eagle_jax.base.settings import SettingsError, to_settings
from eagle_jax.data.sources import SOURCES, CatalogueSettings, fingerprint, load_catalogue
from tests.small_world import MINILENS

WORLD = dataclasses.asdict(MINILENS) | {"num_films": 30, "num_users": 12, "ratings_per_user": 8}


def settings(**changes):
    return to_settings(CatalogueSettings, {"source": "minilens", **changes}, "config.catalogue")


def test_every_source_is_found_and_the_settings_of_the_others_may_be_left_out():
    assert sorted(SOURCES) == ["amazon", "files", "minilens", "movielens", "tfds"]
    chosen = settings(minilens=WORLD)
    assert chosen == settings(minilens=WORLD, movielens=None)
    catalogue, found = load_catalogue(chosen)
    assert len(catalogue.entities) == 30 and catalogue.ratings.num_users == 12 and found == {}
    other, _ = load_catalogue(settings(minilens=WORLD | {"seed": 2}))
    assert fingerprint(catalogue) != fingerprint(other)


def test_a_source_that_is_not_there_or_has_no_settings_is_refused():
    with pytest.raises(SettingsError, match="source 'goodreads' is none of amazon, files, minilens, movielens, tfds"):
        settings(source="goodreads")
    with pytest.raises(SettingsError, match="catalogue: unknown setting 'goodreads'"):
        settings(goodreads={})
    with pytest.raises(SettingsError, match="catalogue: minilens: needed by source 'minilens'"):
        settings()


def test_the_fingerprint_changes_with_any_text_and_any_rating(world):
    catalogue = world.catalogue
    entity, ratings = catalogue.entities[7], catalogue.ratings

    def with_entity(**changes):
        entities = list(catalogue.entities)
        entities[7] = dataclasses.replace(entity, **changes)
        return dataclasses.replace(catalogue, entities=tuple(entities))

    def with_rating(column, row, value):
        values = getattr(ratings, column).copy()
        values[row] = value
        return dataclasses.replace(catalogue, ratings=dataclasses.replace(ratings, **{column: values}))

    variants = [
        catalogue,
        with_entity(entity_id="other"),
        with_entity(title=entity.title + " "),
        with_entity(description=entity.description.replace("film", "tale", 1) + "."),
        with_entity(title="", description=f"{entity.title}{entity.description}"),
        dataclasses.replace(catalogue, entities=catalogue.entities[::-1]),
        with_rating("rating", 0, ratings.rating[0] + 0.5),
        with_rating("rating", -1, ratings.rating[-1] + 0.5),
        with_rating("item_index", 3, (ratings.item_index[3] + 1) % ratings.num_items),
        with_rating("user_index", 3, (ratings.user_index[3] + 1) % ratings.num_users),
    ]
    assert len({fingerprint(variant) for variant in variants}) == len(variants)
    assert fingerprint(dataclasses.replace(catalogue)) == fingerprint(catalogue)
