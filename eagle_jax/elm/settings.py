"""All settings of an ELM experiment on MiniLens, in the order of its stages."""

from __future__ import annotations

import dataclasses
from typing import Literal

from eagle_jax.base.errors import UserError
from eagle_jax.data.minilens.world import MiniLensSettings
from eagle_jax.data.splits import SplitSettings
from eagle_jax.data.tasks import TASKS, find_task
from eagle_jax.elm.model.training import ElmTrainingSettings
from eagle_jax.elm.teacher import TeacherSettings
from eagle_jax.embeddings.concept_activation import CAVSettings
from eagle_jax.embeddings.interpolation import How
from eagle_jax.embeddings.regression_head import DomainEncoderSettings
from eagle_jax.embeddings.wals import WALSSettings
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.reports.statistics import BootstrapSettings

BOOK = "compact"  # the wordings that MiniLens-LM knows
TASK_NAMES = tuple(name for name, task in TASKS.items() if task.compact)
SINGLE_MOVIE = tuple(
    name for name in TASK_NAMES if len(TASKS[name].slots) == 1 and not TASKS[name].describes_user
)
TWO_MOVIES = tuple(name for name in TASK_NAMES if len(TASKS[name].slots) == 2)
PROFILE = "user_profile"
CAVKind = Literal["linear", "ranking"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmModelSettings:
    """reader: the decoder that becomes the ELM; features: whose states texts are embedded by.

    batch_size, length_multiple, slot_multiple: as in `EmbeddingLM`.
    """

    reader: str
    features: str
    batch_size: int
    length_multiple: int
    slot_multiple: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmSpaceSettings:
    """P, and what behavioral consistency is measured by.

    tasks: whose answers, beside the catalogue's text, a film's semantic embedding averages.
    width, shrinkage: of `fit_text_projection`. heads: from texts' features to WALS embeddings.
    """

    tasks: tuple[str, ...]
    width: int
    shrinkage: float
    heads: DomainEncoderSettings

    def __post_init__(self):
        if unknown := [name for name in self.tasks if name not in SINGLE_MOVIE]:
            raise UserError(f"space.tasks: {unknown[0]!r} is none of {', '.join(SINGLE_MOVIE)}")
        if not self.tasks:
            raise UserError("space.tasks: at least one, for two texts of each film")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmExampleSettings:
    """Training examples of each task about films, of the user profile, and k of "nearest"."""

    per_movie_task: int
    profiles: int
    num_neighbors: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmStageSettings:
    """adapter_hidden_width: of both adapters. tokens_per_batch: of each optimiser step."""

    adapter_hidden_width: int
    tokens_per_batch: int
    training: ElmTrainingSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmCurveSettings:
    """Paths between num_paths pairs of films (task) and of users, at `alphas`.

    tags: values whose concept activation vectors films and users are moved along, by `steps`
    spreads, one vector of each kind. lower_per_positive: of ranking ones, films below each film
    with the tag.
    """

    task: str
    num_paths: int
    how: tuple[How, ...]
    alphas: tuple[float, ...]
    tags: tuple[str, ...]
    steps: tuple[float, ...]
    cav_kinds: tuple[CAVKind, ...]
    lower_per_positive: int
    cavs: CAVSettings

    def __post_init__(self):
        find_task(self.task)
        if self.task not in SINGLE_MOVIE:
            raise UserError(f"curves.task: {self.task!r} is none of {', '.join(SINGLE_MOVIE)}")
        if self.num_paths < 2:
            raise UserError(f"curves.num_paths must be at least 2, got {self.num_paths}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmEvaluationSettings:
    """How many held-out examples of each task, and how they are answered and scored."""

    per_movie_task: int
    profiles: int
    sampling: SamplingSettings
    bootstrap: BootstrapSettings
    samples_per_task: int
    curves: ElmCurveSettings

    def __post_init__(self):
        for name in ("per_movie_task", "profiles"):
            if getattr(self, name) < 2:
                raise UserError(f"evaluation.{name} must be at least 2, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmExperiment:
    """Everything; a config file gives every field a value.

    elm_seeds: an ELM is trained for each and answers once; so does who is told titles.
    """

    title: str
    seed: int
    elm_seeds: tuple[int, ...]
    catalogue: MiniLensSettings
    split: SplitSettings
    wals: WALSSettings
    models: ElmModelSettings
    space: ElmSpaceSettings
    teacher: TeacherSettings
    examples: ElmExampleSettings
    elm: ElmStageSettings
    evaluation: ElmEvaluationSettings

    def __post_init__(self):
        if not self.elm_seeds or len(set(self.elm_seeds)) < len(self.elm_seeds):
            raise UserError(f"elm_seeds: at least one, none twice, got {self.elm_seeds}")
