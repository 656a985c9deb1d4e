"""All settings of RLAIF: the supervised ELM that it starts from, and what follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.elm.rlaif.state import RlaifSettings
from eagle_jax.elm.settings import PROFILES, SINGLE_MOVIE, ElmExperiment
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.reports.statistics import BootstrapSettings

START = "start"  # the supervised ELM, beside the names of trainings
SC, BC = "sc", "bc/ndcg"


@settings
class RlaifEvaluationSettings:
    """What is asked of the start and of what was trained."""

    num_entities: int = setting("Held-out films (users where profiles are written), each asked every task.", at_least=2)
    other_temperatures: tuple[float, ...] = setting(
        "At which all are asked once more, beside that of training.", at_least=0, may_be_empty=True, distinct=True
    )
    bootstrap: BootstrapSettings
    samples_per_task: int = setting("Texts before and after that the report shows.", at_least=0)


@settings
class RlaifExperiment:
    """Everything; a config file gives every field a value."""

    title: str = setting("Of the report.")
    start: ElmExperiment = setting("The supervised run, of whose trained ELMs the first one is the start of all.")
    reward: Literal["sc", "bc/ndcg"] = setting("SC of a film's text, or BC of a user's profile.")
    tasks: tuple[str, ...] = setting("Asked equally often.", distinct=True)
    malformed_reward: float = setting("Of what could not be read or was cut short.")
    trainings: Mapping[str, RlaifSettings] = setting("Each is made once for each of seeds.")
    seeds: tuple[int, ...] = setting("Of the trainings.", at_least=0, distinct=True)
    evaluation: RlaifEvaluationSettings

    def __post_init__(self):
        allowed = SINGLE_MOVIE if self.reward == SC else PROFILES
        if unknown := [name for name in self.tasks if name not in allowed]:
            raise UserError(
                f"tasks: {unknown[0]!r} has no reward {self.reward!r}; those that have are {', '.join(allowed)}"
            )
        if not self.trainings or START in self.trainings:
            raise UserError(f"trainings: at least one, none called {START!r}")
        if len({settings.sampling for settings in self.trainings.values()}) > 1:
            raise UserError("trainings: their sampling must be the same, for one start to fit all")

    @property
    def sampling(self) -> SamplingSettings:
        """That of all trainings."""
        return next(iter(self.trainings.values())).sampling
