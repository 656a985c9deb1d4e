"""What is read of an answer in plain chat, and what is not good enough to learn from, by its name."""

import pytest

from eagle_jax.data.prompts import MalformedText
from eagle_jax.data.task_chats import CHATS
from eagle_jax.elm.answer_text import read_target, read_task_answer
from eagle_jax.language_model.generation import Generation

PLOT = "A sheriff waits for a train while the people of his town close their doors one by one."


def wrote(text, why="stop"):
    return Generation(text=text, token_ids=None, log_probs=None, stop_reason=why)


def test_an_answer_ends_with_its_last_whole_sentence():
    assert (
        read_task_answer("chat", wrote(' "He waits.\nMr. Kane is alone. Then the', "length"))
        == "He waits. Mr. Kane is alone."
    )
    with pytest.raises(MalformedText) as error:
        read_task_answer("chat", wrote("He waits and waits and", "length"))
    assert error.value.reason == "no_sentence"
    # Between markers it counts as it is, where the marker came.
    assert read_task_answer("compact", wrote(" he waits ")) == "he waits"
    with pytest.raises(MalformedText) as error:
        read_task_answer("compact", wrote("he waits.", "length"))
    assert error.value.reason == "length"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A lonely man in a western town waits for those who want him dead.", None),
        ("He waits for them.", "too_short"),
        ("He waits for the train and he waits for the train and he waits for the train.", "loop"),
        ("A sheriff waits for a train while the people of his town are asleep.", "copy"),
        ("A sheriff falls in love with a sailor and leaves his town alone at noon.", "example"),
        ("I held my breath when the ship left, and so did all the town.", "example"),
        ("and the people of his town close", "no_sentence"),
    ],
)
def test_what_a_teacher_wrote_is_used_or_refused_by_name(text, reason):
    if reason is None:
        assert read_target("chat", wrote(text), PLOT) == text
        return
    with pytest.raises(MalformedText) as error:
        read_target("chat", wrote(text), PLOT)
    assert error.value.reason == reason


@pytest.mark.parametrize("name", CHATS)
def test_the_examples_answer_what_they_are_about_and_nothing_else(name):
    for told, answer in CHATS[name].examples:
        assert read_task_answer("chat", wrote(answer)) == answer
        with pytest.raises(MalformedText) as error:
            read_target("chat", wrote(answer), PLOT)
        assert error.value.reason == "example" and told
