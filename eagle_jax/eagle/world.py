"""What all stages share: ratings' catalogue and its split, encoders, profiles, the environment; where
episodes start, what their texts are worth, and what a value network may see of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.prompts import EntityFormat, PromptBook
from eagle_jax.data.splits import Split
from eagle_jax.eagle.environment import EpisodeState, LLMEnvironment, Start
from eagle_jax.eagle.quality.quality import Quality, with_quality
from eagle_jax.embeddings.scorer import TRAIN, Scorer
from eagle_jax.embeddings.utility import TERMS


@dataclasses.dataclass(frozen=True)
class EagleWorld:
    """Everything an episode needs apart from the policy; a run adds profiles and environment when
    their stages come."""

    catalogue: Catalogue
    split: Split
    book: PromptBook
    scorers: Mapping[str, Scorer]  # TRAIN: the reward's; HELD_OUT: of evaluations only
    profiles: Mapping[int, str] = dataclasses.field(default_factory=dict)  # by user index
    environment: LLMEnvironment | None = None
    quality: Quality | None = None  # None: the reward is U alone

    @property
    def entity_format(self) -> EntityFormat:
        return self.catalogue.entity_format

    @property
    def scorer(self) -> Scorer:
        """The one that rewards."""
        return self.scorers[TRAIN]

    def draw_starts(self, part: str, rng: np.random.Generator, count: int) -> list[Start]:
        """Random (anchor, user) pairs of one part of the split."""
        anchors, users = self.split.entities[part], self.split.users[part]
        drawn = zip(
            anchors[rng.integers(len(anchors), size=count)], users[rng.integers(len(users), size=count)], strict=True
        )
        return [Start(int(i), int(u), self.catalogue.entities[i].description, self.profiles[int(u)]) for i, u in drawn]

    def rewards(self, states: Sequence[EpisodeState]) -> np.ndarray:
        """Utility of each state's text for its user, and its weighted quality where there is one [B]."""
        texts, users = _texts_and_users(states)
        return self.with_quality(self.scorer.score(texts, users).utility, texts, self._anchors(states))

    def utilities(self, encoder: str, states: Sequence[EpisodeState]) -> np.ndarray:
        """Utility of each state's text for its user under one of the encoders [B]."""
        return self.scorers[encoder].score(*_texts_and_users(states)).utility

    def rewards_of_users(self, texts: Sequence[str], entity_index: int, users: Sequence[int]) -> np.ndarray:
        """As `rewards`, of texts that come of one anchor, for each of the users [B, U]."""
        utilities = self.scorer.utilities_of_users(self.scorer.embed(texts), users)
        anchors = [self.catalogue.entities[entity_index].description] * len(texts)
        return utilities + self.with_quality(np.zeros(len(texts)), texts, anchors)[:, None]

    def with_quality(self, utility: np.ndarray, texts: Sequence[str], anchors: Sequence[str]) -> np.ndarray:
        """What is rewarded of texts whose utility is known [B]."""
        return with_quality(self.quality, utility, texts, anchors)

    def _anchors(self, states: Sequence[EpisodeState]) -> list[str]:
        return [self.catalogue.entities[state.entity_index].description for state in states]

    def embed(self, states: Sequence[EpisodeState]) -> np.ndarray:
        """E_D of each state's text [B, d]."""
        return self.scorer.embed([state.description for state in states])

    def value_features(self, states: Sequence[EpisodeState]) -> np.ndarray:
        """E_D(text), z_u, their product, the terms of U and quality [B, F]: what the return depends on."""
        texts, users = _texts_and_users(states)
        embeddings = self.scorer.embed(texts)
        terms = self.scorer.terms(embeddings, users)
        of_users = self.scorer.user_embeddings[users]
        found = (getattr(terms, name) for name in TERMS)
        columns = [term[:, None] for term in found if term is not None]
        if self.quality is not None:
            columns.append(self.quality(texts, self._anchors(states))[:, None])
        return np.concatenate([embeddings, of_users, embeddings * of_users, *columns], axis=1)


def _texts_and_users(states: Sequence[EpisodeState]) -> tuple[list[str], np.ndarray]:
    users = np.array([state.user_index for state in states])
    return [state.description for state in states], users
