"""All settings of an ELM experiment, in the order of its stages."""

from __future__ import annotations

from typing import Literal

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.sources import CatalogueSettings
from eagle_jax.data.splits import SplitSettings
from eagle_jax.data.tasks import TASKS, find_task
from eagle_jax.elm.model.training import ElmTrainingSettings
from eagle_jax.embeddings.concept_activation import CAVSettings
from eagle_jax.embeddings.interpolation import How
from eagle_jax.embeddings.regression_head import DomainEncoderSettings
from eagle_jax.embeddings.wals import WALSSettings
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.remote.settings import RemoteSettings
from eagle_jax.reports.statistics import BootstrapSettings
from eagle_jax.stages.models import REMOTE, remote_models

SINGLE_MOVIE = tuple(name for name, task in TASKS.items() if len(task.slots) == 1 and not task.describes_user)
TWO_MOVIES = tuple(name for name, task in TASKS.items() if len(task.slots) == 2)
PROFILES = tuple(name for name, task in TASKS.items() if task.describes_user)
GRAMMAR = "minilens/teacher"  # names the grammar of MiniLens as a teacher
CAVKind = Literal["linear", "ranking"]


@settings
class ElmModelSettings:
    """Models, and the shapes of their batches."""

    reader: str = setting("The decoder that becomes the ELM.")
    teacher: str = setting("minilens/teacher (the grammar), minilens/<role>, a folder, or remote/<name>.")
    features: str = setting("The model by whose states texts are embedded.")
    batch_size: int = setting("Prompts of a forward pass.", at_least=1)
    length_multiple: int = setting("Prompts are padded to it.", at_least=1, unit="tokens")
    slot_multiple: int = setting("A prompt's embeddings are padded to it.", at_least=1)

    @property
    def dtype(self) -> str:
        """Of a teacher that runs here, as of the reader, which is trained."""
        return "float32"


@settings
class ElmSpaceSettings:
    """P, and what behavioral consistency is measured by."""

    tasks: tuple[str, ...] = setting(
        "Whose answers, beside the catalogue's text, a film's semantic embedding averages."
    )
    asked_about: Literal["all", "split"] = setting(
        "About which films: all, or those of the split; the others have their catalogue's text alone."
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

    shows: Literal["title", "text"] = setting(
        "What it is told of an item: its title, its title and text, or in a chat its text alone; of a user, it is told "
        "titles."
    )
    sampling: SamplingSettings
    batch_size: int = setting("Prompts at a time.", at_least=1)
    max_tries: int = setting("So often each is asked at most.", at_least=1)


@settings
class ElmExampleSettings:
    """Training examples."""

    per_movie_task: int = setting("Of each task about films.", at_least=1)
    profiles: int = setting("Of the user profile.", at_least=1)
    num_neighbors: int = setting('k of "nearest".', at_least=1)
    from_space: bool = setting(
        "What the teacher said for the spaces, of films and users of training, are the examples of these tasks, and "
        "what it says of the nearest film: it is asked once. per_movie_task and profiles count for other tasks only.",
        default=False,
        later=True,
    )


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
    tags: tuple[str, ...] = setting(
        "Values along whose vectors films and users are moved.", distinct=True, may_be_empty=True
    )
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
    training_rows: int = setting(
        "So many examples of each single-movie task that the ELM learned from are asked of it too, and the report says "
        "between what its consistency lies; 0: none.",
        default=0,
        at_least=0,
        later=True,
    )


@settings
class ElmExperiment:
    """Everything; a config file gives every field a value."""

    title: str = setting("Of the report.")
    seed: int = setting("Of everything that has no seed of its own.", at_least=0)
    elm_seeds: tuple[int, ...] = setting(
        "An ELM is trained for each and answers once; so does who is told titles.", at_least=0, distinct=True
    )
    book: Literal["compact", "detailed", "chat"] = setting(
        "The tasks' wordings: those that MiniLens-LM knows, of instructions, or in plain chat with examples, which the "
        "smallest instruction-tuned models follow."
    )
    tasks: tuple[str, ...] = setting("What the ELM learns to do, one that describes a user among it.", distinct=True)
    catalogue: CatalogueSettings
    split: SplitSettings
    wals: WALSSettings
    models: ElmModelSettings
    remote: dict[str, RemoteSettings] = setting("Models that are named remote/<name>.")
    space: ElmSpaceSettings
    teacher: TeacherSettings
    examples: ElmExampleSettings
    elm: ElmStageSettings
    evaluation: ElmEvaluationSettings

    def __post_init__(self):
        for name in self.tasks:
            find_task(name).wording(self.book)
        if [name for name in self.tasks if name in PROFILES] != [self.profile_task]:
            raise UserError(f"tasks: expected one of {', '.join(PROFILES)} among them, got {', '.join(self.tasks)}")
        asked = {"space.tasks": self.space.tasks, "evaluation.curves.task": (self.evaluation.curves.task,)}
        for where, names in asked.items():
            if others := [name for name in names if name not in self.tasks]:
                raise UserError(f"{where}: {others[0]!r} is none of the experiment's tasks, {', '.join(self.tasks)}")
        if self.models.teacher == GRAMMAR and (self.catalogue.source, self.book) != ("minilens", "compact"):
            raise UserError(
                f"models.teacher: {GRAMMAR} answers the compact book about MiniLens' films, got the book "
                f"{self.book!r} and the source {self.catalogue.source!r}: name a language model"
            )
        for role in ("reader", "features"):
            if getattr(self.models, role).startswith(REMOTE):
                raise UserError(f"models.{role}: its weights are needed here, so not a remote one")
        self.remote_models()  # raises where one is not in the table

    @property
    def profile_task(self) -> str:
        """The task that describes a user."""
        return next((name for name in self.tasks if name in PROFILES), PROFILES[0])

    def remote_models(self) -> dict[str, RemoteSettings]:
        """The endpoint of a teacher `remote/<name>`."""
        return remote_models([self.models.teacher], self.remote)
