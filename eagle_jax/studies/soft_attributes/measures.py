"""How well a scoring of films agrees with raters' orderings: Goodman and Kruskal's gamma.

    gamma = (concordant - discordant) / (concordant + discordant)

over the pairs of films that one rater puts into different places (less, about as or more than the
reference, which itself counts as "about as"), summed over raters; pairs that a rater or the scoring
ties count for neither (Goodman and Kruskal 1954; Balog et al. 2021, section 6, who use a weighted
extension of it beside, which is not computed here). 1: every strict opinion is met; 0: chance.

Axis letters: P pairs, A attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eagle_jax.reports.statistics import BootstrapSettings, Interval, bootstrap_interval, t_interval


class RatedPairs(NamedTuple):
    """Strict opinions of raters on one attribute [P]; indices of films and of raters."""

    higher: np.ndarray
    lower: np.ndarray
    rater: np.ndarray

    def take(self, rows: np.ndarray) -> RatedPairs:
        """Some of the pairs, by index or mask."""
        return RatedPairs(*(column[rows] for column in self))


class Agreement(NamedTuple):
    """Counts of pairs, and the gamma of one scoring of one attribute."""

    num_concordant: int
    num_discordant: int
    num_tied: int  # by the scoring

    @property
    def gamma(self) -> float | None:
        """None when the scoring ties every pair: it says nothing."""
        strict = self.num_concordant + self.num_discordant
        return (self.num_concordant - self.num_discordant) / strict if strict else None


def agreement(margins: np.ndarray) -> Agreement:
    """Counts from score(higher) - score(lower) of every pair [P]; raises ValueError for a nan."""
    if np.isnan(margins).any():
        raise ValueError(f"{np.isnan(margins).sum()} of {len(margins)} margins are nan")
    return Agreement(int(np.sum(margins > 0)), int(np.sum(margins < 0)), int(np.sum(margins == 0)))


def gamma_interval(margins: np.ndarray, rater: np.ndarray, settings: BootstrapSettings) -> Interval | None:
    """Gamma with its interval over resampled raters; None with fewer than two raters left.

    Gamma is the mean of sign(margin) over the pairs that are not tied. Margins and rater: [P].
    """
    strict = margins != 0
    if len(np.unique(rater[strict])) < 2:
        return None
    return bootstrap_interval(np.sign(margins[strict]), settings, clusters=rater[strict].tolist())


def mean_gamma(gammas: Sequence[float], settings: BootstrapSettings) -> Interval:
    """Mean over attributes [A] with its interval over resampled attributes.

    Fewer than ten are too few to resample: then Student's t. Raises ValueError for fewer than two.
    """
    if len(gammas) < 10:
        return t_interval(gammas, settings.confidence)
    return bootstrap_interval(gammas, settings)


def opinion_scores(pairs: RatedPairs, num_films: int) -> np.ndarray:
    """Share of a film's comparisons that it wins, [num_films], a win and a loss added to each.

    What raters say of each film by itself, without any embedding: beside it, a scoring shows how
    much of the raters' own agreement it reaches.
    """
    wins = np.bincount(pairs.higher, minlength=num_films)
    losses = np.bincount(pairs.lower, minlength=num_films)
    return (wins + 1.0) / (wins + losses + 2.0)
