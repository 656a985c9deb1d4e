"""Rollouts: lengths, the chain of states, and the same episodes from the same seed."""

import numpy as np

from eagle_jax.data.prompts import COMPACT, EntityFormat, render_blocks
from eagle_jax.eagle.environment import LLMEnvironment, Start
from eagle_jax.eagle.rollout import rollout
from eagle_jax.language_model.generation import Generation, SamplingSettings

SAMPLING = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=20)
NOTE = EntityFormat(noun="note", blocks=("NOTE",), action_categories=("any",))


class Appender:
    """Writes the note after the action: the note, then the action."""

    def generate(self, prompts, sampling, seed):
        return [self.write(prompt.text, seed) for prompt in prompts]

    def write(self, text, seed):
        note = text.split("#BEGIN_NOTE ")[1].split(" #END_NOTE")[0]
        action = text.split("#BEGIN_ACTION ")[1].split(" #END_ACTION")[0]
        return Generation(text=f"{note} {action}{seed % 7}", token_ids=None, log_probs=None, stop_reason="stop")


def policy(states, seed):
    rng = np.random.default_rng(seed)
    return [
        Generation(
            text=f"w{rng.integers(1000)}",
            token_ids=(1, 2),
            log_probs=(-1.0, -2.0),
            stop_reason="stop" if rng.random() < 0.7 else "length",
        )
        for _ in states
    ]


def play(seed, horizon=4):
    environment = LLMEnvironment(generator=Appender(), book=COMPACT, entity_format=NOTE, sampling=SAMPLING)
    starts = [Start(i, i, render_blocks({"NOTE": f"n{i}"}), "p") for i in range(6)]
    return environment, rollout(policy, environment, environment.reset(starts), horizon, seed)


def test_same_seed_same_episodes():
    assert play(5)[1] == play(5)[1]
    assert play(5)[1] != play(6)[1]


def test_steps_form_a_chain_and_calls_are_counted():
    environment, played = play(0)
    assert len(played) == 4
    for before, after in zip(played[:-1], played[1:], strict=True):
        assert before.next_states == after.states
    acted = 0
    for number, step in enumerate(played):
        for state, generation, made, following in zip(*step, strict=True):
            assert (state.step, following.step) == (number, number + 1)
            assert following.description == made.description
            if generation.stop_reason == "length":
                assert made.action is None and made.description == state.description
                assert made.malformed == "action:length"
            else:
                acted += 1
                assert made.action == generation.text and f" {made.action}" in made.description
                assert made.malformed is None
    assert environment.num_calls == acted < 24


def test_steps_draw_different_actions():
    _, played = play(0)
    texts = [tuple(g.text for g in step.generations) for step in played]
    assert len(set(texts)) == 4
