"""Settings of ELM as EAGLE's baseline: a decoder of the domain space, and where it is asked."""

from __future__ import annotations

from typing import Literal

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings
from eagle_jax.elm.model.training import ElmTrainingSettings
from eagle_jax.embeddings.utility_search import UtilitySearchSettings
from eagle_jax.language_model.generation import SamplingSettings

Metric = Literal["euclidean", "pull_back"]


@settings
class ElmDecoderSettings:
    """The ELM that tells the points that are found."""

    reader: str = setting("The model that becomes the ELM, a name as of the other models.")
    adapter_hidden_width: int = setting("Between the adapter's two layers.", at_least=1)
    batch_size: int = setting("Films of an optimiser step.", at_least=1)
    training: ElmTrainingSettings
    sampling: SamplingSettings = setting("Of all texts that are decoded.")


@settings
class ElmSearchSettings:
    """Balls around the training films nearest to an anchor."""

    num_pairs: int = setting("Validation pairs on which metric and radius are chosen.", at_least=2)
    num_centers: int = setting("Training films with a ball.", at_least=1)
    radii: tuple[float, ...] = setting(
        "To choose from, in median distances of a film to its nearest one.", at_least=0, distinct=True
    )
    metrics: tuple[Metric, ...] = setting("To choose from.", distinct=True)
    ridge: float = setting("Of the pull-back metric, see `normalised_metric`.", at_least=0)
    ascent: UtilitySearchSettings

    def __post_init__(self):
        if "pull_back" in self.metrics and self.ridge == 0:
            raise UserError(f"ridge must be positive, or a ball may be endless; got {self.ridge}")


@settings
class ElmBaselineSettings:
    """A decoder for each seed; metric and radius are chosen once for all of them."""

    seeds: tuple[int, ...] = setting("Of the decoders.", at_least=0, distinct=True)
    decoder: ElmDecoderSettings
    search: ElmSearchSettings
