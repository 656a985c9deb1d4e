"""Changes, terms and export of an exploration: by hand, and for agents whose reward has more than U."""

import dataclasses

import numpy as np
import pytest

from eagle_jax.eagle.roles.action_head import ActionHead, head_chooser
from eagle_jax.embeddings.scorer import HELD_OUT, TRAIN
from eagle_jax.language_model.generation import ScriptedGenerator
from eagle_jax.pages.exploration import begin_exploration, with_episode, with_step
from eagle_jax.pages.exploration_tables import exploration_csv, made_visible, term_headings, term_lines, text_told
from eagle_jax.pages.explored_run import explored_run


def begin_with(agent):
    run = explored_run(agent, agent.policy, seed=0)
    return run, begin_exploration(run, *agent.evaluated[0])


def test_changed_words_are_marked(agent):
    """By hand: one word goes, two come in its place, one block is as it was."""
    run, exploration = begin_with(agent)
    before = dataclasses.replace(
        exploration.texts[0], text="#BEGIN_PLOT a sad tale #END_PLOT #BEGIN_REASONS_TO_LIKE x #END_REASONS_TO_LIKE"
    )
    after = dataclasses.replace(before, text=before.text.replace("sad", "very happy"))
    assert text_told(run, after, before)["words"] == [
        ["label", "Plot"],
        ["same", "a"],
        ["gone", "sad"],
        ["new", "very happy"],
        ["same", "tale"],
        ["label", "Reasons to like"],
        ["same", "x"],
    ]


def test_lines_of_terms_have_a_value_before_and_one_after():
    before, after = {"utility": 1.0, "user_term": 0.5}, {"utility": 2.0, "user_term": 0.75}
    headings = {"utility": ("U", ""), "user_term": ("User term", ""), "creator_term": ("Creator term", "")}
    lines = term_lines(headings, {TRAIN: before, HELD_OUT: after}, {TRAIN: after, HELD_OUT: before})
    assert lines == [
        {"heading": "U", "values": {TRAIN: [1.0, 2.0], HELD_OUT: [2.0, 1.0]}},
        {"heading": "User term", "values": {TRAIN: [0.5, 0.75], HELD_OUT: [0.75, 0.5]}},
    ]


class FewerWords:
    """A quality that is lost with every word more than the anchor has."""

    weight = 2.0

    def __call__(self, texts, anchors):
        pairs = zip(texts, anchors, strict=True)
        return np.array([0.0 - (len(text.split()) - len(anchor.split())) for text, anchor in pairs])


def test_quality_and_reward_are_told_against_the_item_whatever_text_one_went_on_from(agent):
    run, exploration = begin_with(dataclasses.replace(agent, quality=FewerWords()))
    for before in (0, 1):
        exploration = with_step(run, exploration, before, "you", "bring in the lantern.")
    told = text_told(run, exploration.texts[2], exploration.texts[1])
    values = {line["heading"]: line["values"] for line in told["terms"]}
    assert values["Quality"] == {TRAIN: [-1.0, -2.0]}  # one word more than the item has, then two
    reward = [utility - 2.0 * words for utility, words in zip(values["U"][TRAIN], (1, 2), strict=True)]
    assert values["Reward"][TRAIN] == pytest.approx(reward)
    assert {"Quality", "Reward"} <= {
        heading for heading, _ in term_headings(agent.scorers[TRAIN].settings, True).values()
    }
    assert "Quality" not in {heading for heading, _ in term_headings(agent.scorers[TRAIN].settings, False).values()}


def test_a_head_over_listed_actions_acts_in_the_place_of_the_policy(agent):
    listed = "bring in the orchard.", "bring in the glacier."
    user = agent.users.find(agent.evaluated[0][1])
    head = ActionHead(listed, np.stack([-user.embedding, user.embedding]))
    run, exploration = begin_with(dataclasses.replace(agent, chooser=head_chooser(head, {})))
    exploration = with_step(run, exploration, 0, "agent", "")
    exploration = with_step(run, with_step(run, exploration, 1, "agent", ""), 0, "agent", "")
    assert [text.action for text in exploration.texts[1:]] == [listed[1], listed[0], listed[1]]  # none twice on a way
    (episode,) = with_episode(run, exploration, "agent", None).episodes
    assert [text.action for text in episode.path] == [listed[1], listed[0]]


def test_of_episodes_that_are_all_worse_the_item_counts(agent):
    def spoils(prompt, rng):
        return "no text with blocks"

    environment = dataclasses.replace(agent.environment, generator=ScriptedGenerator(spoils))
    run, exploration = begin_with(dataclasses.replace(agent, environment=environment))
    exploration = with_episode(run, exploration, "agent", 3)
    (episode,) = exploration.episodes
    assert episode.path == () and episode.environment_calls > 0
    assert episode.malformed["environment:missing_block"] == episode.environment_calls
    assert len(exploration_csv(exploration).splitlines()) == 2  # the head, and the item's own text


def test_what_a_screen_would_act_on_is_told_in_all_of_a_value():
    assert made_visible({"a": ["\u202e", ("\x1b[2J", 1.5, None)]}) == {"a": ["\\u202e", ["\\x1b[2J", 1.5, None]]}
