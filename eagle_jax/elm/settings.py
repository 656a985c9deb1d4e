"""All settings of an ELM experiment on MiniLens, in the order of its stages."""

from __future__ import annotations

from typing import Literal

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.minilens.world import MiniLensSettings
from eagle_jax.data.splits import SplitSettings
from eagle_jax.data.tasks import TASKS, find_task
from eagle_jax.elm.model.training import ElmTrainingSettings
from eagle_jax.embeddings.concept_activation import CAVSettings
from eagle_jax.embeddings.interpolation import How
from eagle_jax.embeddings.regression_head import DomainEncoderSettings
from eagle_jax.embeddings.wals import WALSSettings
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.reports.statistics import BootstrapSettings

BOOK = "compact"  # the wordings that MiniLens-LM knows
TASK_NAMES = tuple(name for name, task in TASKS.items() if task.compact)
SINGLE_MOVIE = tuple(name for name in TASK_NAMES if len(TASKS[name].slots) == 1 and not TASKS[name].describes_user)
TWO_MOVIES = tuple(name for name in TASK_NAMES if len(TASKS[name].slots) == 2)
PROFILE = "user_profile"
CAVKind = Literal["linear", "ranking"]


@settings
class ElmModelSettings:
    """Models, and the shapes of their batches."""

    reader: str = setting("The decoder that becomes the ELM.")
    features: str = setting("The model by whose states texts are embedded.")
    batch_size: int = setting("Prompts of a forward pass.", at_least=1)
    length_multiple: int = setting("Prompts are padded to it.", at_least=1, unit="tokens")
    slot_multiple: int = setting("A prompt's embeddings are padded to it.", at_least=1)


@settings
class ElmSpaceSettings:
    """P, and what behavioral consistency is measured by."""

    tasks: tuple[str, ...] = setting(
        "Whose answers, beside the catalogue's text, a film's semantic embedding averages."
    )
    width: int = setting("Of the semantic embeddings.", at_least=1)
    shrinkage: float = setting("Of the covariance, in `fit_text_projection`.", at_least=0)
    heads: DomainEncoderSettings = setting("From texts' features to WALS embeddings.")

    def __post_init__(self):
        if unknown := [name for name in self.tasks if name not in SINGLE_MOVIE]:
            raise UserError(f"space.tasks: {unknown[0]!r} is none of {', '.join(SINGLE_MOVIE)}")


@settings
class TeacherSettings:
    """How the teacher is asked."""

    sampling: SamplingSettings
    batch_size: int = setting("Prompts at a time.", at_least=1)
    max_tries: int = setting("So often each is asked at most.", at_least=1)


@settings
class ElmExampleSettings:
    """Training examples."""

    per_movie_task: int = setting("Of each task about films.", at_least=1)
    profiles: int = setting("Of the user profile.", at_least=1)
    num_neighbors: int = setting('k of "nearest".', at_least=1)


@settings
class ElmStageSettings:
    """The ELM's training."""

    adapter_hidden_width: int = setting("Of both adapters.", at_least=1)
    tokens_per_batch: int = setting("Of each optimiser step.", at_least=1, unit="tokens")
    training: ElmTrainingSettings


@settings
class ElmCurveSettings:
    """Paths between pairs of films and of users, and moves along concept activation vectors."""

    task: str = setting("Asked of the films on a path.")
    num_paths: int = setting("Pairs of films and of users.", at_least=2)
    how: tuple[How, ...] = setting("Paths between two embeddings.", distinct=True)
    alphas: tuple[float, ...] = setting("Places on a path.", at_least=0, at_most=1, distinct=True)
    tags: tuple[str, ...] = setting("Values along whose vectors films and users are moved.", distinct=True)
    steps: tuple[float, ...] = setting("How far they are moved.", unit="spreads", distinct=True)
    cav_kinds: tuple[CAVKind, ...] = setting("One vector of each kind.", distinct=True)
    lower_per_positive: int = setting("For ranking ones, films below each film with the tag.", at_least=1)
    cavs: CAVSettings

    def __post_init__(self):
        find_task(self.task)
        if self.task not in SINGLE_MOVIE:
            raise UserError(f"curves.task: {self.task!r} is none of {', '.join(SINGLE_MOVIE)}")


@settings
class ElmEvaluationSettings:
    """Held-out examples, how they are answered and scored."""

    per_movie_task: int = setting("Of each task about films.", at_least=2)
    profiles: int = setting("Of the user profile.", at_least=2)
    sampling: SamplingSettings
    bootstrap: BootstrapSettings
    samples_per_task: int = setting("Texts that the report shows.", at_least=0)
    curves: ElmCurveSettings


@settings
class ElmExperiment:
    """Everything; a config file gives every field a value."""

    title: str = setting("Of the report.")
    seed: int = setting("Of everything that has no seed of its own.", at_least=0)
    elm_seeds: tuple[int, ...] = setting(
        "An ELM is trained for each and answers once; so does who is told titles.", at_least=0, distinct=True
    )
    catalogue: MiniLensSettings
    split: SplitSettings
    wals: WALSSettings
    models: ElmModelSettings
    space: ElmSpaceSettings
    teacher: TeacherSettings
    examples: ElmExampleSettings
    elm: ElmStageSettings
    evaluation: ElmEvaluationSettings
