"""Where episodes start, what their texts are worth, and what a value network may see of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import EntityFormat, PromptBook
from eagle_jax.eagle.environment import EpisodeState, LLMEnvironment, Start
from eagle_jax.embeddings.scorer import Scorer


@dataclasses.dataclass(frozen=True)
class Episodes:
    """Everything an episode needs apart from the policy."""

    catalogue: Catalogue
    book: PromptBook
    environment: LLMEnvironment
    profiles: Mapping[int, str]
    scorer: Scorer
    entities: Mapping[str, np.ndarray]  # by part of the split
    users: Mapping[str, np.ndarray]

    @property
    def entity_format(self) -> EntityFormat:
        return self.catalogue.entity_format

    def draw_starts(self, part: str, rng: np.random.Generator, count: int) -> list[Start]:
        """Random (anchor, user) pairs of one part of the split."""
        anchors, users = self.entities[part], self.users[part]
        drawn = zip(
            anchors[rng.integers(len(anchors), size=count)], users[rng.integers(len(users), size=count)], strict=True
        )
        return [Start(int(i), int(u), self.catalogue.entities[i].description, self.profiles[int(u)]) for i, u in drawn]

    def rewards(self, states: Sequence[EpisodeState]) -> np.ndarray:
        """Utility of each state's text for its user [B]."""
        return self.scorer.score(*_texts_and_users(states)).utility

    def embed(self, states: Sequence[EpisodeState]) -> np.ndarray:
        """E_D of each state's text [B, d]."""
        return self.scorer.embed([state.description for state in states])

    def value_features(self, states: Sequence[EpisodeState]) -> np.ndarray:
        """E_D(text), z_u, their product and the terms of U [B, F]: what the return depends on."""
        texts, users = _texts_and_users(states)
        embeddings = self.scorer.embed(texts)
        terms = self.scorer.terms(embeddings, users)
        of_users = self.scorer.user_embeddings[users]
        columns = [term[:, None] for term in terms[1:] if term is not None]
        return np.concatenate([embeddings, of_users, embeddings * of_users, *columns], axis=1)


def _texts_and_users(states: Sequence[EpisodeState]) -> tuple[list[str], np.ndarray]:
    users = np.array([state.user_index for state in states])
    return [state.description for state in states], users
