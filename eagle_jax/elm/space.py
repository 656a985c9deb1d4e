"""Stage 2 of ELM: the spaces that texts are embedded in, and the embeddings that ELM will read.

Axis letters: `V` texts of a film, `N` films, `U` users, `F` features, `d` width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue
from eagle_jax.data.splits import Split
from eagle_jax.data.task_examples import Row, draw_task_examples, nearest_neighbors, rated_sides
from eagle_jax.data.tasks import TASKS
from eagle_jax.elm.evaluation.consistency import (
    BehavioralConsistency,
    behavioral_consistency,
    cosine_consistency,
    embed_outputs,
)
from eagle_jax.elm.examples import Teacher, rows_about, subject_names
from eagle_jax.elm.settings import ElmSpaceSettings
from eagle_jax.embeddings.domain_encoder import DomainEncoder, FeaturesFn, compute_features, encoder_quality
from eagle_jax.embeddings.regression_head import fit_head
from eagle_jax.embeddings.text_projection import TextProjection, fit_text_projection
from eagle_jax.embeddings.wals import WALSOutput

FILM_ANSWERS = 0  # the use of the teacher's answers about films: `Teacher.answer`


@dataclasses.dataclass(frozen=True, eq=False)
class Spaces:
    """What there is, and what texts and entities are compared in.

    book: of the tasks; profile_task: the one that describes a user.
    semantic [N, d]: of each film, the mean of P over its texts; users: behavioral embeddings.
    profile_rows: user -> example with the teacher's profile, for users with enough ratings.
    item_texts [N, d']: E_D of the films' catalogue texts; user_texts: of the profiles, by user.
    """

    book: str
    profile_task: str
    catalogue: Catalogue
    split: Split
    wals: WALSOutput
    features: FeaturesFn
    projection: TextProjection
    item_encoder: DomainEncoder
    user_encoder: DomainEncoder
    semantic: np.ndarray
    users: np.ndarray
    neighbors: np.ndarray
    profile_rows: dict[int, Row]
    item_texts: np.ndarray
    user_texts: dict[int, np.ndarray]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """P of each text [B, d]."""
        return self.projection(self.features(texts))

    @property
    def titles(self) -> list[str]:
        return [entity.title for entity in self.catalogue.entities]

    @property
    def world(self) -> str:
        """What there is, in words."""
        name = {"minilens": "MiniLens"}.get(self.catalogue.name, self.catalogue.name)
        nouns = f"{self.catalogue.entity_format.noun}s"
        return f"{name} with {len(self.catalogue.entities)} {nouns} and {self.catalogue.ratings.num_users} users"

    def described_users(self, part: str) -> list[int]:
        """The users of a part of the split of whom there is a profile."""
        return [int(user) for user in self.split.users[part] if int(user) in self.profile_rows]

    def rank_films(
        self, profiles: Sequence[str | None], films: np.ndarray, ratings: np.ndarray
    ) -> BehavioralConsistency:
        """BC of profiles [B]: how they rank `films` against ratings [B, films]."""
        outputs = embed_outputs(self.user_encoder, profiles, self.item_texts.shape[1])
        return behavioral_consistency(outputs, self.item_texts[films], ratings)

    def predict_ratings(self, points: np.ndarray, bias: np.ndarray, films: np.ndarray) -> np.ndarray:
        """What users at points [..., d] with bias [...] would give, [..., films], on the scale of the
        given ratings."""
        of_films = np.asarray(self.wals.item_embeddings)[films]
        shared = float(self.wals.global_bias) + np.asarray(self.wals.item_bias)[films]
        ratings = points @ of_films.T + np.asarray(bias)[..., None] + shared
        given = self.split.train.rating
        return np.clip(ratings, given.min(), given.max())


def run_space_stage(
    stage: StageFolder,
    profile_task: str,
    split: Split,
    wals: WALSOutput,
    features: FeaturesFn,
    teacher: Teacher,
    settings: ElmSpaceSettings,
    num_neighbors: int,
    seed: int,
) -> Spaces:
    """Fits P on training films, E_D on training films and users.

    Writes space.npz, items.npz, users.npz, profiles.jsonl and facts.json.
    """
    catalogue = teacher.catalogue
    if not stage.is_complete():
        stage.begin()
        films = films_asked_about(settings, split, len(catalogue.entities))
        views = [list(catalogue.descriptions)]
        num_answers, malformed = {}, {}
        for task in settings.tasks:
            targets = teacher.answer(rows_about(task, films), FILM_ANSWERS)
            answers = {row["items"][0]: row["target"] for row in targets.rows}
            num_answers[task] = f"{len(answers)} of {len(films)}"
            malformed[task] = dict(targets.malformed)
            # A film without an answer has its text once more: P needs as many texts of each.
            views.append([answers.get(film, text) for film, text in enumerate(catalogue.descriptions)])
        asked = _profile_rows(profile_task, split, seed)
        profiles, malformed[profile_task], _ = teacher.answer(asked, 1)
        by_view = np.stack([compute_features(features, texts) for texts in views])
        of_profiles = compute_features(features, [row["target"] for row in profiles])
        users = np.array([row["user"] for row in profiles])
        facts = _fit(stage, split, wals, by_view, of_profiles, users, settings, seed)
        of_teacher = {"films_that_the_teacher_told": num_answers, "malformed": malformed}
        of_teacher["users_that_the_teacher_told"] = f"{len(profiles)} of {len(asked)}"
        stage.write_json("facts.json", facts | of_teacher)
        stage.write_jsonl("profiles.jsonl", (row | subject_names(row, catalogue) for row in profiles))
        stage.finish()
    arrays: dict[str, Any] = stage.read_arrays("space.npz")
    profiles = stage.read_jsonl("profiles.jsonl")
    return Spaces(
        book=teacher.book,
        profile_task=profile_task,
        catalogue=catalogue,
        split=split,
        wals=wals,
        features=features,
        projection=TextProjection(arrays["center"], arrays["matrix"]),
        item_encoder=DomainEncoder.from_arrays(stage.read_arrays("items.npz"), features),
        user_encoder=DomainEncoder.from_arrays(stage.read_arrays("users.npz"), features),
        semantic=arrays["semantic"],
        users=np.asarray(wals.user_embeddings),
        neighbors=nearest_neighbors(arrays["semantic"], split.entities["train"], num_neighbors),
        profile_rows={row["user"]: row for row in profiles},
        item_texts=arrays["item_texts"],
        user_texts={row["user"]: text for row, text in zip(profiles, arrays["user_texts"], strict=True)},
    )


def films_asked_about(settings: ElmSpaceSettings, split: Split, num_films: int) -> np.ndarray:
    """The films about which the teacher is asked the space's tasks."""
    if settings.asked_about == "all":
        return np.arange(num_films)
    return np.sort(np.concatenate([*split.entities.values()]))


def _profile_rows(task: str, split: Split, seed: int) -> list[Row]:
    """One for each user who has enough ratings."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in sorted(int(user) for part in split.users.values() for user in part):
        if rated_sides(split.train, user):
            rows += draw_task_examples(
                TASKS[task],
                1,
                rng,
                items=np.zeros(0),
                neighbors=np.zeros((0, 0)),
                ratings=split.train,
                users=np.array([user]),
            )
    return rows


def _fit(
    stage: StageFolder,
    split: Split,
    wals: WALSOutput,
    by_view: np.ndarray,
    of_profiles: np.ndarray,
    users: np.ndarray,
    settings: ElmSpaceSettings,
    seed: int,
) -> dict[str, Any]:
    """Facts of the spaces, which it writes; by_view [V, N, F]; of_profiles [P, F] of `users` [P]."""
    films, test = split.entities["train"], split.entities["test"]
    projection = fit_text_projection(by_view[:, films], settings.width, settings.shrinkage)
    projected = projection(by_view)
    semantic = projected.mean(axis=0)
    item_targets = np.asarray(wals.item_embeddings)
    counts = np.bincount(split.train.item_index, minlength=len(item_targets))
    rated = films[counts[films] > 0]
    flat = by_view[:, rated].reshape(-1, by_view.shape[-1])
    keys = [jax.random.key(derive_seed(seed, side)) for side in (1, 2)]
    num_views = len(by_view)
    items = fit_head(
        flat,
        np.tile(item_targets[rated], (num_views, 1)),
        np.tile(counts[rated].astype(np.float32), num_views),
        settings.heads,
        keys[0],
    )
    is_known = np.isin(users, split.users["train"])
    user_targets = np.asarray(wals.user_embeddings)[users]
    people = fit_head(of_profiles[is_known], user_targets[is_known], np.ones(is_known.sum()), settings.heads, keys[1])
    encoders = {"items": DomainEncoder(None, items), "users": DomainEncoder(None, people)}
    for name, encoder in encoders.items():
        stage.write_arrays(f"{name}.npz", encoder.to_arrays())
    item_texts = encoders["items"].embed_features(by_view[0])
    user_texts = encoders["users"].embed_features(of_profiles)
    stage.write_arrays(
        "space.npz",
        {
            "center": projection.center,
            "matrix": projection.matrix,
            "semantic": semantic,
            "item_texts": item_texts,
            "user_texts": user_texts,
        },
    )
    held_out = encoder_quality(item_texts[test], item_targets[test], np.asarray(wals.user_embeddings))
    return {
        "width": settings.width,
        "num_texts_of_a_film": num_views,
        "sc_of_held_out_texts": [float(cosine_consistency(texts[test], semantic[test]).mean()) for texts in projected],
        "item_encoder_held_out": held_out._asdict(),
        "user_encoder_held_out_relative_error": _relative_error(user_texts[~is_known], user_targets[~is_known]),
    }


def _relative_error(made: np.ndarray, targets: np.ndarray) -> float:
    return float(np.sqrt(np.sum((made - targets) ** 2) / np.sum(targets**2)))


def draw_ends(spaces: Spaces, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Held-out films and held-out users with a profile, [2, count] each, no end twice.

    Raises UserError where there are too few.
    """
    rng = np.random.default_rng(seed)
    ends = []
    for pool in (spaces.split.entities["test"], np.array(spaces.described_users("test"))):
        if len(pool) < 2 * count:
            raise UserError(f"curves.num_paths: {count} paths need {2 * count} held-out ends, there are {len(pool)}")
        ends.append(rng.permutation(pool)[: 2 * count].reshape(2, count))
    return ends[0], ends[1]
