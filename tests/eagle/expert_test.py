"""What is tried in a state, what it is worth to every user, which action each of them gets; and the stage of it."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.prompts import MOVIE, parse_blocks, policy_prompt
from eagle_jax.eagle.candidate_stage import CandidateSet
from eagle_jax.eagle.environment import EpisodeState
from eagle_jax.eagle.expert import stage as expert_stage
from eagle_jax.eagle.expert.choices import (
    Choice,
    Tried,
    choices_of_candidates,
    chosen_pairs,
    draw_options,
    gains_for,
    try_actions,
)
from eagle_jax.eagle.expert.settings import ExpertSettings
from eagle_jax.learning.supervised import NextTokenSettings
from eagle_jax.stages.supervised import ReferenceStageSettings
from tests.eagle.plot_editor import edited_by, written
from tests.same_run import Interrupted
from tests.small_world import SAMPLING

HORIZON = 3
FIT = ReferenceStageSettings(
    batch_size=2,
    training=NextTokenSettings(
        num_steps=1,
        learning_rate=1e-3,
        warmup_steps=1,
        weight_decay=0.0,
        max_gradient_norm=1.0,
        checkpoint_every=1,
        log_every=1,
    ),
)
# What the policy writes for the profiles it is asked with, by turns: twice the same, one cut off, one refused, one
# that changes nothing, and two ways to say the same.
WRITTEN = ["add a cat", "add a dog", "add a cat", None, "garble", "leave it", "add one dog", "add a bee"]


def settings_with(**changes):
    base = dict(
        num_episodes=2, actions_per_state=8, sampling=SAMPLING, users_per_state=20, gain_temperature=0.1, fit=FIT
    )
    return ExpertSettings(**(base | changes))


@pytest.fixture
def acting(world):
    return edited_by(world)


@pytest.fixture
def candidates(world):
    """Of entity 0: one that changes nothing, two that lead to the same text, one that could not be applied, another."""
    description = world.catalogue.entities[0].description
    return CandidateSet(
        entity_index=0,
        actions=["leave it", "add a cat", "add one cat", "garble", "add a dog"],
        next_descriptions=[description, "A cat.", "A cat.", description, "A dog."],
        user_index=world.split.users["train"][:5],
        next_embeddings=np.zeros((5, 1)),
        next_utilities=np.zeros(5),
        is_valid=np.array([True, True, True, False, True]),
    )


@pytest.fixture
def states(acting):
    return acting.environment.reset(acting.draw_starts("train", np.random.default_rng(3), 2))


def write_by_turns(asked):
    def policy_fn(states, seed):
        asked.extend(states)
        return [written(WRITTEN[row % len(WRITTEN)]) for row in range(len(states))]

    return policy_fn


def test_each_different_action_is_asked_for_once_and_what_it_leads_to_kept_once(acting, states):
    asked = []
    tried = try_actions(acting, write_by_turns(asked), states, settings_with(), seed=1)
    for place, (state, choice) in enumerate(zip(states, tried.choices, strict=True)):
        profiles = [of.profile for of in asked[place * 8 : place * 8 + 8]]
        assert profiles[0] == state.profile and len(set(profiles[1:])) == 7
        assert {of.description for of in asked[place * 8 : place * 8 + 8]} == {state.description}
        assert choice.actions == ["add a cat", "add a dog", "add a bee"]
        plots = [parse_blocks(text, MOVIE.blocks)["PLOT"].split()[-1] for text in choice.next_descriptions]
        assert plots == ["cat", "dog", "bee"]
        assert (choice.entity_index, choice.user_index) == (state.entity_index, state.user_index)
    assert len(acting.environment.generator.asked) == len(set(acting.environment.generator.asked)) == 12
    assert acting.environment.num_calls == tried.counts["environment_calls"] == 12
    assert tried.counts["actions"] == 16 and tried.counts["different"] == 12
    assert sum(count for name, count in tried.counts.items() if name.startswith("action:")) == 2
    assert sum(count for name, count in tried.counts.items() if name.startswith("environment:")) == 2
    assert Tried.from_json(tried.to_json()) == tried
    again = try_actions(acting, write_by_turns([]), states, settings_with(), seed=1)
    assert again == tried


def test_an_episode_goes_on_as_its_user_would_have_it(acting, states):
    tried = try_actions(acting, write_by_turns([]), states, settings_with(gain_temperature=1e-6), seed=1)
    for state, choice, step in zip(states, tried.choices, tried.steps, strict=True):
        rewards = acting.rewards([_state(choice, choice.user_index, text) for text in choice.next_descriptions])
        best = int(np.argmax(rewards))
        assert len(rewards) == 3 and step.action == choice.actions[best]
        after = state.after(step)
        assert (after.description, after.step) == (choice.next_descriptions[best], 1)
    nowhere = try_actions(acting, lambda asked, seed: [written("leave it")] * 16, states, settings_with(), seed=1)
    assert [step.action for step in nowhere.steps] == [None, None] and nowhere.choices[0].actions == []
    assert states[0].after(nowhere.steps[0]) == dataclasses.replace(states[0], step=1)


def test_gains_are_differences_of_rewards_for_every_user(acting, states):
    choice = try_actions(acting, write_by_turns([]), states, settings_with(), seed=1).choices[0]
    users = acting.split.users["train"][:5]
    gains = gains_for(acting, choice, users)
    for column, user in enumerate(users):
        of_user = [_state(choice, user, text) for text in (choice.description, *choice.next_descriptions)]
        rewards = acting.rewards(of_user)
        np.testing.assert_allclose(gains[:, column], rewards[1:] - rewards[0], rtol=1e-3, atol=1e-4)


def _state(choice, user, text):
    return EpisodeState(entity_index=choice.entity_index, user_index=int(user), description=text, profile="", step=0)


def test_options_are_drawn_from_the_softmax_of_their_gains():
    gains = np.array([[0.3], [0.1], [-0.2]])
    drawn = draw_options(np.repeat(gains, 40_000, axis=1), 0.2, np.random.default_rng(0))
    expected = np.exp(gains[:, 0] / 0.2) / np.exp(gains[:, 0] / 0.2).sum()
    shares = np.bincount(drawn, minlength=3) / 40_000
    assert np.all(np.abs(shares - expected) < 5 * np.sqrt(expected * (1 - expected) / 40_000))
    assert set(draw_options(np.repeat(gains, 100, axis=1), 1e-3, np.random.default_rng(0))) == {0}


def test_each_user_gets_a_prompt_with_its_own_profile_and_the_action_that_is_best_for_it(acting, states):
    tried = try_actions(acting, write_by_turns([]), states, settings_with(), seed=1)
    alone = tried.choices[1]._replace(actions=["add a cat"], next_descriptions=tried.choices[1].next_descriptions[:1])
    settings = settings_with(gain_temperature=1e-6)
    pairs, gains = chosen_pairs(acting, [tried.choices[0], alone], settings, seed=2)
    choice = tried.choices[0]
    assert len(pairs) == len(gains) == 20  # nobody has a choice in the other state
    profiles = {policy_prompt(acting.book, MOVIE, choice.description, p).text: u for u, p in acting.profiles.items()}
    users = [profiles[prompt] for prompt, _ in pairs]
    assert users[0] == choice.user_index and len(set(users)) == 20
    assert set(users) <= set(acting.split.users["train"].tolist())
    of_users = gains_for(acting, choice, users)
    prompt = policy_prompt(acting.book, MOVIE, choice.description, "")
    assert [completion for _, completion in pairs] == [
        prompt.closed(choice.actions[option]) for option in of_users.argmax(axis=0)
    ]
    np.testing.assert_allclose(gains, of_users.max(axis=0), rtol=1e-6)
    assert len(Counter(completion for _, completion in pairs)) > 1  # users differ


def test_fewer_users_than_asked_for_are_all_of_them(acting, states):
    choice = try_actions(acting, write_by_turns([]), states, settings_with(), seed=1).choices[0]
    pairs, _ = chosen_pairs(acting, [choice], settings_with(users_per_state=10_000), seed=2)
    assert len(pairs) == len({*acting.split.users["train"].tolist(), choice.user_index})


class Policy:
    """A stub of `PolicyModel`: what it loads says from where."""

    def load(self, folder):
        return f"loaded from {folder.name}"


@pytest.fixture
def learned(monkeypatch):
    """The pairs of each call of `fit_pairs`, which would take a minute."""
    calls = []

    def fit_pairs(stage, policy, model, pairs, settings, seed):
        stage.begin()
        calls.append((model, pairs))

    monkeypatch.setattr(expert_stage, "fit_pairs", fit_pairs)
    return calls


def run(folder, world, policy_fn, candidate_sets=(), **changes):
    stage = StageFolder(folder / "expert_g_optimal_0", {"seed": 0})
    return stage, expert_stage.run_expert_stage(
        stage,
        world,
        Policy(),
        "the reference policy",
        policy_fn,
        candidate_sets,
        HORIZON,
        settings_with(**changes),
        seed=5,
    )


def test_an_interrupted_stage_asks_only_for_what_is_missing_and_ends_the_same(acting, learned, tmp_path):
    whole, policy = run(tmp_path / "whole", acting, write_by_turns([]))
    assert policy == "loaded from model" and learned[0][0] == "the reference policy"
    choices = [Choice(**row) for row in whole.read_jsonl("choices.jsonl")]
    assert len(choices) == 2 * HORIZON  # two episodes
    pairs, gains = chosen_pairs(acting, choices, settings_with(), derive_seed(5, 2))
    assert learned[0][1] == pairs
    facts = whole.read_json("facts.json")
    assert facts["states"] == 6 and facts["num_pairs"] == len(pairs) == 6 * 20
    assert facts["gain"] == pytest.approx(gains.mean())
    assert facts["options"] == np.mean([len(choice.actions) for choice in choices])
    assert facts["environment_calls"] == acting.environment.num_calls
    assert choices[2].description in choices[0].next_descriptions  # an episode goes on

    steps = itertools.count(1)

    def killed_at_the_last_step(states, seed):
        if next(steps) == HORIZON:
            raise Interrupted
        return write_by_turns([])(states, seed)

    with pytest.raises(Interrupted):
        run(tmp_path / "killed", acting, killed_at_the_last_step)
    asked = []
    stage, _ = run(tmp_path / "killed", acting, write_by_turns(asked))
    assert len(asked) == 2 * settings_with().actions_per_state  # one step
    assert stage.read_json("facts.json") == facts and learned[1] == learned[0]


def test_nothing_to_choose_from_is_told(acting, learned, tmp_path):
    with pytest.raises(UserError, match="in none of 6 states did two actions lead to different new texts"):
        run(tmp_path, acting, lambda asked, seed: [written("add a cat")] * len(asked))
    assert not learned


def test_facts_are_sums_and_means_over_agents(acting, learned, tmp_path):
    stage, _ = run(tmp_path, acting, write_by_turns([]))
    facts = {fact["name"]: fact["value"] for fact in expert_stage.expert_facts([stage, stage])}
    once = stage.read_json("facts.json")
    assert facts["states"] == 12 and facts["environment_calls"] == 2 * once["environment_calls"]
    assert facts["options"] == pytest.approx(once["options"]) and facts["gain"] == pytest.approx(once["gain"])
    assert expert_stage.expert_facts([]) == []


def test_candidates_are_choices_at_no_further_call(acting, candidates, learned, tmp_path):
    user, description = int(candidates.user_index[0]), acting.catalogue.entities[0].description
    expected = Choice(0, user, description, ["add a cat", "add a dog"], ["A cat.", "A dog."])
    assert choices_of_candidates(acting, [candidates]) == [expected]

    without, _ = run(tmp_path / "without", acting, write_by_turns([]), [candidates])
    calls = acting.environment.num_calls
    stage, _ = run(tmp_path / "with", acting, write_by_turns([]), [candidates], candidates=True)
    assert acting.environment.num_calls == 2 * calls
    of_own = without.read_jsonl("choices.jsonl")
    assert stage.read_jsonl("choices.jsonl") == [*of_own, expected._asdict()]
    assert len(learned[1][1]) == len(learned[0][1]) + 20
    assert learned[1][1][: len(learned[0][1])] == learned[0][1]
