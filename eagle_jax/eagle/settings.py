"""All settings of an EAGLE experiment, in the order of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from eagle_jax.base.settings import setting, settings
from eagle_jax.data.sources import CatalogueSettings
from eagle_jax.data.splits import SplitSettings
from eagle_jax.design.reference_distribution import KINDS, ReferenceDistributionSettings
from eagle_jax.eagle.agent.state import EagleSettings
from eagle_jax.eagle.ceiling.settings import CeilingSettings
from eagle_jax.eagle.dpo.update import PreferenceAgentSettings
from eagle_jax.eagle.elm_baseline.settings import ElmBaselineSettings
from eagle_jax.eagle.expert.settings import ExpertSettings
from eagle_jax.eagle.planner.settings import PlannerSettings
from eagle_jax.eagle.quality.quality import QualitySettings
from eagle_jax.eagle.roles.data_profiles import DataProfileSettings
from eagle_jax.eagle.roles.listed_actions import ListedActionSettings
from eagle_jax.eagle.roles.profile_groups import ProfileGroupSettings
from eagle_jax.eagle.roles.rewrite_formats import RewriteSettings
from eagle_jax.embeddings.regression_head import DomainEncoderSettings
from eagle_jax.embeddings.utility import UtilitySettings
from eagle_jax.embeddings.wals import WALSSettings
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.remote.settings import RemoteSettings
from eagle_jax.language_model.sharding import MeshSettings
from eagle_jax.reports.statistics import BootstrapSettings
from eagle_jax.stages.models import REMOTE, remote_models
from eagle_jax.stages.policy_models import PolicyModel, PolicyTrainingSettings
from eagle_jax.stages.supervised import ReferenceStageSettings


@settings
class ModelSettings:
    """Which model plays each role: `minilens/<name>` or a folder in Hugging Face layout."""

    policy: str = setting("What is trained.")
    environment: str = setting("Who applies actions; may be remote/<name>.")
    generator: str = setting("Who writes profiles and candidates; may be remote/<name>.")
    rater: str = setting("Who answers the rater's form; may be remote/<name>.")
    features: str = setting("Whose states texts are embedded by; may be a sentence encoder.")
    held_out_features: str = setting("Those of the held-out scores; may be a sentence encoder.")
    fields: bool = setting(
        "Genres and year, read from the texts, beside both encoders' features of the plots.", default=False
    )
    dtype: Literal["float32", "bfloat16"] = setting(
        "Of their parameters and activations; the policy's is that of policy_training."
    )
    batch_size: int = setting("Texts of a forward pass.", at_least=1)
    length_multiple: int = setting("Texts are padded to it.", at_least=1, unit="tokens")


@settings
class UserSpaceSettings:
    """What of the ratings is in the embeddings that the utility is computed from."""

    item_bias: bool = setting("Items' biases are a coordinate, so that what everybody likes counts; else taste alone.")
    users: Literal["ratings", "texts"] = setting(
        "As WALS has them, or fitted again to what the encoder says of the texts that they rated."
    )
    halves: bool = setting(
        "Two more encoders, of disjoint halves of the films, tell how far U can be trusted.", default=False
    )
    independent: bool = setting(
        "Half of the films and all their ratings are kept from the run, for an encoder that only judges.", default=False
    )


AS_BEFORE = UserSpaceSettings(item_bias=False, users="ratings")  # there were these settings


@settings
class ProfileSettings:
    """How users' profiles are written."""

    titles_per_side: int = setting("Titles liked and disliked that the writer sees.", at_least=1)
    max_tries: int = setting("So often a malformed profile is asked for at most.", at_least=1)
    sampling: SamplingSettings


@settings
class CandidateSettings:
    """How many candidates an entity gets."""

    num_generic: int = setting("Asked for without a user.", at_least=0)
    num_personalised: int = setting("Asked for with a user's profile.", at_least=0)
    max_tries: int = setting("So often a malformed one is asked for at most.", at_least=1)


@settings
class CandidateStageSettings:
    """Entities that get candidate actions."""

    num_entities: int = setting("Anchors of training.", at_least=1)
    candidates: CandidateSettings
    sampling: SamplingSettings
    entities_per_chunk: int = setting("Lost at most by an interruption.", at_least=1)


@settings
class DesignStageSettings:
    """Reference distributions over the candidates."""

    kinds: tuple[str, ...] = setting("A reference policy of each.", distinct=True)
    num_kept: int = setting("k, the candidates that each keeps per entity.", at_least=1)
    distribution: ReferenceDistributionSettings


@settings
class AgentStageSettings:
    """One agent for each kind of reference policy and each seed."""

    seeds: tuple[int, ...] = setting("Of the agents.", at_least=0, distinct=True)
    num_validation_starts: int = setting("Episodes of a validation.", at_least=1)
    training: EagleSettings


@settings
class EvaluationSettings:
    """Held-out episodes."""

    num_starts: int = setting("Pairs of an anchor and a user.", at_least=2)
    seeds: tuple[int, ...] = setting("Of the episodes.", at_least=0, distinct=True)
    best_of_n: tuple[Literal["test_calls", "all_calls"], ...] = setting(
        "Budgets of best-of-N with the reference policy: as many environment calls as one episode, "
        "or the agent's training calls as well; then with the agents, too, and with greedy search.",
        may_be_empty=True,
        distinct=True,
    )
    best_of_n_sampling: SamplingSettings | None = setting(
        "Of the actions of best-of-N and greedy search, whoever acts: to choose among many, variety helps; None: as "
        "the policy samples.",
        default=None,
    )
    search_actions: int = setting(
        "Actions a step of greedy search with each policy, as of `eagle-jax propose --actions`; 0: no such rows.",
        default=0,
        at_least=0,
        later=True,
    )
    transfer_environment: str | None = setting(
        "Another environment for the same policies (minilens/<name>, a folder or remote/<name>); None: no such rows."
    )
    extra_kinds: tuple[str, ...] = setting(
        "The kinds of reference policy that get best-of-N and transfer rows.", may_be_empty=True, distinct=True
    )
    num_reachable: int = setting("Starts for which the best reachable utility is searched, 0: none.", at_least=0)
    beam_width: int = setting("Texts that the search goes on from.", at_least=1)
    rater: SamplingSettings | None = setting(
        "How the rater answers its form about every new text; None: no rater columns."
    )
    bootstrap: BootstrapSettings
    resampled: Literal["pairs", "anchors_and_users"] = setting(
        "By intervals: pairs of an anchor and a user, or anchors, users and seeds at once, which is wider.",
        default="pairs",
    )
    num_told_episodes: int = setting("Episodes that the report tells.", at_least=0)

    def __post_init__(self):
        # An interval needs two values; said here, it is not said after an hour of episodes.
        if self.num_reachable == 1:
            raise ValueError("num_reachable must be 0 or at least 2, got 1")
        if self.search_actions == 1:
            raise ValueError("search_actions must be 0 or at least 2, got 1: a search of one action is an episode")


class Leaving(NamedTuple):
    """What a remote model is sent in its role; no ids are."""

    role: str
    model: str
    of_items: Sequence[str]
    of_users: Sequence[str]


@settings
class EagleExperiment:
    """Everything; a config file gives every field a value."""

    title: str = setting("Of the report.")
    seed: int = setting("Of everything that has no seed of its own.", at_least=0)
    prompts: Literal["compact", "detailed"] = setting("The book of prompts.")
    catalogue: CatalogueSettings
    split: SplitSettings
    models: ModelSettings
    mesh: MeshSettings = setting("Where all decoders lie, and the tables of WALS.")
    environment_mesh: MeshSettings | None = setting("Where environments lie, if not in mesh.")
    remote: dict[str, RemoteSettings] = setting("Models that are named remote/<name>.")
    user_data_stays: bool = setting(
        "Nothing that is known of a user is sent to a remote model: a config in which it would be is refused.",
        default=False,
    )
    wals: WALSSettings
    user_space: UserSpaceSettings = setting("What of the ratings U knows.", default=AS_BEFORE)
    domain_encoder: DomainEncoderSettings = setting("From texts' features to WALS embeddings.")
    held_out_domain_encoder: DomainEncoderSettings = setting("The one of the held-out scores.")
    utility: UtilitySettings
    quality: QualitySettings | None = setting(
        "What of a text's reward is not U; None: the reward is U, however the text reads.", default=None
    )
    environment: SamplingSettings = setting("Of the environments' texts.")
    rewriting: RewriteSettings | None = setting(
        "How the environments are asked; None: in marked blocks, once.", default=None
    )
    profiles: ProfileSettings
    data_profiles: DataProfileSettings | None = setting(
        "Profiles from the ratings, without a model; None: the generator writes them.", default=None
    )
    profile_groups: ProfileGroupSettings | None = setting(
        "Profiles are of groups of users, and nothing that only one of them has rated is in them; None: of each user.",
        default=None,
        later=True,
    )
    ceiling: CeilingSettings | None = setting(
        "What the best of fixed instructions gains, before anything is trained; None: not asked.", default=None
    )
    candidates: CandidateStageSettings
    listed_actions: ListedActionSettings | None = setting(
        "Candidates from a list, beside those of the generator; None: no such candidates.", default=None
    )
    design: DesignStageSettings
    policy_training: PolicyTrainingSettings
    reference: ReferenceStageSettings
    expert: ExpertSettings | None = setting(
        "Agents first imitate the best of many actions in the same state; None: they begin as the reference policy.",
        default=None,
    )
    agent: AgentStageSettings
    planner: PlannerSettings | None = setting(
        "Agents beside these, of the same seeds, that learn what actions do in the embedding space; None: none.",
        default=None,
        later=True,
    )
    preference_agent: PreferenceAgentSettings | None = setting(
        "DPO agents beside the REINFORCE ones, of the same kinds, seeds and environment calls; None: no such agents."
    )
    elm_baseline: ElmBaselineSettings | None = setting(
        "ELM decoders, asked for the best point near an anchor; None: no such row."
    )
    evaluation: EvaluationSettings

    def __post_init__(self):
        if self.preference_agent is not None:
            self.preference_agent.num_rounds(self.agent.training)  # raises where calls differ
        of_design, extra = self.design.kinds, self.evaluation.extra_kinds
        for name, kinds, allowed in (("design.kinds", of_design, KINDS), ("evaluation.extra_kinds", extra, of_design)):
            for kind in kinds:
                if kind not in allowed:
                    raise ValueError(f"{name}: {kind!r} is none of {', '.join(allowed)}")
        for role in ("policy", "features", "held_out_features"):
            if getattr(self.models, role).startswith(REMOTE):
                raise ValueError(f"models.{role}: its weights are needed here, so not a remote one")
        if self.quality is not None and (self.quality.model or "").startswith(REMOTE):
            raise ValueError("quality.model: its log-probs are needed here, so not a remote one")
        self.remote_models()  # raises where one is not in the table
        if self.user_data_stays and (told := [one for one in self.leaving() if one.of_users]):
            leaving = "; ".join(f"{one.model} ({one.role}) would be sent {', '.join(one.of_users)}" for one in told)
            raise ValueError(
                f"user_data_stays is True, and {leaving}. Give the role a model that runs here, or leave out what "
                "sends it: data_profiles writes profiles without a model, candidates.candidates.num_personalised = 0 "
                "and evaluation.rater = None send none"
            )

    @property
    def policy_model(self) -> PolicyModel:
        """What its policies start from, and how they are trained."""
        return PolicyModel(self.models.policy, self.mesh, self.policy_training)

    def remote_models(self) -> dict[str, RemoteSettings]:
        """The endpoints of the names `remote/<name>` that play a role."""
        names = [
            self.models.environment,
            self.models.generator,
            self.models.rater if self.evaluation.rater is not None else None,
            self.evaluation.transfer_environment,
        ]
        return remote_models(names, self.remote)

    def leaving(self) -> list[Leaving]:
        """What the remote models of each role are sent, which the terminal tells at the start."""
        models, asked = self.models, self.candidates.candidates
        who, whose = "users", "users' profiles"
        if self.profile_groups is not None:
            who = f"groups of {self.profile_groups.min_users} users or more"
            whose = f"profiles of {who}"
        titles = [] if self.data_profiles is not None else [f"titles that {who} rated high and low"]
        personal = [whose] if asked.num_personalised else []
        rewritten = "texts to rewrite", "instructions of a policy that reads profiles"
        roles = [
            Leaving("generator", models.generator, ("items' texts",), (*titles, *personal)),
            Leaving("environment", models.environment, rewritten, ()),
        ]
        if self.evaluation.transfer_environment is not None:
            transfer = self.evaluation.transfer_environment
            roles.append(Leaving("transfer environment", transfer, rewritten, ()))
        if self.evaluation.rater is not None:
            roles.append(Leaving("rater", models.rater, ("items' texts and new ones",), (whose,)))
        return [one for one in roles if one.model.startswith(REMOTE)]
