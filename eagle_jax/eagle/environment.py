"""The world that the agent acts in: a frozen language model rewrites an entity under an action.

Text world. It sees the entity and the action, neither the profile nor any embedding
(Tennenholtz et al. 2024, section 3). Output that cannot be read back changes nothing and is noted
in the step under its kind, `environment:<reason>`; an action that cannot, under `action:<reason>`.
Where it is asked for again, only the last try is noted there, and the reasons of all in `malformed_tries`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.film_fields import FieldChange
from eagle_jax.data.prompts import EntityFormat, MalformedText, PromptBook
from eagle_jax.eagle.roles.field_changes import with_declared_fields
from eagle_jax.eagle.roles.rewrite_formats import BLOCKS_ONCE, RewriteSettings, read_rewriting, rewrite_prompt
from eagle_jax.eagle.roles.signs import Sign
from eagle_jax.language_model.generation import (
    Generation,
    SamplingSettings,
    TextGenerator,
    ask_until_read,
    parse_generation,
)


class Start(NamedTuple):
    """Where an episode starts: an anchor and the user it is for."""

    entity_index: int
    user_index: int
    description: str
    profile: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One change: the action (None: malformed, or none led here), the text after it, and what went
    wrong (None: nothing); then the text is the one before. num_tries: calls of the environment, if it was asked."""

    action: str | None
    description: str
    malformed: str | None
    num_tries: int = 1

    @property
    def num_calls(self) -> int:
        """Of the environment."""
        return 0 if self.action is None else self.num_tries


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeState:
    """Entity text and profile after `step` steps; `taken`: the actions so far."""

    entity_index: int
    user_index: int
    description: str
    profile: str
    step: int
    taken: tuple[str, ...] = ()

    def after(self, step: Step) -> EpisodeState:
        """The state that a step leads to."""
        taken = self.taken if step.action is None else (*self.taken, step.action)
        return dataclasses.replace(self, description=step.description, step=self.step + 1, taken=taken)


def read_actions(generations: Sequence[Generation]) -> list[str | MalformedText]:
    """The policy's actions, or why they cannot be read."""
    actions: list[str | MalformedText] = []
    for generation in generations:
        try:
            actions.append(parse_generation(generation, ["ACTION"])["ACTION"])
        except MalformedText as error:
            actions.append(error)
    return actions


def written_actions(actions: Sequence[str]) -> list[Generation]:
    """What `read_actions` reads, of policies that no model plays."""
    return [Generation(text=action, token_ids=None, log_probs=None, stop_reason="stop") for action in actions]


@dataclasses.dataclass(kw_only=True)
class LLMEnvironment:
    """A decision process over texts; `num_calls` counts the rewritings asked for so far, `malformed_tries` those that
    could not be read, by reason."""

    generator: TextGenerator
    book: PromptBook
    entity_format: EntityFormat
    sampling: SamplingSettings
    rewriting: RewriteSettings = BLOCKS_ONCE
    signs: Mapping[str, Sign] = dataclasses.field(default_factory=dict)  # by the actions whose answers must have one
    field_changes: Mapping[str, FieldChange] = dataclasses.field(default_factory=dict)  # by the actions that have any
    num_calls: int = dataclasses.field(default=0, init=False)
    malformed_tries: Counter[str] = dataclasses.field(default_factory=Counter, init=False)

    def reset(self, starts: Sequence[Start]) -> list[EpisodeState]:
        """The states before the first step."""
        return [EpisodeState(**start._asdict(), step=0) for start in starts]

    def step(self, descriptions: Sequence[str], actions: Sequence[str | MalformedText], seed: int) -> list[Step]:
        """What the actions make of the texts: one call, and more where it is malformed and may be asked for again, for
        each action that could be read."""
        steps = [
            Step(action=None, description=description, malformed=f"action:{action.reason}")
            if isinstance(action, MalformedText)
            else Step(action=action, description=description, malformed=None)
            for description, action in zip(descriptions, actions, strict=True)
        ]
        acting = [row for row, step in enumerate(steps) if step.action is not None]
        if not acting:
            return steps
        name, fmt = self.rewriting.format, self.entity_format
        asked = [(steps[row].description, steps[row].action) for row in acting]
        prompts = [rewrite_prompt(name, self.book, fmt, *of_row) for of_row in asked]
        again, sampling = self.rewriting.retry_temperature, self.sampling
        retry = sampling if again is None else dataclasses.replace(sampling, temperature=again)
        tries = [(sampling, seed)]
        tries += [(retry, derive_seed(seed, number)) for number in range(1, self.rewriting.max_tries)]
        texts, reasons = ask_until_read(
            self.generator, prompts, lambda place, generation: self._read(*asked[place], generation), tries
        )
        for row, text, faults in zip(acting, texts, reasons, strict=True):
            change = {"malformed": f"environment:{faults[-1]}"} if text is None else {"description": text}
            num_tries = len(faults) + (text is not None)
            steps[row] = dataclasses.replace(steps[row], **change, num_tries=num_tries)
            self.num_calls += num_tries
            self.malformed_tries.update(faults)
        return steps

    def _read(self, description: str, action: str, generation: Generation) -> str:
        """The text after an answer; raises `MalformedText`."""
        fmt, sign = self.entity_format, self.signs.get(action)
        text = read_rewriting(self.rewriting.format, fmt, description, action, generation, sign)
        return with_declared_fields(text, action, self.field_changes)
