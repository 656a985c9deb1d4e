"""The world that the agent acts in: a frozen language model rewrites an entity under an action.

Text world. It sees the entity and the action, neither the profile nor any embedding
(Tennenholtz et al. 2024, section 3). Output that cannot be read back changes nothing and is noted
in the state under its kind, `environment:<reason>`; an action that cannot, under `action:<reason>`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from eagle_jax.data.prompts import (
    EntityFormat,
    MalformedText,
    PromptBook,
    environment_prompt,
    render_blocks,
)
from eagle_jax.language_model.generation import (
    Generation,
    SamplingSettings,
    TextGenerator,
    parse_generation,
)


class Start(NamedTuple):
    """Where an episode starts: an anchor and the user it is for."""

    entity_index: int
    user_index: int
    description: str
    profile: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeState:
    """Entity text and profile after `step` steps, and the reasons of what was malformed so far."""

    entity_index: int
    user_index: int
    description: str
    profile: str
    step: int
    malformed: tuple[str, ...]


class Rewrite(NamedTuple):
    """The text after an action, and why it is unchanged (None: it was rewritten)."""

    description: str
    malformed: str | None




def read_actions(
    states: Sequence[EpisodeState], generations: Sequence[Generation]
) -> tuple[list[EpisodeState], list[str | None]]:
    """The policy's actions; None where malformed, with the reason noted in the state."""
    noted, actions = [], []
    for state, generation in zip(states, generations, strict=True):
        try:
            actions.append(parse_generation(generation, ["ACTION"])["ACTION"])
        except MalformedText as error:
            actions.append(None)
            reasons = (*state.malformed, f"action:{error.reason}")
            state = dataclasses.replace(state, malformed=reasons)
        noted.append(state)
    return noted, actions


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
        return [EpisodeState(**start._asdict(), step=0, malformed=()) for start in starts]

    def rewrite(
        self, descriptions: Sequence[str], actions: Sequence[str], seed: int
    ) -> list[Rewrite]:
        """One environment call for each pair; malformed output leaves the text as it is."""
        prompts = [
            environment_prompt(self.book, self.entity_format, description, action)
            for description, action in zip(descriptions, actions, strict=True)
        ]
        if not prompts:
            return []
        self.num_calls += len(prompts)
        rewrites = []
        generations = self.generator.generate(prompts, self.sampling, seed)
        for description, generation in zip(descriptions, generations, strict=True):
            try:
                blocks = parse_generation(generation, self.entity_format.blocks)
                rewrites.append(Rewrite(render_blocks(blocks), None))
            except MalformedText as error:
                rewrites.append(Rewrite(description, f"environment:{error.reason}"))
        return rewrites

    def step(
        self, states: Sequence[EpisodeState], actions: Sequence[str | None], seed: int
    ) -> list[EpisodeState]:
        """The states one step later. An action of None costs no call and changes no text."""
        acting = [row for row, action in enumerate(actions) if action is not None]
        rewrites = self.rewrite(
            [states[row].description for row in acting], [actions[row] for row in acting], seed
        )
        after = [
            dataclasses.replace(state, step=state.step + 1)
            for state, _ in zip(states, actions, strict=True)
        ]
        for row, (description, malformed) in zip(acting, rewrites, strict=True):
            reasons = after[row].malformed + ((malformed,) if malformed else ())
            after[row] = dataclasses.replace(
                after[row], description=description, malformed=reasons
            )
        return after
