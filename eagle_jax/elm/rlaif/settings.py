"""All settings of RLAIF on MiniLens: the supervised ELM that it starts from, and what follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from eagle_jax.base.errors import UserError
from eagle_jax.elm.rlaif.state import RlaifSettings
from eagle_jax.elm.settings import PROFILE, SINGLE_MOVIE, ElmExperiment
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.reports.statistics import BootstrapSettings

START = "start"  # the supervised ELM, beside the names of trainings
SC, BC = "sc", "bc/ndcg"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RlaifEvaluationSettings:
    """num_entities: held-out films (users where profiles are written), each asked every task.

    other_temperatures: at which all are asked once more, beside that of training.
    samples_per_task: texts before and after that the report shows.
    """

    num_entities: int
    other_temperatures: tuple[float, ...]
    bootstrap: BootstrapSettings
    samples_per_task: int

    def __post_init__(self):
        if self.num_entities < 2:
            raise UserError(f"evaluation.num_entities must be at least 2, got {self.num_entities}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RlaifExperiment:
    """Everything; a config file gives every field a value.

    start: the supervised run, of whose trained ELMs the first one is the start of all.
    reward: SC of a film's text, or BC (NDCG) of a user's profile. tasks: asked equally often.
    malformed_reward: of what could not be read or was cut short.
    trainings: name -> settings; each is made once for each of `seeds`.
    """

    title: str
    start: ElmExperiment
    reward: Literal["sc", "bc/ndcg"]
    tasks: tuple[str, ...]
    malformed_reward: float
    trainings: Mapping[str, RlaifSettings]
    seeds: tuple[int, ...]
    evaluation: RlaifEvaluationSettings

    def __post_init__(self):
        allowed = SINGLE_MOVIE if self.reward == SC else (PROFILE,)
        if unknown := [name for name in self.tasks if name not in allowed]:
            raise UserError(
                f"tasks: {unknown[0]!r} has no reward {self.reward!r}; those that have are "
                f"{', '.join(allowed)}"
            )
        for name in ("tasks", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise UserError(f"{name}: at least one, none twice, got {values}")
        if not self.trainings or START in self.trainings:
            raise UserError(f"trainings: at least one, none called {START!r}")
        if len({settings.sampling for settings in self.trainings.values()}) > 1:
            raise UserError("trainings: their sampling must be the same, for one start to fit all")

    @property
    def sampling(self) -> SamplingSettings:
        """That of all trainings."""
        return next(iter(self.trainings.values())).sampling
