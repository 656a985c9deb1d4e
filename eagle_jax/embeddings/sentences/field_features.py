"""Features of a film's labelled text: those of its plot, its genres and its year.

Axis letters: `N` texts, `F` features of the plot.

Genres are 0 or 1. A year is told decade by decade, by how much of each has passed: 1995 is (1, ..., 1,
0.5, 0, ...), so that a linear head is piecewise linear in the year and does not run away outside of
the decades that films have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from eagle_jax.data.film_fields import GENRES, FilmFields, parse_film_fields

_DECADES = np.arange(1930, 2020, 10)
_USUAL_YEAR = 1995  # of a text without a year, beside a column that says so


class NamedFeatures(Protocol):
    """Texts -> [N, F], with a name that tells the weights."""

    name: str

    def __call__(self, texts: Sequence[str]) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True, eq=False)
class FieldFeatures:
    """plot_features(plot) ++ genres [19] ++ decades [9] ++ no year [1], float32 [N, F + 29]."""

    plot_features: NamedFeatures

    @property
    def name(self) -> str:
        return f"{self.plot_features.name} of the plot, genres, year"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Raises what `plot_features` raises; of a text without a plot it sees the whole."""
        fields = [parse_film_fields(text) for text in texts]
        plots = [own.plot or text for own, text in zip(fields, texts, strict=True)]
        places = {plot: place for place, plot in enumerate(dict.fromkeys(plots))}
        of_plots = np.asarray(self.plot_features(list(places)))  # once, however many fields are tried with it
        return np.concatenate([of_plots[[places[plot] for plot in plots]], genre_and_year(fields)], axis=1)


def genre_and_year(fields: Sequence[FilmFields]) -> np.ndarray:
    """What fields say without their plot, float32 [N, 29]."""
    told = np.zeros((len(fields), len(GENRES) + len(_DECADES) + 1), np.float32)
    for row, own in zip(told, fields, strict=True):
        row[: len(GENRES)] = [genre in own.genres for genre in GENRES]
        year = _USUAL_YEAR if own.year is None else own.year
        row[len(GENRES) : -1] = np.clip((year - _DECADES) / 10, 0, 1)
        row[-1] = own.year is None
    return told
