"""Stage 6 of ELM: films and users that do not exist, between and beyond those of the catalogue.

Tennenholtz et al. 2024 (ELM), section 4, figures 4 and 5. All paths start from held-out entities.
Axis letters: `A` positions, `B` paths, `N` films, `d` width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.data.splits import Split
from eagle_jax.data.tasks import BEHAVIORAL, SEMANTIC
from eagle_jax.elm.evaluation.consistency import (
    BehavioralConsistency,
    behavioral_consistency_user,
    chance_consistency,
    read_outputs,
)
from eagle_jax.elm.evaluation.consistency_table import behavioral_path, consistency_curve, semantic_path
from eagle_jax.elm.evaluation.directions import fit_tag_cavs
from eagle_jax.elm.model.embedding_lm import EmbeddingLM
from eagle_jax.elm.settings import PROFILE, ElmEvaluationSettings
from eagle_jax.elm.space import Spaces, draw_ends, predicted_ratings
from eagle_jax.elm.train_stage import embedded_prompt
from eagle_jax.embeddings.concept_activation import ConceptActivation, extrapolate
from eagle_jax.embeddings.interpolation import interpolate
from eagle_jax.embeddings.wals import WALSOutput

Texts = list[list[str | None]]


class Paths:
    """Curves of one ELM: each decodes the points of its paths, scores and summarises them."""

    def __init__(
        self,
        stage: StageFolder,
        catalogue: Catalogue,
        split: Split,
        wals: WALSOutput,
        spaces: Spaces,
        elm: EmbeddingLM,
        settings: ElmEvaluationSettings,
        seed: int,
    ):
        self.stage, self.catalogue, self.split, self.wals = stage, catalogue, split, wals
        self.spaces, self.elm, self.settings, self.seed = spaces, elm, settings, seed
        self._num_decoded = 0

    def run(self) -> list[dict[str, Any]]:
        """All curves that the settings ask for, with the texts of each one's first path."""
        of_curves = self.settings.curves
        films, users = draw_ends(self.split, self.spaces, of_curves.num_paths, self.seed)
        curves = [self._between_films(films, how) for how in of_curves.how]
        curves.append(self._between_users(users))
        for embeddings, along, starts in (
            (self.spaces.semantic, self._films_along, films[0]),
            (np.asarray(self.wals.item_embeddings), self._users_along, users[0]),
        ):
            for kind in of_curves.cav_kinds:
                cavs = fit_tag_cavs(self.catalogue, self.split, embeddings, of_curves.tags, kind, of_curves)
                for tag in of_curves.tags:
                    if tag not in cavs.found:
                        raise UserError(f"curves.tags: {tag!r} has no {kind} direction: {cavs.refused[tag]}")
                    curves.append(along(starts, tag, kind, cavs.found[tag]))
        return curves

    def _decode(self, task: str, kind: str, points: np.ndarray) -> Texts:
        """[A, B, d] -> texts [A][B]."""
        number = self._num_decoded
        self._num_decoded += 1

        def generate() -> list[str | None]:
            prompts = [embedded_prompt(task, kind, point) for at in points for point in at]
            drawn = derive_seed(self.seed, number)
            return read_outputs(self.elm.generate(prompts, self.settings.sampling, drawn)).texts

        flat = self.stage.chunk(number, generate)
        width = points.shape[1]
        return [flat[start : start + width] for start in range(0, len(flat), width)]

    def _rows(
        self, positions: Sequence[float], texts: Texts, scores: Mapping[str, np.ndarray], starts: np.ndarray
    ) -> list[dict[str, Any]]:
        return consistency_curve(positions, texts, scores, starts.tolist(), self.settings.bootstrap)

    def _between_films(self, ends: np.ndarray, how: str) -> dict[str, Any]:
        curves = self.settings.curves
        first, second = self.spaces.semantic[ends]
        points = np.stack([interpolate(first, second, alpha, how) for alpha in curves.alphas])
        texts = self._decode(curves.task, SEMANTIC, points)
        targets = {"sc/point": points, "sc/first": first, "sc/second": second}
        scores = semantic_path(self.spaces.embed, texts, targets)
        return {
            "name": f"between two films, {how}",
            "kind": SEMANTIC,
            "path": "interpolation",
            "how": how,
            "task": curves.task,
            "tag": None,
            "rows": self._rows(curves.alphas, texts, scores, ends[0]),
            "texts": [at[0] for at in texts],
        }

    def _between_users(self, ends: np.ndarray) -> dict[str, Any]:
        """Against the ratings that matrix factorisation predicts for each point (figure 5)."""
        alphas = self.settings.curves.alphas
        films = self.split.entities["test"]
        first, second = self.spaces.users[ends]
        points = np.stack([interpolate(first, second, alpha) for alpha in alphas])
        bias = np.asarray(self.wals.user_bias)[ends]
        of_points = np.stack([(1 - alpha) * bias[0] + alpha * bias[1] for alpha in alphas])
        ratings = self._predict(points, of_points, films)
        texts = self._decode(PROFILE, BEHAVIORAL, points)
        scores = behavioral_path(self.spaces.user_encoder, texts, self.spaces.item_texts[films], ratings)
        return {
            "name": "between two users, linear",
            "kind": BEHAVIORAL,
            "path": "interpolation",
            "how": "linear",
            "task": PROFILE,
            "tag": None,
            "chance": _chance(ratings),
            "rows": self._rows(alphas, texts, scores, ends[0]),
            "texts": [at[0] for at in texts],
        }

    def _predict(self, points: np.ndarray, bias: np.ndarray, films: np.ndarray) -> np.ndarray:
        return predicted_ratings(self.wals, self.split.train, points, bias, films)

    def _films_along(self, starts: np.ndarray, tag: str, kind: str, cav: ConceptActivation) -> dict[str, Any]:
        curves = self.settings.curves
        start = self.spaces.semantic[starts]
        points = np.stack([extrapolate(start, cav, step) for step in curves.steps])
        texts = self._decode(curves.task, SEMANTIC, points)
        targets = {"sc/point": points, "sc/start": start}
        scores = semantic_path(self.spaces.embed, texts, targets)
        scores["has_tag"] = _names(tag, texts, grammar.mentions)
        return {
            "name": f"towards {tag!r}, {kind} CAV",
            "kind": SEMANTIC,
            "path": "extrapolation",
            "how": None,
            "task": curves.task,
            "tag": tag,
            "quality": cav.quality,
            "rows": self._rows(curves.steps, texts, scores, starts),
            "texts": [at[0] for at in texts],
        }

    def _users_along(self, starts: np.ndarray, tag: str, kind: str, cav: ConceptActivation) -> dict[str, Any]:
        """Films and users share the space of matrix factorisation: the direction is the films',
        its unit the spread of users. has_tag: whether the profile says that the user likes it;
        truth: what the teacher's own profiles of the users at the start score there."""
        steps = self.settings.curves.steps
        films = self.split.entities["test"]
        cav = cav.measured_on(self.spaces.users)
        points = np.stack([extrapolate(self.spaces.users[starts], cav, step) for step in steps])
        bias = np.tile(np.asarray(self.wals.user_bias)[starts], (len(steps), 1))
        ratings = self._predict(points, bias, films)
        texts = self._decode(PROFILE, BEHAVIORAL, points)
        scores = behavioral_path(self.spaces.user_encoder, texts, self.spaces.item_texts[films], ratings)
        scores["has_tag"] = _names(tag, texts, lambda text: corpus.read_profile(text)[0])
        of_teacher = behavioral_consistency_user(
            np.stack([self.spaces.user_texts[int(user)] for user in starts]),
            self.spaces.item_texts[films],
            self._predict(self.spaces.users[starts], bias[0], films),
        )
        return {
            "name": f"users towards {tag!r}, {kind} CAV",
            "kind": BEHAVIORAL,
            "path": "extrapolation",
            "how": None,
            "task": PROFILE,
            "tag": tag,
            "quality": cav.quality,
            "chance": _chance(ratings),
            "truth": _means(of_teacher),
            "rows": self._rows(steps, texts, scores, starts),
            "texts": [at[0] for at in texts],
        }


def _names(tag: str, texts: Texts, values_of: Callable[[str], Collection[tuple[str, int]]]) -> np.ndarray:
    """[A, B]: 1 where a text names the tag's value."""
    value = grammar.word_values()[tag]
    named = [[text is not None and value in values_of(text) for text in at] for at in texts]
    return np.array(named, np.float64)


def _chance(ratings: np.ndarray) -> dict[str, float]:
    """What rankings at random score for ratings [A, B, N]."""
    return _means(chance_consistency(ratings.reshape(-1, ratings.shape[-1])))


def _means(scored: BehavioralConsistency) -> dict[str, float]:
    return {"bc/ndcg": float(scored.ndcg.mean()), "bc/spearman": float(scored.spearman.mean())}
