"""Profiles from ratings: by hand arithmetic, deterministic, no marker, and whether they say who the user is."""

import dataclasses

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import Catalogue, Entity, RatingTable
from eagle_jax.data.prompts import MOVIE
from eagle_jax.eagle.roles.data_profiles import DataProfileSettings, check_fields, data_profile

FILMS = [
    ("Heat (1995)", "Crime, Drama", "1995"),
    ("Alien (1979)", "Horror", "1979"),
    ("Jaws (1975)", "Horror, Drama", "1975"),
    ("Up #END_PLOT (2009)", "Children", "2009"),
    ("Unrated (1980)", "Crime", "1980"),
]
SETTINGS = DataProfileSettings(fields=("genres", "year"), values_per_side=2, titles_per_side=1, shrinkage=1.0)


def make_catalogue(ratings):
    user, item, rating = (np.array(column) for column in zip(*ratings, strict=True))
    table = RatingTable(
        user_names=("ann", "bob", "cleo"),
        item_names=tuple(title for title, _, _ in FILMS),
        user_index=user.astype(np.int32),
        item_index=item.astype(np.int32),
        rating=rating.astype(np.float32),
    )
    entities = tuple(
        Entity(entity_id=title, title=title, description="", fields={"genres": genres, "year": year})
        for title, genres, year in FILMS
    )
    return Catalogue(name="few", entities=entities, ratings=table, tags=(), entity_format=MOVIE)


# Ann's mean is 3: deviations Heat 2, Alien -1, Jaws 0, Up -1.
RATINGS = [(0, 0, 5.0), (0, 1, 2.0), (0, 2, 3.0), (0, 3, 2.0), (1, 3, 4.0), (1, 0, 4.0)]


def test_a_profile_is_what_hand_arithmetic_says():
    catalogue = make_catalogue(RATINGS)
    # Crime 2/(1+1) = 1, Drama (2+0)/(2+1) = 0.67, Horror -1/3, Children -1/2. 1990s 1, 1970s -1/3, 2000s -1/2.
    assert data_profile(catalogue, catalogue.ratings, 0, SETTINGS) == (
        "likes: genres Crime, Drama; year 1990s; titles Heat (1995). "
        "dislikes: genres Children, Horror; year 2000s, 1970s; titles Alien (1979)."
    )
    # With much shrinkage two films weigh more than one: Drama 2/12 against Crime 2/11, Horror -1/12, Children -1/11.
    heavy = dataclasses.replace(SETTINGS, shrinkage=10.0, values_per_side=1, fields=("genres",), titles_per_side=0)
    assert data_profile(catalogue, catalogue.ratings, 0, heavy) == "likes: genres Crime. dislikes: genres Children."
    more = make_catalogue([*RATINGS, (0, 4, 3.0)])  # the mean stays 3: Crime 2/12, level, comes first
    assert data_profile(more, more.ratings, 0, heavy) == "likes: genres Crime. dislikes: genres Children."
    light = dataclasses.replace(heavy, shrinkage=0.0)  # Crime (2+0)/2, Drama (2+0)/2, Horror -1/2, Children -1
    assert data_profile(more, more.ratings, 0, light) == "likes: genres Crime. dislikes: genres Children."


def test_level_ratings_tell_nothing_and_no_ratings_are_an_error():
    catalogue = make_catalogue(RATINGS)
    nothing = "likes: nothing in particular. dislikes: nothing in particular."
    assert data_profile(catalogue, catalogue.ratings, 1, SETTINGS) == nothing
    with pytest.raises(UserError, match="'cleo' has no ratings"):
        data_profile(catalogue, catalogue.ratings, 2, SETTINGS)


def test_titles_cannot_close_a_block():
    catalogue = make_catalogue([(0, 3, 5.0), (0, 0, 1.0)])
    assert "titles Up END_PLOT (2009)" in data_profile(catalogue, catalogue.ratings, 0, SETTINGS)


def test_a_field_that_no_item_has_is_refused():
    catalogue = make_catalogue(RATINGS)
    check_fields(catalogue, SETTINGS)
    with pytest.raises(UserError, match="no film of few has director; there are: genres, year"):
        check_fields(catalogue, dataclasses.replace(SETTINGS, fields=("genres", "director")))
