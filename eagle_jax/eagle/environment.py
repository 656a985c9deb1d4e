"""The world that the agent acts in: a frozen language model rewrites an entity under an action.

Text world. It sees the entity and the action, neither the profile nor any embedding
(Tennenholtz et al. 2024, section 3). Output that cannot be read back changes nothing and is noted
in the step under its kind, `environment:<reason>`; an action that cannot, under `action:<reason>`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from eagle_jax.data.prompts import EntityFormat, MalformedText, PromptBook, environment_prompt, render_blocks
from eagle_jax.language_model.generation import Generation, SamplingSettings, TextGenerator, parse_generation


class Start(NamedTuple):
    """Where an episode starts: an anchor and the user it is for."""

    entity_index: int
    user_index: int
    description: str
    profile: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One change: the action (None: malformed, or none led here), the text after it, and what went
    wrong (None: nothing); then the text is the one before."""

    action: str | None
    description: str
    malformed: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeState:
    """Entity text and profile after `step` steps."""

    entity_index: int
    user_index: int
    description: str
    profile: str
    step: int

    def after(self, step: Step) -> EpisodeState:
        """The state that a step leads to."""
        return dataclasses.replace(self, description=step.description, step=self.step + 1)


def read_actions(generations: Sequence[Generation]) -> list[str | MalformedText]:
    """The policy's actions, or why they cannot be read."""
    actions: list[str | MalformedText] = []
    for generation in generations:
        try:
            actions.append(parse_generation(generation, ["ACTION"])["ACTION"])
        except MalformedText as error:
            actions.append(error)
    return actions


@dataclasses.dataclass(kw_only=True)
class LLMEnvironment:
    """A decision process over texts; `num_calls` counts the rewritings asked for so far."""

    generator: TextGenerator
    book: PromptBook
    entity_format: EntityFormat
    sampling: SamplingSettings
    num_calls: int = dataclasses.field(default=0, init=False)

    def reset(self, starts: Sequence[Start]) -> list[EpisodeState]:
        """The states before the first step."""
        return [EpisodeState(**start._asdict(), step=0) for start in starts]

    def step(self, descriptions: Sequence[str], actions: Sequence[str | MalformedText], seed: int) -> list[Step]:
        """What the actions make of the texts: one call for each action that could be read."""
        steps = [
            Step(action=None, description=description, malformed=f"action:{action.reason}")
            if isinstance(action, MalformedText)
            else Step(action=action, description=description, malformed=None)
            for description, action in zip(descriptions, actions, strict=True)
        ]
        acting = [row for row, step in enumerate(steps) if step.action is not None]
        if not acting:
            return steps
        prompts = [
            environment_prompt(self.book, self.entity_format, steps[row].description, steps[row].action)
            for row in acting
        ]
        self.num_calls += len(prompts)
        generations = self.generator.generate(prompts, self.sampling, seed)
        for row, generation in zip(acting, generations, strict=True):
            try:
                blocks = parse_generation(generation, self.entity_format.blocks)
                change = {"description": render_blocks(blocks)}
            except MalformedText as error:
                change = {"malformed": f"environment:{error.reason}"}
            steps[row] = dataclasses.replace(steps[row], **change)
        return steps
