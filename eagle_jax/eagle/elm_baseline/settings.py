"""Settings of ELM as EAGLE's baseline: a decoder of the domain space, and where it is asked."""

from __future__ import annotations

import dataclasses
from typing import Literal

from eagle_jax.base.errors import UserError
from eagle_jax.elm.model.training import ElmTrainingSettings
from eagle_jax.embeddings.utility_search import UtilitySearchSettings
from eagle_jax.language_model.generation import SamplingSettings

Metric = Literal["euclidean", "pull_back"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmDecoderSettings:
    """reader: the model that becomes the ELM, a name as of the other models. batch_size: films of
    an optimiser step. sampling: of all texts that are decoded."""

    reader: str
    adapter_hidden_width: int
    batch_size: int
    training: ElmTrainingSettings
    sampling: SamplingSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmSearchSettings:
    """Balls around the num_centers training films nearest to an anchor.

    num_pairs: validation pairs on which metric and radius are chosen.
    radii: to choose from, in median distances of a film to its nearest one.
    ridge: of the pull-back metric, see `normalised_metric`.
    """

    num_pairs: int
    num_centers: int
    radii: tuple[float, ...]
    metrics: tuple[Metric, ...]
    ridge: float
    ascent: UtilitySearchSettings

    def __post_init__(self):
        if self.num_pairs < 2 or self.num_centers < 1:
            raise UserError(
                f"num_pairs must be at least 2 (got {self.num_pairs}) and num_centers at least 1 "
                f"(got {self.num_centers})"
            )
        if not self.radii or min(self.radii) < 0 or not self.metrics:
            raise UserError(
                f"expected radii of at least 0 and a metric, got {self.radii} and {self.metrics}"
            )
        if "pull_back" in self.metrics and self.ridge <= 0:
            raise UserError(f"ridge must be positive, or a ball may be endless; got {self.ridge}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElmBaselineSettings:
    """A decoder for each seed; metric and radius are chosen once for all of them."""

    seeds: tuple[int, ...]
    decoder: ElmDecoderSettings
    search: ElmSearchSettings

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds: at least one, none twice, got {self.seeds}")
