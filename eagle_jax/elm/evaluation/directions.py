"""Directions in which a tag grows, among films that ELM was trained on and that users tagged.

Axis letters: `N` films, `d` width.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.elm.settings import CAVKind, ElmCurveSettings
from eagle_jax.elm.space import Spaces
from eagle_jax.embeddings.concept_activation import FittedCAVs, fit_cavs, fit_ranking_cavs
from eagle_jax.embeddings.concept_problems import comparisons_within_users


def fit_tag_cavs(
    spaces: Spaces, embeddings: np.ndarray, tags: Sequence[str], kind: CAVKind, settings: ElmCurveSettings
) -> FittedCAVs:
    """CAVs of training films, embeddings [N, d]; UserError for a tag that nobody gave.

    linear: films with the tag against those without. ranking: within each user, films that the
    user gave the tag against films that the same user gave other ones.
    """
    films = spaces.split.entities["train"]
    row_of = {int(film): row for row, film in enumerate(films)}
    of_users: dict[int, dict[int, set[str]]] = collections.defaultdict(dict)
    tagged: dict[str, set[int]] = {tag: set() for _, _, tag in spaces.catalogue.tags}
    for user, film, tag in spaces.catalogue.tags:
        tagged[tag].add(film)
        if film in row_of:
            of_users[user].setdefault(film, set()).add(tag)
    if unknown := [tag for tag in tags if tag not in tagged]:
        raise UserError(f"curves.tags: nobody gave the tag {unknown[0]!r}; have {sorted(tagged)}")
    if kind == "linear":
        has_tag = {tag: np.array([film in tagged[tag] for film in row_of]) for tag in tags}
        return fit_cavs(embeddings[films], has_tag, settings.cavs)
    rng = np.random.default_rng(settings.cavs.seed)
    comparisons = {
        tag: comparisons_within_users(of_users.values(), {tag}, row_of, settings.lower_per_positive, rng)
        for tag in tags
    }
    return fit_ranking_cavs(embeddings[films], comparisons, settings.cavs)
