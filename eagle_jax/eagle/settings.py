"""All settings of an EAGLE experiment, in the order of its stages."""

from __future__ import annotations

import dataclasses
from typing import Literal

from eagle_jax.data.sources import CatalogueSettings
from eagle_jax.data.splits import SplitSettings
from eagle_jax.design.reference_distribution import KINDS, ReferenceDistributionSettings
from eagle_jax.eagle.agent.state import EagleSettings
from eagle_jax.eagle.candidates import CandidateSettings
from eagle_jax.eagle.dpo.update import PreferenceAgentSettings
from eagle_jax.eagle.elm_baseline.settings import ElmBaselineSettings
from eagle_jax.embeddings.regression_head import DomainEncoderSettings
from eagle_jax.embeddings.utility import UtilitySettings
from eagle_jax.embeddings.wals import WALSSettings
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.remote.settings import RemoteSettings
from eagle_jax.language_model.sharding import MeshSettings
from eagle_jax.reports.statistics import BootstrapSettings
from eagle_jax.stages.models import REMOTE, remote_models
from eagle_jax.stages.policy_models import PolicyTrainingSettings
from eagle_jax.stages.supervised import ReferenceStageSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model plays each role: `minilens/<name>` or a folder in Hugging Face layout;
    environment, generator and rater may be `remote/<name>` of the experiment's table `remote`,
    features and held_out_features a folder of sentence-transformers. dtype: of their parameters
    and activations; the policy's is that of `PolicyTrainingSettings`."""

    policy: str
    environment: str
    generator: str
    rater: str
    features: str
    held_out_features: str
    dtype: Literal["float32", "bfloat16"]
    batch_size: int
    length_multiple: int




@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileSettings:
    """What the profile writer sees and how often a malformed profile is asked for again."""

    titles_per_side: int
    max_tries: int
    sampling: SamplingSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class CandidateStageSettings:
    """Entities that get candidate actions."""

    num_entities: int
    candidates: CandidateSettings
    sampling: SamplingSettings
    entities_per_chunk: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DesignStageSettings:
    """Kinds of reference distribution, and k, the candidates that each keeps per entity."""

    kinds: tuple[str, ...]
    num_kept: int
    distribution: ReferenceDistributionSettings






@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentStageSettings:
    """One agent for each kind of reference policy and each seed."""

    seeds: tuple[int, ...]
    num_validation_starts: int
    training: EagleSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Held-out episodes.

    best_of_n: budgets of best-of-N with the reference policy: `test_calls` (as many environment
        calls as one episode), `all_calls` (the agent's training calls as well).
    transfer_environment: another environment for the same policies (`minilens/<name>`, a folder
        or `remote/<name>`); None: no such rows.
    extra_kinds: the kinds of reference policy that get best-of-N and transfer rows, and whose
        agents are compared with those of the other kinds; episodes of the first one are told.
    num_reachable: starts for which the best reachable utility is searched, 0: none.
    rater: how the rater model answers its form about every new text; None: no rater columns.
    """

    num_starts: int
    seeds: tuple[int, ...]
    best_of_n: tuple[Literal["test_calls", "all_calls"], ...]
    transfer_environment: str | None
    extra_kinds: tuple[str, ...]
    num_reachable: int
    beam_width: int
    rater: SamplingSettings | None
    bootstrap: BootstrapSettings
    num_told_episodes: int

    def __post_init__(self):
        # An interval needs two values; said here, it is not said after an hour of episodes.
        if self.num_starts < 2 or self.num_reachable == 1:
            raise ValueError(
                f"num_starts must be at least 2 (got {self.num_starts}), "
                f"num_reachable 0 or at least 2 (got {self.num_reachable})"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EagleExperiment:
    """Everything; a config file gives every field a value.

    mesh: where all decoders lie, but environments where environment_mesh says, if it says.
    preference_agent: DPO agents beside the REINFORCE ones, of the same kinds, seeds and environment
        calls; None: no such agents.
    elm_baseline: ELM decoders, asked for the best point near an anchor; None: no such row.
    """

    title: str
    seed: int
    prompts: Literal["compact", "detailed"]
    catalogue: CatalogueSettings
    split: SplitSettings
    models: ModelSettings
    mesh: MeshSettings
    environment_mesh: MeshSettings | None
    remote: dict[str, RemoteSettings]
    wals: WALSSettings
    domain_encoder: DomainEncoderSettings
    held_out_domain_encoder: DomainEncoderSettings
    utility: UtilitySettings
    environment: SamplingSettings
    profiles: ProfileSettings
    candidates: CandidateStageSettings
    design: DesignStageSettings
    policy_training: PolicyTrainingSettings
    reference: ReferenceStageSettings
    agent: AgentStageSettings
    preference_agent: PreferenceAgentSettings | None
    elm_baseline: ElmBaselineSettings | None
    evaluation: EvaluationSettings

    def __post_init__(self):
        if self.preference_agent is not None:
            self.preference_agent.num_rounds(self.agent.training)  # raises where calls differ
        of_design, extra = self.design.kinds, self.evaluation.extra_kinds
        for name, kinds, allowed in (
            ("design.kinds", of_design, KINDS),
            ("evaluation.extra_kinds", extra, of_design),
        ):
            for kind in kinds:
                if kind not in allowed:
                    raise ValueError(f"{name}: {kind!r} is none of {', '.join(allowed)}")
        for role in ("policy", "features", "held_out_features"):
            if getattr(self.models, role).startswith(REMOTE):
                raise ValueError(f"models.{role}: its weights are needed here, so not a remote one")
        self.remote_models()  # raises where one is not in the table

    def remote_models(self) -> dict[str, RemoteSettings]:
        """The endpoints of the names `remote/<name>` that play a role."""
        names = [
            self.models.environment,
            self.models.generator,
            self.models.rater if self.evaluation.rater is not None else None,
            self.evaluation.transfer_environment,
        ]
        return remote_models(names, self.remote)
