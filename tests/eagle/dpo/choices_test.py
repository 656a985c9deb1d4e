"""Choices of a scripted policy: what samples are, which are told apart, how pairs are ranked."""

import jax
import numpy as np
import pytest

from eagle_jax.base.seeds import derive_seed
from eagle_jax.eagle.agent.player import Player
from eagle_jax.eagle.dpo.choices import Samples, is_distinct, play_actions, play_episodes, rank_pairs
from eagle_jax.eagle.environment import EpisodeState
from eagle_jax.eagle.rollout import rollout
from eagle_jax.language_model.generation import Generation
from eagle_jax.real.selection.pair_selection import STRATEGIES
from tests.toy_world import WORDS, agent_task, draw_starts, eagle_settings


class ScriptedPlayer(Player):
    """Writes words by turns in place of the model; one in five actions is malformed."""

    def play(self, trainable, states, horizon, seed):
        def policy_fn(states, seed):
            rng = np.random.default_rng(seed)
            words = rng.choice([*"abcd", ""], size=len(states))
            return [
                Generation(
                    text=f"word{word}" if word else "",
                    token_ids=(5 + ord(word) if word else 4, 2),
                    log_probs=(-1.0, -0.5),
                    stop_reason="stop" if word else "length",
                )
                for word in words
            ]

        return rollout(policy_fn, self.task.environment, states, horizon, seed)


@pytest.fixture
def player():
    return ScriptedPlayer(None, None, None, agent_task(WORDS), eagle_settings(), 8, 0)


def states_of(player, count):
    return player.task.environment.reset(draw_starts(np.random.default_rng(5), count))


def test_every_state_of_an_episode_is_a_choice_between_actions(player):
    states = states_of(player, 6)
    samples = play_actions(player, None, states, 4, seed=1)
    # Three steps of six episodes, four actions at each, one of which leads on.
    assert len(samples.states) == len(samples.ends) == 3 * 6 * 4
    assert samples.num_actions == 1 and samples.first == states
    of_step = [samples.states[step * 24 : (step + 1) * 24] for step in range(3)]
    ends = [samples.ends[step * 24 : (step + 1) * 24] for step in range(3)]
    for step in range(3):
        for episode in range(6):
            choice = slice(episode * 4, episode * 4 + 4)
            assert len(set(of_step[step][choice])) == 1  # one state
            assert of_step[step][choice][0].step == step
            after = samples.final if step == 2 else of_step[step + 1][::4]
            assert after[episode] in ends[step][choice]
    malformed = sum(generation.stop_reason == "length" for generation in samples.generations)
    assert malformed > 5
    assert player.task.environment.num_calls == samples.calls["environment_calls"]
    assert samples.calls["environment_calls"] == 72 - malformed
    assert samples.calls["malformed_actions"] == pytest.approx(malformed / 72)


def test_every_start_is_a_choice_between_whole_episodes(player):
    states = states_of(player, 3)
    samples = play_episodes(player, None, states, 5, seed=1)
    assert len(samples.ends) == 15 and samples.num_actions == 3
    assert samples.ends == samples.final and samples.first == [s for s in states for _ in range(5)]
    for place, end in enumerate(samples.ends):
        own = samples.states[place * 3 : place * 3 + 3]
        assert own[0] == states[place // 5] and [state.step for state in own] == [0, 1, 2]
        last = samples.generations[place * 3 + 2]
        rewritten = last.stop_reason == "stop"
        assert (end.description.split()[-2] == last.text) or not rewritten
    again = play_episodes(player, None, states, 5, seed=1)
    assert again == samples
    assert play_episodes(player, None, states, 5, seed=derive_seed(1, 1)) != samples


def make_samples(rows, num_samples):
    """Samples of one action each from rows (token, text it leads to)."""

    def state(text):
        return EpisodeState(entity_index=0, user_index=0, description=text, profile="", step=0)

    generations = [Generation(text="", token_ids=(token,), log_probs=(0.0,), stop_reason="stop") for token, _ in rows]
    ends = [state(text) for _, text in rows]
    return Samples([state("start")] * len(rows), generations, ends, num_samples, [], [], {})


def test_equal_texts_and_equal_actions_are_no_two_samples():
    rows = [
        (1, "a"),
        (2, "a"),
        (1, "b"),
        (3, "c"),  # the text of the first, its action, another
        (1, "a"),
        (2, "b"),
        (2, "c"),
        (4, "b"),
    ]
    expected = [[True, False, False, True], [True, True, False, False]]
    np.testing.assert_array_equal(is_distinct(make_samples(rows, 4)), expected)


class TestRankPairs:
    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_chosen_is_the_better_of_the_two_selected(self, strategy):
        rng = np.random.default_rng(0)
        embeddings = rng.normal(size=(40, 4, 3)).astype(np.float32)
        utilities = rng.normal(size=(40, 4)).astype(np.float32)
        distinct = rng.random((40, 4)) > 0.2
        rewards = rng.normal(size=(40, 4)).astype(np.float32)
        arguments = (strategy, "euclidean", embeddings, utilities, distinct, rewards)
        pairs = rank_pairs(*arguments, jax.random.key(0))
        flat = utilities.reshape(-1)
        assert (flat[pairs.chosen] > flat[pairs.rejected]).all()
        assert distinct.reshape(-1)[np.concatenate([pairs.chosen, pairs.rejected])].all()
        np.testing.assert_array_equal(pairs.chosen // 4, pairs.rejected // 4)  # of one choice
        assert (pairs.metrics["pairs"], len(pairs.chosen)) == ((distinct.sum(1) >= 2).sum(),) * 2
        gaps = flat[pairs.chosen] - flat[pairs.rejected]
        assert pairs.metrics["pairs/utility_gap"] == pytest.approx(gaps.mean(), rel=1e-5)
        # The selection does not see utilities: turned round, they turn round the same pairs.
        other = rank_pairs(*arguments[:3], -utilities, *arguments[4:], jax.random.key(0))
        np.testing.assert_array_equal(other.chosen, pairs.rejected)

    def test_what_gives_no_pair_is_counted(self):
        embeddings = np.array([[[0.0], [1.0], [5.0]]] * 4, np.float32)
        embeddings[3, 1] = np.nan
        utilities = np.array([[1, 2, 3], [2, 7, 2], [1, 2, 3], [1, 2, 3]], np.float32)
        distinct = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 0], [1, 1, 1]], bool)
        # Easy: the first and the last of three; a tie, no choice, a sample that is unusable.
        pairs = rank_pairs("easy", "euclidean", embeddings, utilities, distinct, np.zeros((4, 3)), jax.random.key(0))
        assert pairs.chosen.tolist() == [2, 11] and pairs.rejected.tolist() == [0, 9]
        assert pairs.metrics == {
            "pairs": 2,
            "pairs/ties": 1,
            "pairs/without_choice": 1,
            "pairs/repeated_samples": 2,
            "pairs/unusable_samples": 1,
            "pairs/similarity": -5,
            "pairs/utility_gap": 2,
        }
