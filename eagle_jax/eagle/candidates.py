"""Candidate actions of an entity: proposed by a language model, applied by the environment.

Half generic, half for the profile of a user drawn at random, over the five categories of the
entity format (Tennenholtz et al. 2024, section 4.2). All that is drawn for an entity depends on the
seed and its index alone, whatever other entities are asked for in the same call.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.settings import setting, settings
from eagle_jax.data.prompts import (
    EntityFormat,
    MalformedText,
    Prompt,
    PromptBook,
    generic_action_prompt,
    personalised_action_prompt,
)
from eagle_jax.eagle.environment import LLMEnvironment, Step
from eagle_jax.language_model.generation import SamplingSettings, TextGenerator, parse_generation


@settings
class CandidateSettings:
    """How many candidates an entity gets."""

    num_generic: int = setting("Asked for without a user.", at_least=0)
    num_personalised: int = setting("Asked for with a user's profile.", at_least=0)
    max_tries: int = setting("So often a malformed one is asked for at most.", at_least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A proposed action; None where all tries were malformed, for the reasons in `malformed`."""

    entity_index: int
    category: str
    user_index: int | None  # whose profile the generator saw; None: generic
    action: str | None
    malformed: tuple[str, ...]

    @property
    def personalised(self) -> bool:
        return self.user_index is not None


@dataclasses.dataclass(frozen=True)
class ProposalContext:
    """Who proposes, how it is asked, and the profiles it may see."""

    generator: TextGenerator
    book: PromptBook
    entity_format: EntityFormat
    sampling: SamplingSettings
    profiles: Sequence[str]  # by user index


def propose_candidates(
    context: ProposalContext, entities: Sequence[tuple[int, str]], settings: CandidateSettings, seed: int
) -> list[list[Candidate]]:
    """num_generic, then num_personalised candidates for each (entity index, description)."""
    return [
        _propose(context, entity_index, description, settings, derive_seed(seed, entity_index, 0))
        for entity_index, description in entities
    ]


def _propose(
    context: ProposalContext, entity_index: int, description: str, settings: CandidateSettings, seed: int
) -> list[Candidate]:
    num_candidates = settings.num_generic + settings.num_personalised
    users = np.random.default_rng(seed).integers(len(context.profiles), size=settings.num_personalised)
    categories = context.entity_format.action_categories
    candidates = [
        Candidate(
            entity_index=entity_index,
            category=categories[row % len(categories)],
            user_index=user_index,
            action=None,
            malformed=(),
        )
        for row, user_index in enumerate([None] * settings.num_generic + users.tolist())
    ]
    prompts = [_prompt(context, description, candidate) for candidate in candidates]
    pending = list(range(num_candidates))
    for attempt in range(settings.max_tries):
        if not pending:
            break
        generations = context.generator.generate(
            [prompts[row] for row in pending], context.sampling, derive_seed(seed, attempt)
        )
        for row, generation in zip(pending, generations, strict=True):
            try:
                change = {"action": parse_generation(generation, ["ACTION"])["ACTION"]}
            except MalformedText as error:
                change = {"malformed": (*candidates[row].malformed, error.reason)}
            candidates[row] = dataclasses.replace(candidates[row], **change)
        pending = [row for row in pending if candidates[row].action is None]
    return candidates


def _prompt(context: ProposalContext, description: str, candidate: Candidate) -> Prompt:
    if candidate.user_index is None:
        return generic_action_prompt(context.book, context.entity_format, description, candidate.category)
    return personalised_action_prompt(
        context.book, context.entity_format, description, candidate.category, context.profiles[candidate.user_index]
    )


def apply_candidates(
    environment: LLMEnvironment,
    entities: Sequence[tuple[int, str]],
    candidates: Sequence[Sequence[Candidate]],
    seed: int,
) -> list[list[Step]]:
    """One environment call for each candidate: what the entity becomes."""
    return [
        environment.step(
            [description] * len(row),
            [MalformedText(c.malformed[-1], "every try") if c.action is None else c.action for c in row],
            derive_seed(seed, entity_index, 1),
        )
        for (entity_index, description), row in zip(entities, candidates, strict=True)
    ]


def count_candidates(candidates: Sequence[Sequence[Candidate]], steps: Sequence[Sequence[Step]]) -> Counter[str]:
    """For the report: proposals, duplicates within an entity, and what was malformed, by reason."""
    counts: Counter[str] = Counter()
    for row, outcomes in zip(candidates, steps, strict=True):
        actions = [candidate.action for candidate in row if candidate.action is not None]
        counts["candidates"] += len(row)
        counts["duplicates"] += len(actions) - len(set(actions))
        counts.update(f"action:{reason}" for candidate in row for reason in candidate.malformed)
        counts.update(step.malformed for step in outcomes if step.action is not None and step.malformed)
    return counts
