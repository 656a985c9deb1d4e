"""Episodes become records, budgets are equal, and best-of-N keeps the best: worked by hand.

The world: a note is a row of digits, an action appends one digit, and a note's utility for user u
is the sum of its digits, minus u. An action of "x" is malformed; the environment spoils a "9".
"""

import dataclasses
import json
import math

import numpy as np
import pytest

from eagle_jax.data.prompts import COMPACT, render_blocks
from eagle_jax.eagle.environment import LLMEnvironment, Start, Step
from eagle_jax.eagle.evaluation.episodes import (
    EpisodeRecord,
    Judging,
    equal_call_episodes,
    evaluate_played,
    evaluate_policy,
    plot_alone,
)
from eagle_jax.eagle.rollout import rollout
from eagle_jax.embeddings.utility import TERMS, UtilityTerms
from eagle_jax.language_model.generation import Generation, SamplingSettings
from tests.toy_world import NOTE

STARTS = [Start(i, 10 + i, render_blocks({"NOTE": f"1 {i}"}), f"profile {i}") for i in range(5)]


def generation(text, stop_reason="stop"):
    return Generation(text=text, token_ids=None, log_probs=None, stop_reason=stop_reason)


class Appender:
    """The note, then the action; no closing marker where the action is a 9."""

    def generate(self, prompts, sampling, seed):
        generations = []
        for prompt in prompts:
            note = prompt.text.split("#BEGIN_NOTE ")[1].split(" #END_NOTE")[0]
            action = prompt.text.split("#BEGIN_ACTION ")[1].split(" #END_ACTION")[0]
            reason = "length" if action == "9" else "stop"
            generations.append(generation(f"{note} {action}", reason))
        return generations


def make_environment():
    sampling = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=8)
    return LLMEnvironment(generator=Appender(), book=COMPACT, entity_format=NOTE, sampling=sampling)


def digits(texts):
    words = [[word for word in text.split() if word.lstrip("-").isdigit()] for text in texts]
    return np.array([sum(map(int, of_text)) for of_text in words])


class Summing:
    """The encoder; `change` is made to the terms."""

    def __init__(self, change=lambda terms: terms):
        self.change = change

    def embed(self, texts):
        return np.stack([digits(texts), np.ones(len(texts))], axis=1)

    def score(self, texts, users):
        total = digits(texts).astype(np.float64)
        return self.change(UtilityTerms(total - users, total, None, 0.5 * total))


SCORERS = {"train": Summing(), "held_out": Summing(lambda terms: terms._replace(utility=-terms.utility))}


class Brevity:
    """A quality: the words that a text has more than its anchor are one too many each."""

    weight = 3.0

    def __call__(self, texts, anchors):
        return np.array(
            [float(len(anchor.split()) - len(text.split())) for text, anchor in zip(texts, anchors, strict=True)]
        )


def evaluate(policy_fn, horizon, *, environment=None, starts=STARTS, seed=0, batch_size=9, best_of=None, quality=None):
    environment = environment or make_environment()
    return evaluate_policy(
        Judging(SCORERS, quality), starts, seed, policy_fn, environment, horizon, batch_size, best_of
    )


def scripted(*actions):
    """The same action for all episodes, one for each step."""

    def policy_fn(states, seed):
        return [generation(actions[state.step], "length" if actions[state.step] == "x" else "stop") for state in states]

    return policy_fn


def random_policy(states, seed):
    rng = np.random.default_rng(seed)
    return [generation(str(rng.integers(-8, 9))) for _ in states]


def test_steps_of_a_rollout_form_a_chain_and_draw_anew():
    environment = make_environment()
    played = rollout(random_policy, environment, environment.reset(STARTS), 4, 0)
    for number, step in enumerate(played):
        assert number == 0 or step.states == played[number - 1].next_states
        for state, generation, made, following in zip(*step, strict=True):
            assert (state.step, following.step) == (number, number + 1)
            assert (following.description, made.action) == (made.description, generation.text)
    assert len({tuple(made.text for made in step.generations) for step in played}) == 4


def test_a_policys_record_by_hand():
    environment = make_environment()
    records = evaluate(scripted("4", "x", "9", "2"), 4, environment=environment, batch_size=2)
    assert [record.pair for record in records] == [(i, 10 + i) for i in range(5)]
    record = records[3]  # starts at 1 + 3 for user 13
    notes = ["1 3 4", "1 3 4", "1 3 4", "1 3 4 2"]  # x is no action, 9 is spoiled
    assert [step.description for step in record.steps] == [render_blocks({"NOTE": note}) for note in notes]
    assert [step.action for step in record.steps] == ["4", None, "9", "2"]
    assert record.malformed == {"action:length": 1, "environment:length": 1}
    assert [step.malformed for step in record.steps] == [None, "action:length", "environment:length", None]
    assert (record.num_steps, record.environment_calls) == (4, 3)
    assert environment.num_calls == sum(record.environment_calls for record in records)
    assert record.scores["train"][0] == {"utility": 4.0 - 13.0, "user_term": 4.0, "neighbor_distance_term": 2.0}
    assert [s["utility"] for s in record.scores["train"]] == [-9.0, -5.0, -5.0, -5.0, -3.0]
    assert record.scores["held_out"][-1]["utility"] == 3.0
    assert record.distance == 6.0
    assert record.final_text == record.steps[-1].description


def test_anchor_is_its_own_final_text():
    for record in evaluate_played(Judging(SCORERS), STARTS, 0, [()] * 5):
        assert record.steps == () and record.final_text == record.anchor
        assert (record.distance, record.environment_calls, record.num_steps) == (0.0, 0, 0)
        assert len(record.scores["train"]) == len(record.scores["held_out"]) == 1


def test_texts_that_nobody_rewrote_cost_no_call_and_malformed_ones_are_counted():
    texts = [Step(action=None, description=render_blocks({"NOTE": f"1 {i} 4"}), malformed=None) for i in range(4)]
    texts.append(Step(action=None, description=STARTS[4].description, malformed="decoder:length"))
    records = evaluate_played(Judging(SCORERS), STARTS, 0, [(text,) for text in texts])
    assert [r.environment_calls for r in records] == [0] * 5 and records[0].num_steps == 1
    assert [r.scores["train"][-1]["utility"] for r in records] == [-5, -5, -5, -5, 5 - 14]
    assert [r.distance for r in records] == [4, 4, 4, 4, 0]
    assert records[4].malformed == {"decoder:length": 1} and not records[0].malformed
    rated = dataclasses.replace(records[4], rater=dict.fromkeys(["user_utility", "distance_score"], 0.5))
    for record in (records[4], rated):
        assert EpisodeRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_best_of_n_keeps_the_best_text_seen_on_the_way():
    of_two = {"starts": STARTS[:1], "batch_size": 3, "best_of": 2}
    (record,) = evaluate(scripted("4", "2", "-5", "1"), 4, **of_two)
    assert [step.action for step in record.steps] == ["4", "2"]
    assert record.scores["train"][-1]["utility"] == 1 + 0 + 4 + 2 - 10
    assert len(record.scores["held_out"]) == 3
    assert (record.num_steps, record.environment_calls) == (8, 8)
    (record,) = evaluate(scripted("-1", "x", "0", "1"), 4, **of_two)
    assert record.steps == () and record.malformed == {"action:length": 2}


def test_best_of_n_keeps_the_text_of_the_best_reward_where_quality_is_in_it():
    of_two = {"starts": STARTS[:1], "batch_size": 3, "best_of": 2, "quality": Brevity()}
    (record,) = evaluate(scripted("4", "2", "-5", "1"), 4, **of_two)
    # U goes 1, 5, 7 less 10; each digit more costs 3: 4 is worth it, 2 is not.
    assert [step.action for step in record.steps] == ["4"]
    assert [score["quality"] for score in record.scores["train"]] == [0, -1]
    assert [score["reward"] for score in record.scores["train"]] == [-9, -5 - 3]
    assert [score["utility"] for score in record.scores["train"]] == [-9, -5]
    assert "quality" not in record.scores["held_out"][-1] and len(record.scores["held_out"]) == 2
    (record,) = evaluate_played(Judging(SCORERS, Brevity()), STARTS[:1], 0, [()])
    assert record.scores["train"] == (
        {**evaluate_played(Judging(SCORERS), STARTS[:1], 0, [()])[0].scores["train"][0], "quality": 0, "reward": -9},
    )


def test_best_of_n_is_never_below_the_anchor_nor_below_the_policys_own_last_text():
    runs = {n: evaluate(random_policy, 3, seed=7, batch_size=4, best_of=n) for n in (1, 16)}
    for records in runs.values():
        for record in records:
            assert record.scores["train"][-1]["utility"] >= record.scores["train"][0]["utility"]
    best = {n: np.mean([r.scores["train"][-1]["utility"] for r in rs]) for n, rs in runs.items()}
    assert best[16] > best[1]
    last = evaluate(random_policy, 3, seed=7, batch_size=4)
    for policy, kept in zip(last, runs[1], strict=True):  # the same episodes, for N = 1
        assert kept.scores["train"][-1]["utility"] >= policy.scores["train"][-1]["utility"]
        assert all(step in policy.steps for step in kept.steps)


def test_each_try_of_best_of_n_has_its_best_text_scored():
    (record,) = evaluate(scripted("4", "2", "-5", "1"), 4, starts=STARTS[:1], batch_size=3, best_of=2)
    assert record.tries == ({"reward": -3.0, "train": -3.0, "held_out": 3.0},) * 2
    (record,) = evaluate(scripted("-1"), 1, starts=STARTS[:1], batch_size=3, best_of=1, quality=Brevity())
    assert record.tries == ({"reward": -9.0, "train": -9.0, "held_out": 9.0},)  # the anchor, of quality 0
    assert EpisodeRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_same_seed_same_records_and_another_seed_others():
    first, again, other = (evaluate(random_policy, 3, seed=seed, batch_size=2) for seed in (3, 3, 4))
    assert first == again and first != other


def test_a_text_is_scored_once_for_each_user():
    asked = []

    class Counting(Summing):
        def score(self, texts, users):
            asked.extend(zip(texts, users.tolist(), strict=True))
            return super().score(texts, users)

    evaluate_policy(Judging({"train": Counting()}), STARTS, 0, scripted("x", "x", "4"), make_environment(), 3, 9)
    assert len(asked) == len(set(asked)) == 2 * len(STARTS)


def test_a_creators_term_is_told_where_there_is_one():
    with_creators = Summing(lambda terms: terms._replace(creator_term=np.full(len(terms.utility), 0.25)))
    (record, *_) = evaluate_played(Judging({"train": with_creators}), STARTS, 0, [()] * 5)
    assert record.scores["train"][0]["creator_term"] == 0.25
    assert list(record.scores["train"][0]) == ["utility", *TERMS]


def test_a_utility_that_is_not_finite_is_refused():
    broken = Summing(lambda terms: terms._replace(user_term=np.full(len(terms.utility), math.nan)))
    with pytest.raises(ValueError, match="encoder 'held_out', user 10"):
        evaluate_played(Judging({"train": Summing(), "held_out": broken}), STARTS, 0, [()] * 5)


@pytest.mark.parametrize(
    "calls, training, evaluated, horizon, expected",
    [
        (5, 0, 200, 1, 5),  # five episodes of one step for one of five
        (5, 0, 200, 5, 1),
        (5, 24_000, 200, 5, 25),  # 120 training calls for each evaluated episode: 125 / 5
        (5, 24_001, 200, 5, 26),  # rounded up, in best-of-N's favour
        (5, 0, 200, 3, 2),
    ],
)
def test_equal_call_budgets(calls, training, evaluated, horizon, expected):
    num_episodes = equal_call_episodes(
        calls_per_episode=calls, training_calls=training, num_evaluated=evaluated, best_of_n_horizon=horizon
    )
    assert num_episodes == expected
    assert num_episodes * horizon * evaluated >= calls * evaluated + training


def test_budgets_without_episodes_are_refused():
    with pytest.raises(ValueError, match="num_evaluated \\(0\\)"):
        equal_call_episodes(calls_per_episode=5, training_calls=0, num_evaluated=0, best_of_n_horizon=1)


def test_texts_are_scored_once_more_with_what_is_held_of_their_anchor():
    judging = Judging(SCORERS, held=lambda anchor, text: anchor)
    records = evaluate_policy(judging, STARTS, 0, scripted("4", "2"), make_environment(), 2, 9)
    for record in records:
        for encoder in SCORERS:
            first = record.scores[encoder][0]
            assert record.scores[plot_alone(encoder)] == (first, first, first)
            assert first not in record.scores[encoder][1:]
    plain = evaluate_policy(Judging(SCORERS), STARTS, 0, scripted("4", "2"), make_environment(), 2, 9)
    for record, own in zip(records, plain, strict=True):
        assert own.scores == {encoder: record.scores[encoder] for encoder in SCORERS}
