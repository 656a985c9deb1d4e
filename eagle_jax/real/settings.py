"""All settings of a REAL experiment (arXiv 2409.17169), in the order of its stages."""

from __future__ import annotations

from typing import Literal

from eagle_jax.base.settings import setting, settings
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.remote.settings import RemoteSettings
from eagle_jax.language_model.sharding import MeshSettings
from eagle_jax.real.labels import ANNOTATORS, LabelSettings
from eagle_jax.real.selection.pair_selection import GAP_STRATEGIES, Strategy
from eagle_jax.real.training.step import PreferenceSettings
from eagle_jax.stages.models import remote_models
from eagle_jax.stages.policy_models import PolicyModel, PolicyTrainingSettings
from eagle_jax.stages.supervised import ReferenceStageSettings

POLICY = "policy"  # names the supervised start as a generator or as an encoder
GRAMMAR_RATER = "minilens/teacher"  # names the grammar of MiniLens as a rater


@settings
class MiniLensRequests:
    """Users who are drawn afresh and ask for a film; the supervised start sees others."""

    num_train: int = setting("Users whose pairs of responses are labelled.", at_least=1)
    num_test: int = setting("Held-out users.", at_least=2)
    num_supervised: int = setting("Films that the supervised start sees.", at_least=0)
    num_films: int = setting("Of which the users of these chose one each.", at_least=1)
    film_strength: float = setting("In proportion to exp(film_strength * affinity).", at_least=0)
    dialect: Literal["a", "b"] = setting("Of the two ways in which the grammar tells a film.")


@settings
class PreferenceFiles:
    """Files of one format; a share of all prompts is held out."""

    paths: tuple[str, ...] = setting("The files.", distinct=True)
    file_format: str = setting("One of `FIELDS` in data/preferences/files.py.")
    test_fraction: float = setting("Of the prompts, held out.", above=0, below=1)
    max_prompts: int | None = setting("So many drawn from all; None: all.", at_least=1)


@settings
class RealModels:
    """Models, and the shapes of their batches."""

    policy: str = setting("minilens/<role> or a folder.")
    dtype: Literal["float32", "bfloat16"] = setting("Of the models that are not trained.")
    batch_size: int = setting("Texts of a forward pass.", at_least=1)
    length_multiple: int = setting("Texts are padded to it.", at_least=1, unit="tokens")


@settings
class GenerationSettings:
    """Who writes K responses to each prompt."""

    generator: str = setting("policy (the supervised start), a folder, or remote/<name>.")
    num_train_responses: int = setting("K of a prompt of training.", at_least=2)
    num_test_responses: int = setting("K of a held-out prompt.", at_least=2)
    sampling: SamplingSettings
    prompts_per_chunk: int = setting("Lost at most by an interruption.", at_least=1)


@settings
class EmbeddingSettings:
    """What a response is to the selection."""

    model: str = setting(
        "policy (states of the supervised start), a folder of a decoder, or one of a sentence encoder."
    )
    pooling: Literal["mean", "last", "cls", "own"] = setting("own: as the encoder was made to.")
    with_prompt: bool = setting("The prompt is read before the response.")
    metric: Literal["cosine", "euclidean"] = setting("Of the distance between responses.")


@settings
class SelectionSettings:
    """Which pairs are labelled."""

    scope: Literal["within", "across"] = setting(
        "One of the pairs of every prompt, or which prompts, each with one pair."
    )
    strategies: tuple[Strategy, ...] = setting("Random is one of them.", distinct=True)
    embedding: str = setting("The one that selects; the others are told in the report.")
    num_warmup_labels: int = setting(
        "Of random pairs, from which implicit rewards are learned for the strategies that need "
        "them; they count as labels of these.",
        at_least=0,
    )

    def __post_init__(self):
        if "random" not in self.strategies:
            raise ValueError("strategies: random is missing, which the others are compared with")
        if self.scope == "across" and "centroid" in self.strategies:
            raise ValueError("strategies: centroid selects within a prompt, scope is across")

    @property
    def needs_warmup(self) -> bool:
        return any(name in GAP_STRATEGIES for name in self.strategies)


@settings
class RaterSettings:
    """Who compares texts."""

    model: str = setting("minilens/teacher, minilens/<role>, a folder, or remote/<name>.")
    sampling: SamplingSettings


@settings
class RealEvaluation:
    """What is measured on held-out prompts."""

    sampling: SamplingSettings = setting("Of one response of every trained policy to every held-out prompt.")
    num_stability_prompts: int = setting("Prompts whose pairs of responses are followed over training.", at_least=1)
    num_told_prompts: int = setting("Prompts whose responses the report tells.", at_least=0)
    confidence: float = setting("Of the intervals, e.g. 0.95.", above=0, below=1)


@settings
class RealExperiment:
    """Everything; a config file gives every field a value."""

    title: str = setting("Of the report.")
    seed: int = setting("Of everything that has no seed of its own.", at_least=0)
    prompts: Literal["compact", "detailed"] = setting("The book of prompts.")
    source: Literal["minilens", "files"] = setting("Which one; the other may be None.")
    minilens: MiniLensRequests | None
    files: PreferenceFiles | None
    models: RealModels
    mesh: MeshSettings = setting("Where all decoders lie.")
    remote: dict[str, RemoteSettings] = setting("Models that are named remote/<name>.")
    policy_training: PolicyTrainingSettings
    supervised: ReferenceStageSettings | None = setting(
        "Next-token prediction before anything else; None: the policy's model as it is."
    )
    generation: GenerationSettings | None = setting("Who writes the responses; None: they are those of the files.")
    embeddings: dict[str, EmbeddingSettings] = setting("What a response is to the selection.")
    selection: SelectionSettings
    labels: LabelSettings
    training: PreferenceSettings = setting("Of each policy.")
    num_labels: tuple[int, ...] = setting(
        "With so many labels, every seed and strategy; increasing.", at_least=1, distinct=True
    )
    seeds: tuple[int, ...] = setting("Of the trainings.", at_least=0, distinct=True)
    rater: RaterSettings | None = setting("Of labels, if they are its, and of the win rates; None: no such rates.")
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
                f"selection.embedding {self.selection.embedding!r} is none of {', '.join(self.embeddings)}"
            )
        if list(self.num_labels) != sorted(self.num_labels):
            raise ValueError(f"num_labels must increase, got {self.num_labels}")
        if self.selection.needs_warmup and (not 0 < self.selection.num_warmup_labels < self.num_labels[0]):
            raise ValueError(
                f"selection.num_warmup_labels must be in (0, {self.num_labels[0]}), the smallest "
                f"of num_labels, got {self.selection.num_warmup_labels}"
            )
        self.remote_models()  # raises where one is not in the table

    @property
    def policy_model(self) -> PolicyModel:
        """What its policies start from, and how they are trained."""
        return PolicyModel(self.models.policy, self.mesh, self.policy_training)

    def remote_models(self) -> dict[str, RemoteSettings]:
        """The endpoints of the names `remote/<name>` that play a role."""
        names = [
            None if self.generation is None else self.generation.generator,
            None if self.rater is None else self.rater.model,
        ]
        return remote_models(names, self.remote)
