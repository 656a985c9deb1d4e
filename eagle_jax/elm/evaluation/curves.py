"""Stage 6 of ELM: films and users that do not exist, between and beyond those of the catalogue.

Tennenholtz et al. 2024 (ELM), section 4, figures 4 and 5. All paths start from held-out entities.
Axis letters: `A` positions, `B` paths, `N` films, `d` width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.data.tasks import BEHAVIORAL, SEMANTIC
from eagle_jax.elm.evaluation.consistency import (
    BehavioralConsistency,
    behavioral_consistency,
    chance_consistency,
    read_outputs,
)
from eagle_jax.elm.evaluation.consistency_table import consistency_curve, semantic_path
from eagle_jax.elm.evaluation.directions import fit_tag_cavs
from eagle_jax.elm.model.embedding_lm import EmbeddingLM
from eagle_jax.elm.settings import ElmEvaluationSettings
from eagle_jax.elm.space import Spaces, draw_ends
from eagle_jax.elm.train_stage import embedded_prompt
from eagle_jax.embeddings.concept_activation import ConceptActivation, extrapolate
from eagle_jax.embeddings.interpolation import interpolate

Texts = list[list[str | None]]


@dataclasses.dataclass(kw_only=True)
class Paths:
    """Curves of one ELM: each decodes the points of its paths, scores and summarises them."""

    stage: StageFolder
    spaces: Spaces
    elm: EmbeddingLM
    settings: ElmEvaluationSettings
    seed: int
    num_decoded: int = 0

    def run(self) -> list[dict[str, Any]]:
        """All curves that the settings ask for, with the texts of each one's first path."""
        of_curves = self.settings.curves
        films, users = draw_ends(self.spaces, of_curves.num_paths, self.seed)
        curves = [self._between_films(films, how) for how in of_curves.how]
        curves.append(self._between_users(users))
        for embeddings, along, starts in (
            (self.spaces.semantic, self._films_along, films[0]),
            (np.asarray(self.spaces.wals.item_embeddings), self._users_along, users[0]),
        ):
            for kind in of_curves.cav_kinds:
                cavs = fit_tag_cavs(self.spaces, embeddings, of_curves.tags, kind, of_curves)
                for tag in of_curves.tags:
                    if tag not in cavs.found:
                        raise UserError(f"curves.tags: {tag!r} has no {kind} direction: {cavs.refused[tag]}")
                    curves.append(along(starts, tag, kind, cavs.found[tag]))
        return curves

    def _between_films(self, ends: np.ndarray, how: str) -> dict[str, Any]:
        alphas = self.settings.curves.alphas
        first, second = self.spaces.semantic[ends]
        points = np.stack([interpolate(first, second, alpha, how) for alpha in alphas])
        about = {"name": f"between two films, {how}", "path": "interpolation", "how": how, "tag": None}
        return about | self._tell_films(alphas, points, {"sc/first": first, "sc/second": second}, ends[0])

    def _films_along(self, starts: np.ndarray, tag: str, kind: str, cav: ConceptActivation) -> dict[str, Any]:
        steps = self.settings.curves.steps
        start = self.spaces.semantic[starts]
        points = np.stack([extrapolate(start, cav, step) for step in steps])
        about = {"name": f"towards {tag!r}, {kind} CAV", "path": "extrapolation", "how": None, "tag": tag}
        curve = self._tell_films(steps, points, {"sc/start": start}, starts, tag)
        return about | curve | {"quality": cav.quality}

    def _tell_films(
        self,
        positions: Sequence[float],
        points: np.ndarray,
        targets: Mapping[str, np.ndarray],
        starts: np.ndarray,
        tag: str | None = None,
    ) -> dict[str, Any]:
        task = self.settings.curves.task
        texts = self._decode(task, SEMANTIC, points)
        scores = semantic_path(self.spaces.embed, texts, {"sc/point": points, **targets})
        if tag is not None and self.spaces.catalogue.oracle is not None:  # MiniLens' grammar
            scores["has_tag"] = _names(tag, texts, grammar.mentions)
        return {"kind": SEMANTIC, "task": task} | self._curve(positions, texts, scores, starts)

    def _between_users(self, ends: np.ndarray) -> dict[str, Any]:
        alphas = self.settings.curves.alphas
        first, second = self.spaces.users[ends]
        points = np.stack([interpolate(first, second, alpha) for alpha in alphas])
        bias = np.asarray(self.spaces.wals.user_bias)[ends]
        of_points = np.stack([(1 - alpha) * bias[0] + alpha * bias[1] for alpha in alphas])
        about = {"name": "between two users, linear", "path": "interpolation", "how": "linear", "tag": None}
        return about | self._tell_users(alphas, points, of_points, ends[0])

    def _users_along(self, starts: np.ndarray, tag: str, kind: str, cav: ConceptActivation) -> dict[str, Any]:
        """Films and users share the space of matrix factorisation: the direction is the films',
        its unit the spread of users. truth: what the teacher's own profiles of the users at the
        start score there."""
        steps = self.settings.curves.steps
        films = self.spaces.split.entities["test"]
        users = self.spaces.users[starts]
        cav = cav.measured_on(self.spaces.users)
        points = np.stack([extrapolate(users, cav, step) for step in steps])
        bias = np.asarray(self.spaces.wals.user_bias)[starts]
        about = {"name": f"users towards {tag!r}, {kind} CAV", "path": "extrapolation", "how": None, "tag": tag}
        curve = self._tell_users(steps, points, np.tile(bias, (len(steps), 1)), starts, tag)
        of_teacher = behavioral_consistency(
            np.stack([self.spaces.user_texts[int(user)] for user in starts]),
            self.spaces.item_texts[films],
            self.spaces.predict_ratings(users, bias, films),
        )
        return about | curve | {"quality": cav.quality, "truth": _means(of_teacher)}

    def _tell_users(
        self,
        positions: Sequence[float],
        points: np.ndarray,
        bias: np.ndarray,
        starts: np.ndarray,
        tag: str | None = None,
    ) -> dict[str, Any]:
        """Against the ratings that matrix factorisation predicts for each point (figure 5), with
        bias [A, B]; has_tag: whether the profile says that the user likes it."""
        films = self.spaces.split.entities["test"]
        ratings = self.spaces.predict_ratings(points, bias, films)
        ratings = ratings.reshape(-1, len(films))
        task = self.spaces.profile_task
        texts = self._decode(task, BEHAVIORAL, points)
        scored = self.spaces.rank_films([text for at in texts for text in at], films, ratings)
        scores = {name: values.reshape(bias.shape) for name, values in scored.by_measure().items()}
        if tag is not None and self.spaces.catalogue.oracle is not None:
            scores["has_tag"] = _names(tag, texts, lambda text: corpus.read_profile(text)[0])
        curve = self._curve(positions, texts, scores, starts)
        return {"kind": BEHAVIORAL, "task": task, "chance": _means(chance_consistency(ratings))} | curve

    def _decode(self, task: str, kind: str, points: np.ndarray) -> Texts:
        """[A, B, d] -> texts [A][B]."""
        number = self.num_decoded
        self.num_decoded += 1

        def generate() -> list[str | None]:
            prompts = [embedded_prompt(self.spaces.book, task, kind, point) for at in points for point in at]
            drawn = derive_seed(self.seed, number)
            return read_outputs(self.spaces.book, self.elm.generate(prompts, self.settings.sampling, drawn)).texts

        flat = self.stage.chunk(number, generate)
        width = points.shape[1]
        return [flat[start : start + width] for start in range(0, len(flat), width)]

    def _curve(
        self, positions: Sequence[float], texts: Texts, scores: Mapping[str, np.ndarray], starts: np.ndarray
    ) -> dict[str, Any]:
        rows = consistency_curve(positions, texts, scores, starts.tolist(), self.settings.bootstrap)
        return {"rows": rows, "texts": [at[0] for at in texts]}


def _names(tag: str, texts: Texts, values_of: Callable[[str], Collection[tuple[str, int]]]) -> np.ndarray:
    """[A, B]: 1 where a text names the tag's value."""
    value = grammar.word_values()[tag]
    named = [[text is not None and value in values_of(text) for text in at] for at in texts]
    return np.array(named, np.float64)


def _means(scored: BehavioralConsistency) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in scored.by_measure().items()}
