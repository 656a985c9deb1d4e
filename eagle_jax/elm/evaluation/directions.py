"""Directions in which a tag grows, among films that ELM was trained on and that users tagged.

Axis letters: `N` films, `d` width.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.splits import Split
from eagle_jax.elm.settings import CAVKind, ElmCurveSettings
from eagle_jax.embeddings.concept_activation import FittedCAVs, fit_cavs, fit_ranking_cavs
from eagle_jax.embeddings.concept_problems import comparisons_within_users


def fit_tag_cavs(
    catalogue: Catalogue,
    split: Split,
    embeddings: np.ndarray,
    tags: Sequence[str],
    kind: CAVKind,
    settings: ElmCurveSettings,
) -> FittedCAVs:
    """CAVs of training films, embeddings [N, d]; UserError for a tag that nobody gave.

    linear: films with the tag against those without. ranking: within each user, films that the
    user gave the tag against films that the same user gave other ones.
    """
    films = split.entities["train"]
    row_of = {int(film): row for row, film in enumerate(films)}
    of_users: dict[int, dict[int, set[str]]] = collections.defaultdict(dict)
    for user, film, tag in catalogue.tags:
        if film in row_of:
            of_users[user].setdefault(film, set()).add(tag)
    known = {tag for _, _, tag in catalogue.tags}
    if unknown := [tag for tag in tags if tag not in known]:
        raise UserError(f"curves.tags: nobody gave the tag {unknown[0]!r}; have {sorted(known)}")
    if kind == "linear":
        return fit_cavs(embeddings[films], _has_tags(of_users, row_of, tags), settings.cavs)
    rng = np.random.default_rng(settings.cavs.seed)
    comparisons = {
        tag: comparisons_within_users(of_users.values(), {tag}, row_of, settings.lower_per_positive, rng)
        for tag in tags
    }
    return fit_ranking_cavs(embeddings[films], comparisons, settings.cavs)


def _has_tags(
    of_users: Mapping[int, Mapping[int, set[str]]], row_of: Mapping[int, int], tags: Sequence[str]
) -> dict[str, np.ndarray]:
    """tag -> [N] bool."""
    has = {tag: np.zeros(len(row_of), bool) for tag in tags}
    for films in of_users.values():
        for film, given in films.items():
            for tag in given & has.keys():
                has[tag][row_of[film]] = True
    return has
