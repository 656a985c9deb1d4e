"""Choices between many actions in the same state, and what each is worth to whom.

The environment sees the text and the action, no user. So what an action leads to is worth something that is known for
every user at no further call, and each of them is an example of what to ask for (relabelling, as of goals in
Andrychowicz et al. 2017 and of rewards in Eysenbach et al. 2020). The reward comes at the end of an episode only; an
action's gain, U of the text after it minus U of the one before, sums up to the same (potential-based shaping, Ng et
al. 1999).

Axis letters: `K` options of a choice, `U` users.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from eagle_jax.base.seeds import derive_seed
from eagle_jax.data.prompts import MalformedText, policy_prompt
from eagle_jax.eagle.candidate_stage import CandidateSet
from eagle_jax.eagle.environment import EpisodeState, Step, read_actions
from eagle_jax.eagle.expert.settings import ExpertSettings
from eagle_jax.eagle.rollout import PolicyFn
from eagle_jax.eagle.world import EagleWorld


class Choice(NamedTuple):
    """The state of an episode, and its options: actions that lead to different new texts."""

    entity_index: int
    user_index: int
    description: str
    actions: list[str]
    next_descriptions: list[str]


class Tried(NamedTuple):
    """One step of all episodes; `steps`: what each goes on with (no action: there is no option)."""

    choices: list[Choice]
    steps: list[Step]
    counts: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        choices, steps = [choice._asdict() for choice in self.choices], [dataclasses.asdict(s) for s in self.steps]
        return {"choices": choices, "steps": steps, "counts": self.counts}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Tried:
        choices, steps = [Choice(**choice) for choice in value["choices"]], [Step(**step) for step in value["steps"]]
        return cls(choices, steps, value["counts"])


def try_actions(
    world: EagleWorld, policy_fn: PolicyFn, states: Sequence[EpisodeState], settings: ExpertSettings, seed: int
) -> Tried:
    """`actions_per_state` actions in each state, each different one applied by the environment once; an episode goes
    on with an action that is chosen for its own user."""
    rng = np.random.default_rng(derive_seed(seed, 0))
    asked = [state for own in states for state in _for_other_users(world, own, settings.actions_per_state, rng)]
    # One action for the profile of each: what one user would ask for another may not think of.
    actions = read_actions(policy_fn(asked, derive_seed(seed, 1)))
    size = settings.actions_per_state
    different = [_different(actions[row * size : (row + 1) * size]) for row in range(len(states))]
    texts = [state.description for state, of_state in zip(states, different, strict=True) for _ in of_state]
    steps = world.environment.step(texts, [action for of in different for action in of], derive_seed(seed, 2))
    counts = Counter(actions=len(asked), different=len(steps), environment_calls=sum(step.num_calls for step in steps))
    counts.update(f"action:{action.reason}" for action in actions if isinstance(action, MalformedText))
    counts.update(step.malformed for step in steps if step.malformed)
    choices, taken = [], []
    after = iter(steps)
    for state, of_state in zip(states, different, strict=True):
        applied = [next(after) for _ in of_state]
        led = [(step.action, step.description) for step in applied if step.malformed is None]
        choice = _choice(state.entity_index, state.user_index, state.description, led)
        choices.append(choice)
        taken.append(_step_for_its_user(world, choice, settings.gain_temperature, rng))
    return Tried(choices, taken, dict(counts))


def choices_of_candidates(world: EagleWorld, candidate_sets: Sequence[CandidateSet]) -> list[Choice]:
    """The choice between the candidates of each entity, for the user of the first one."""
    return [
        _choice(
            row.entity_index,
            int(row.user_index[0]),
            world.catalogue.entities[row.entity_index].description,
            row.applied(),
        )
        for row in candidate_sets
    ]


def _choice(entity_index: int, user_index: int, description: str, led: Sequence[tuple[str, str]]) -> Choice:
    """Of actions and the texts they led to, those that are new; the first one of equal ones."""
    new = {text: action for action, text in reversed(led)}
    new.pop(description, None)
    return Choice(entity_index, user_index, description, [*new.values()][::-1], [*new][::-1])


def _for_other_users(
    world: EagleWorld, state: EpisodeState, count: int, rng: np.random.Generator
) -> list[EpisodeState]:
    """The state for its own user, and for training users drawn at random."""
    users = world.split.users["train"]
    drawn = rng.choice(users, count - 1, replace=count - 1 > len(users)).tolist()
    others = [dataclasses.replace(state, user_index=user, profile=world.profiles[user]) for user in drawn]
    return [state, *others]


def _different(actions: Sequence[str | MalformedText]) -> list[str]:
    return list(dict.fromkeys(action for action in actions if not isinstance(action, MalformedText)))


def _step_for_its_user(world: EagleWorld, choice: Choice, temperature: float, rng: np.random.Generator) -> Step:
    if not choice.actions:
        return Step(action=None, description=choice.description, malformed=None)
    (option,) = draw_options(gains_for(world, choice, [choice.user_index]), temperature, rng)
    return Step(action=choice.actions[option], description=choice.next_descriptions[option], malformed=None)


def gains_for(world: EagleWorld, choice: Choice, users: Sequence[int]) -> np.ndarray:
    """Reward of the text after each option minus that of the text before, for each user [K, U]."""
    texts = [choice.description, *choice.next_descriptions]
    rewards = world.rewards_of_users(texts, choice.entity_index, users)
    return rewards[1:] - rewards[:1]


def draw_options(gains: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """An option for each user [U], drawn with probability exp(gain / temperature) / sum (gains [K, U])."""
    # The largest of independent Gumbel draws added to logits is a draw from their softmax.
    return np.argmax(gains / temperature + rng.gumbel(size=gains.shape), axis=0)


def chosen_pairs(
    world: EagleWorld, choices: Sequence[Choice], settings: ExpertSettings, seed: int
) -> tuple[list[tuple[str, str]], np.ndarray]:
    """What the policy has to write: prompt and action of `users_per_state` users in each state with two options or
    more; and the gain of each [pairs]."""
    pairs, gains = [], []
    everyone = world.split.users["train"]
    for number, choice in enumerate(choices):
        if len(choice.actions) < 2:
            continue
        rng = np.random.default_rng(derive_seed(seed, number))
        others = rng.permutation(everyone[everyone != choice.user_index])[: settings.users_per_state - 1]
        users = [choice.user_index, *others.tolist()]
        of_users = gains_for(world, choice, users)
        for place, (user, option) in enumerate(
            zip(users, draw_options(of_users, settings.gain_temperature, rng), strict=True)
        ):
            prompt = policy_prompt(world.book, world.entity_format, choice.description, world.profiles[user])
            pairs.append((prompt.text, prompt.closed(choice.actions[option])))
            gains.append(of_users[option, place])
    return pairs, np.asarray(gains)
