"""Gammas of every way to score films by a soft attribute, JSON-able cells.

A cell is {"embedding", "method", "attribute", "gamma": {"mean", "low", "high"}} (bounds None where
gamma is a mean over draws or held-out films) and, of a CAV, its quality, penalty and positives.

Axis letters: N films, d width, A attributes, L penalties.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from eagle_jax.base.settings import setting, settings
from eagle_jax.embeddings.concept_activation import CAVSettings, Comparisons, fit_cavs, fit_ranking_cavs
from eagle_jax.reports.statistics import BootstrapSettings
from eagle_jax.studies.soft_attributes.data import SoftAttributeData
from eagle_jax.studies.soft_attributes.measures import RatedPairs, agreement, gamma_interval, opinion_scores

POPULARITY, AT_RANDOM = "popularity", "random direction"
LINEAR, RANKING = "linear CAV", "ranking CAV"
NEW_FILMS, NEW_RATERS = "orderings, new films", "orderings, new raters"
OTHER_RATERS = "other raters"
GammaCell = dict[str, Any]


@settings
class ScoreSettings:
    """How scores are fitted and judged."""

    cav: CAVSettings
    reference_penalties: tuple[float, ...] = setting(
        "Of CAVs trained on the orderings; that of an attribute is the best for the others.", above=0, distinct=True
    )
    rater_folds: int = setting("Parts of the raters, each scored by what the others say.", at_least=2)
    num_random: int = setting("Random directions beside the CAVs.", at_least=1)
    bootstrap: BootstrapSettings
    seed: int = setting("Of folds and random directions.", at_least=0)


def score_without_embedding(data: SoftAttributeData, settings: ScoreSettings) -> list[GammaCell]:
    """Popularity (number of ratings), and what the other raters say of each film."""
    cells = []
    for attribute, pairs in data.opinions.items():
        margins = _margins(data.popularity.astype(np.float64), pairs)
        cells.append(_cell(None, POPULARITY, attribute, margins, pairs.rater, settings))
        margins = np.empty(len(pairs.rater))
        for fold in range(settings.rater_folds):
            held_out = pairs.rater % settings.rater_folds == fold
            scores = opinion_scores(pairs.take(~held_out), len(data.items))
            margins[held_out] = _margins(scores, pairs.take(held_out))
        cells.append(_cell(None, OTHER_RATERS, attribute, margins, pairs.rater, settings))
    return cells


def score_embedding(
    name: str, embeddings: np.ndarray, data: SoftAttributeData, settings: ScoreSettings
) -> tuple[list[GammaCell], dict[str, dict[str, str]]]:
    """Cells of one embedding [N, d], and by method why an attribute has none."""
    cells = list(_random_cells(name, embeddings, data, settings))
    tagged = embeddings[: data.num_tagged]
    fits = {
        LINEAR: fit_cavs(tagged, data.has_tag, settings.cav),
        RANKING: fit_ranking_cavs(tagged, data.tag_pairs, settings.cav),
    }
    for method, fitted in fits.items():
        for attribute, cav in fitted.found.items():
            pairs = data.opinions[attribute]
            margins = _margins(cav.scores(embeddings), pairs)
            names = ("quality", "penalty", "num_positives", "gradient_norm")
            quality = {name: getattr(cav, name) for name in names}
            cells.append(_cell(name, method, attribute, margins, pairs.rater, settings) | quality)
    cells += _reference_cells(name, embeddings, data, settings)
    return cells, {method: dict(fitted.refused) for method, fitted in fits.items()}


def _random_cells(
    name: str, embeddings: np.ndarray, data: SoftAttributeData, settings: ScoreSettings
) -> Iterator[GammaCell]:
    rng = np.random.default_rng(settings.seed)
    directions = rng.standard_normal((embeddings.shape[1], settings.num_random))
    scores = embeddings @ directions
    for attribute, pairs in data.opinions.items():
        gammas = [agreement(_margins(column, pairs)).gamma for column in scores.T]
        yield _mean_cell(name, AT_RANDOM, attribute, np.mean(gammas))


def _reference_cells(
    name: str, embeddings: np.ndarray, data: SoftAttributeData, settings: ScoreSettings
) -> Iterator[GammaCell]:
    """CAVs trained on the orderings themselves, for films or raters that they have not seen."""
    rows = np.unique(np.concatenate([[*p.higher, *p.lower] for p in data.opinions.values()]))
    place = np.full(len(data.items), -1)
    place[rows] = np.arange(len(rows))
    ordered = embeddings[rows]
    comparisons = {
        attribute: Comparisons(place[p.higher], place[p.lower], np.ones(len(p.rater)))
        for attribute, p in data.opinions.items()
    }
    by_penalty = [
        fit_ranking_cavs(ordered, comparisons, dataclasses.replace(settings.cav, penalties=(penalty,))).found
        for penalty in settings.reference_penalties
    ]
    attributes = list(by_penalty[0])
    held_out = np.array([[found[a].quality for found in by_penalty] for a in attributes])  # [A, L]
    others = held_out.sum(axis=0) - held_out
    best = others.argmax(axis=1)
    for index, attribute in enumerate(attributes):
        # The share in the right order, ties half, is (1 + gamma) / 2 when no score is tied.
        gamma = 2 * held_out[index, best[index]] - 1
        yield _mean_cell(name, NEW_FILMS, attribute, gamma)
    penalty = settings.reference_penalties[int(np.bincount(best).argmax())]
    yield from _new_rater_cells(name, ordered, comparisons, data, settings, penalty)


def _new_rater_cells(
    name: str,
    ordered: np.ndarray,
    comparisons: Mapping[str, Comparisons],
    data: SoftAttributeData,
    settings: ScoreSettings,
    penalty: float,
) -> Iterator[GammaCell]:
    margins = {attribute: np.zeros(len(p.rater)) for attribute, p in data.opinions.items()}
    # The fewest folds: here only the fit to all films is used.
    cav = dataclasses.replace(settings.cav, penalties=(penalty,), num_folds=2)
    for fold in range(settings.rater_folds):
        held_out = {a: p.rater % settings.rater_folds == fold for a, p in data.opinions.items()}
        training = {a: Comparisons(*(column[~held_out[a]] for column in p)) for a, p in comparisons.items()}
        for attribute, found in fit_ranking_cavs(ordered, training, cav).found.items():
            scores = found.scores(ordered)
            pairs = comparisons[attribute]
            held = held_out[attribute]
            margins[attribute][held] = scores[pairs.higher[held]] - scores[pairs.lower[held]]
    for attribute, pairs in data.opinions.items():
        if margins[attribute].any():
            yield _cell(name, NEW_RATERS, attribute, margins[attribute], pairs.rater, settings)


def _margins(scores: np.ndarray, pairs: RatedPairs) -> np.ndarray:
    return scores[pairs.higher] - scores[pairs.lower]


def _cell(
    embedding: str | None, method: str, attribute: str, margins: np.ndarray, rater: np.ndarray, settings: ScoreSettings
) -> GammaCell:
    counted = agreement(margins)
    interval = gamma_interval(margins, rater, settings.bootstrap)
    return _mean_cell(embedding, method, attribute, counted.gamma) | {
        "num_pairs": len(margins),
        "num_tied": counted.num_tied,
        "low": interval and interval.low,
        "high": interval and interval.high,
    }


def _mean_cell(embedding: str | None, method: str, attribute: str, gamma: float) -> GammaCell:
    return {
        "embedding": embedding,
        "method": method,
        "attribute": attribute,
        "gamma": None if gamma is None else float(gamma),
        "low": None,
        "high": None,
    }
