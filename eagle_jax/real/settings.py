"""All settings of a REAL experiment (arXiv 2409.17169), in the order of its stages."""

from __future__ import annotations

import dataclasses
from typing import Literal

from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.remote.settings import RemoteSettings
from eagle_jax.language_model.sharding import MeshSettings
from eagle_jax.real.labels import ANNOTATORS, LabelSettings
from eagle_jax.real.selection.pair_selection import GAP_STRATEGIES, METRICS, STRATEGIES
from eagle_jax.real.training.step import PreferenceSettings
from eagle_jax.stages.models import remote_models
from eagle_jax.stages.policy_models import PolicyTrainingSettings
from eagle_jax.stages.supervised import ReferenceStageSettings

POLICY = "policy"  # names the supervised start as a generator or as an encoder
TEACHER = "minilens/teacher"  # names the grammar of MiniLens as a rater


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiniLensRequests:
    """Users who are drawn afresh and ask for a film; the supervised start sees others.

    film_strength: how much the films that it sees are to their user's taste, among num_films.
    """

    num_train: int
    num_test: int
    num_supervised: int
    num_films: int
    film_strength: float
    dialect: Literal["a", "b"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceFiles:
    """Files of one format (`data.preference_files.FIELDS`); a share of all prompts is held out.

    max_prompts: so many prompts drawn from all; None: all.
    """

    paths: tuple[str, ...]
    file_format: str
    test_fraction: float
    max_prompts: int | None

    def __post_init__(self):
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"test_fraction must be in (0, 1), got {self.test_fraction}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealModels:
    """policy: `minilens/<role>` or a folder; what is trained has the dtype of policy_training.
    dtype: of the other models."""

    policy: str
    dtype: Literal["float32", "bfloat16"]
    batch_size: int
    length_multiple: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """Who writes K responses to each prompt: `policy` (the supervised start), a folder, or
    `remote/<name>`."""

    generator: str
    num_train_responses: int
    num_test_responses: int
    sampling: SamplingSettings
    prompts_per_chunk: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """What a response is to the selection: `policy` (states of the supervised start), a folder of
    a decoder, or one of a sentence encoder, which pools as it was made to (pooling `own`)."""

    model: str
    pooling: Literal["mean", "last", "cls", "own"]
    with_prompt: bool
    metric: str

    def __post_init__(self):
        if self.metric not in METRICS:
            raise ValueError(f"metric {self.metric!r} is none of {', '.join(METRICS)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """Which pairs are labelled.

    scope: `within`: one of the pairs of every prompt; `across`: which prompts, each with one pair.
    embedding: the one that selects; the others are told in the report.
    num_warmup_labels: of random pairs, from which implicit rewards are learned for the strategies
        that need them; they count as labels of these strategies.
    """

    scope: Literal["within", "across"]
    strategies: tuple[str, ...]
    embedding: str
    num_warmup_labels: int

    def __post_init__(self):
        for name in self.strategies:
            if name not in STRATEGIES:
                raise ValueError(f"strategies: {name!r} is none of {', '.join(STRATEGIES)}")
        if "random" not in self.strategies:
            raise ValueError("strategies: random is missing, which the others are compared with")
        if self.scope == "across" and "centroid" in self.strategies:
            raise ValueError("strategies: centroid selects within a prompt, scope is across")

    @property
    def needs_warmup(self) -> bool:
        return any(name in GAP_STRATEGIES for name in self.strategies)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RaterSettings:
    """Who compares texts: `minilens/teacher`, `minilens/<role>`, a folder, or `remote/<name>`."""

    model: str
    sampling: SamplingSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealEvaluation:
    """sampling: of one response of every trained policy to every held-out prompt.

    num_stability_prompts: held-out prompts whose pairs of responses are followed over training.
    num_told_prompts: prompts whose responses are told in the report.
    """

    sampling: SamplingSettings
    num_stability_prompts: int
    num_told_prompts: int
    confidence: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealExperiment:
    """Everything; a config file gives every field a value.

    supervised: next-token prediction before anything else; None: the policy's model as it is.
    generation: None: the responses of the files.
    training: of each policy; num_labels: with so many labels, every seed and strategy.
    rater: of labels, if they are its, and of the win rates; None: no such rates.
    """

    title: str
    seed: int
    prompts: Literal["compact", "detailed"]
    source: Literal["minilens", "files"]
    minilens: MiniLensRequests | None
    files: PreferenceFiles | None
    models: RealModels
    mesh: MeshSettings
    remote: dict[str, RemoteSettings]
    policy_training: PolicyTrainingSettings
    supervised: ReferenceStageSettings | None
    generation: GenerationSettings | None
    embeddings: dict[str, EmbeddingSettings]
    selection: SelectionSettings
    labels: LabelSettings
    training: PreferenceSettings
    num_labels: tuple[int, ...]
    seeds: tuple[int, ...]
    rater: RaterSettings | None
    evaluation: RealEvaluation

    def __post_init__(self):
        if getattr(self, self.source) is None:
            raise ValueError(f"source is {self.source}, but {self.source} is None")
        if self.source == "minilens" and self.generation is None:
            raise ValueError("generation: MiniLens' requests have no responses yet, got None")
        if ANNOTATORS[self.labels.source].asks and self.rater is None:
            raise ValueError(f"labels.source is {self.labels.source}, but rater is None")
        if self.selection.embedding not in self.embeddings:
            raise ValueError(
                f"selection.embedding {self.selection.embedding!r} is none of "
                f"{', '.join(self.embeddings)}"
            )
        if not self.seeds or list(self.num_labels) != sorted(set(self.num_labels)):
            raise ValueError("seeds must not be empty, and num_labels must increase")
        if self.selection.needs_warmup and (
            not 0 < self.selection.num_warmup_labels < self.num_labels[0]
        ):
            raise ValueError(
                f"selection.num_warmup_labels must be in (0, {self.num_labels[0]}), the smallest "
                f"of num_labels, got {self.selection.num_warmup_labels}"
            )
        self.remote_models()  # raises where one is not in the table

    def remote_models(self) -> dict[str, RemoteSettings]:
        """The endpoints of the names `remote/<name>` that play a role."""
        names = [
            None if self.generation is None else self.generation.generator,
            None if self.rater is None else self.rater.model,
        ]
        return remote_models(names, self.remote)
