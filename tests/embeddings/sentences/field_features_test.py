"""Features of labelled texts: the plot's by whatever encoder, genres and decades by hand."""

import numpy as np
import pytest

from eagle_jax.data.film_fields import GENRES, parse_film_fields
from eagle_jax.embeddings.sentences.field_features import FieldFeatures, genre_and_year


class CountsLetters:
    name = "letters"

    def __call__(self, texts):
        self.seen = list(texts)
        return np.array([[len(text), text.count("a")] for text in texts], np.float32)


def test_plot_genres_and_year_stand_side_by_side():
    encoder = CountsLetters()
    features = FieldFeatures(encoder)
    texts = ["Genres: War, Action. Year: 1995. Plot: a bat", "#BEGIN_PLOT a #END_PLOT", "Year: 1880."]
    found = features(texts)
    assert encoder.seen == ["a bat", "a", "Year: 1880."]  # without a plot the whole is shown
    assert found.dtype == np.float32 and found.shape == (3, 2 + 19 + 9 + 1)
    assert found[0, :2].tolist() == [5, 2]
    assert [GENRES[place] for place in np.flatnonzero(found[0, 2:21])] == ["Action", "War"]
    assert found[0, 21:].tolist() == [1, 1, 1, 1, 1, 1, 0.5, 0, 0, 0]  # 1930s to 1980s, half of the 1990s
    assert not found[1, 2:21].any() and found[1, -1] == 1
    assert not found[2, 2:].any()  # before 1930
    assert features.name != encoder.name and encoder.name in features.name


def test_a_plot_is_read_once_however_many_fields_are_tried_with_it():
    encoder = CountsLetters()
    found = FieldFeatures(encoder)(["Year: 1995. Plot: a bat", "Plot: a cat and a dog", "Year: 1930. Plot: a bat"])
    assert encoder.seen == ["a bat", "a cat and a dog"]
    assert found[:, :2].tolist() == [[5, 2], [15, 4], [5, 2]] and found[0, -1] == found[2, -1] == 0
    assert found[0, 21] == 1 and found[2, 21] == 0


@pytest.mark.parametrize(("year", "passed"), [(1930, 0), (1934, 0.4), (2018, 8.8), (2020, 9), (2099, 9)])
def test_decades_sum_to_the_years_since_1930(year, passed):
    told = genre_and_year([parse_film_fields(f"Year: {year}. Plot: x")])
    assert told[0, 19:28].sum() == pytest.approx(passed) and told[0, 28] == 0


def test_no_texts():
    assert genre_and_year([]).shape == (0, 29)
