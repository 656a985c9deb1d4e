"""What language models read and wrote: tokens of each row of each call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from eagle_jax.data.prompts import Prompt
from eagle_jax.language_model.generation import Generation, SamplingSettings, TextGenerator


@dataclasses.dataclass(frozen=True)
class MeteredGenerator:
    """A `TextGenerator` that notes in `calls` how many tokens each row took, for each call: prompt
    and text; None where the model does not tell."""

    inner: TextGenerator
    calls: list[list[int | None]] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        return self.inner.name

    def generate(self, prompts: Sequence[Prompt], sampling: SamplingSettings, seed: int) -> list[Generation]:
        generations = self.inner.generate(prompts, sampling, seed)
        self.calls.append([num_tokens(generation) for generation in generations])
        return generations


def num_tokens(generation: Generation) -> int | None:
    """Of the prompt and the text."""
    if generation.token_ids is None or generation.prompt_token_ids is None:
        return None
    return len(generation.prompt_token_ids) + len(generation.token_ids)
