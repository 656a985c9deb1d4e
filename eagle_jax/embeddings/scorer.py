"""Texts to utilities under one domain encoder: what rewards and evaluations are computed by.

Axis letters: `B` texts, `N` entities, `U` users, `d` domain width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.embeddings.domain_encoder import DomainEncoder, in_pieces
from eagle_jax.embeddings.utility import UtilitySettings, UtilityTerms, catalogue_neighbor_limit, content_gap_utility

# Names of the encoders: the reward's; another model's of the same ratings; one that shares neither ratings nor films.
TRAIN, HELD_OUT, INDEPENDENT = "train", "held_out", "independent"


def judge_of(encoders: Collection[str]) -> str:
    """The most independent encoder that there is."""
    return INDEPENDENT if INDEPENDENT in encoders else HELD_OUT


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Texts to utilities under one encoder; D is the catalogue as that encoder sees it."""

    encoder: DomainEncoder
    user_embeddings: np.ndarray  # [U, d]
    catalogue_embeddings: np.ndarray  # [N, d]
    settings: UtilitySettings
    mean_user: np.ndarray | None = None  # [d], by which the user term is split; None: that of user_embeddings
    neighbor_limit: float | None = (
        None  # of the catalogue where `settings` has a cap: computed once, replaced scorers keep it
    )

    def __post_init__(self):
        if self.mean_user is None:
            object.__setattr__(self, "mean_user", np.asarray(self.user_embeddings).mean(axis=0))
        for name in ("user_embeddings", "catalogue_embeddings"):
            is_finite = np.isfinite(getattr(self, name)).all(axis=1)
            if not is_finite.all():
                row = np.flatnonzero(~is_finite)[0]
                raise UserError(f"{name}: row {row} holds NaN or infinity; check the encoder")
        if self.neighbor_limit is None:
            limit = catalogue_neighbor_limit(np.asarray(self.catalogue_embeddings), self.settings)
            object.__setattr__(self, "neighbor_limit", limit)

    def embed(self, descriptions: Sequence[str]) -> np.ndarray:
        """E_D of each text [B, d]."""
        return self.encoder(descriptions)

    def score(self, descriptions: Sequence[str], user_index: np.ndarray) -> UtilityTerms:
        """U and its terms of each text for its user, NumPy [B]."""
        return self.terms(self.embed(descriptions), user_index)

    def terms(self, embeddings: np.ndarray, user_index: np.ndarray) -> UtilityTerms:
        """U and its terms of embeddings [B, d], NumPy [B]."""

        def utility(embeddings: np.ndarray, users: np.ndarray) -> UtilityTerms:
            return content_gap_utility(
                embeddings,
                users,
                self.catalogue_embeddings,
                self.settings,
                mean_user=self.mean_user,
                neighbor_limit=self.neighbor_limit,
            )

        return in_pieces(utility, embeddings, self.user_embeddings[user_index])

    def utilities_of_users(self, embeddings: np.ndarray, user_index: Sequence[int]) -> np.ndarray:
        """U of each embedding for each of the users [B, U]: what no user changes is computed once."""
        users = np.asarray(user_index)
        terms = self.terms(embeddings, np.repeat(users[:1], len(embeddings)))
        return (terms.utility - terms.user_term)[:, None] + embeddings @ self.user_embeddings[users].T
