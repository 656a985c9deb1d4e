"""Tasks as a chat: the teacher sees texts behind examples, an ELM a placeholder, and examples are not told again."""

import pytest

from eagle_jax.data.preferences.dialogues import dialogue_turns
from eagle_jax.data.task_chats import CHATS, behind_example
from eagle_jax.data.tasks import PLACEHOLDERS, TASKS, elm_prompt, teacher_prompt

TOLD = "Genres: Western. Plot: A sheriff waits for a train."
every_task = pytest.mark.parametrize("task", [TASKS[name] for name in CHATS], ids=list(CHATS))


def asked(task):
    return teacher_prompt("chat", task, [f"{TOLD} {place}" for place in range(task.num_texts)])


@every_task
def test_the_teacher_is_asked_behind_the_examples_of_the_task(task):
    chat, prompt = CHATS[task.name], asked(task)
    turns = dialogue_turns(prompt.text)
    assert [turn["role"] for turn in turns] == ["system", *["user", "assistant"] * len(chat.examples), "user"]
    assert [turn["content"] for turn in turns[2::2]] == [answer for _, answer in chat.examples]
    assert all(turn["content"].endswith(f"\n{chat.request}") for turn in turns[1::2])
    shown = turns[-1]["content"]
    assert all(f"{TOLD} {place}" in shown for place in range(task.num_texts))
    assert (prompt.answer_start.lstrip(), prompt.stop, prompt.opening) == (chat.start, ("\n",), "")
    assert all(answer.startswith(chat.start) for _, answer in chat.examples)


@every_task
def test_an_elm_is_asked_the_same_about_a_placeholder_and_begins_itself(task):
    prompt = elm_prompt("chat", task)
    _, turn = dialogue_turns(prompt.text)
    last = dialogue_turns(asked(task).text)[-1]["content"]
    (placeholder,) = (PLACEHOLDERS[kind] for kind in task.slots)
    noun, told = last.partition(": ")[0], last.partition(": ")[2].rpartition("\n")[0]
    assert turn["content"] == last.replace(told, placeholder) and turn["content"].startswith(f"{noun}: ")
    assert prompt.answer_start == "" and prompt.closed("It is.") == "It is. \n"


def test_a_buyer_is_no_viewer_of_films():
    text = teacher_prompt("chat", TASKS["amazon_user_profile"], list("abcdefghij")).text
    assert "Human: Buyer: likes a;" in text and "film" not in text.lower() and "viewer" not in text.lower()


def test_a_user_is_told_by_both_sides():
    text = teacher_prompt("chat", TASKS["user_profile"], list("abcdefghij")).text
    assert "\n\nHuman: Viewer: likes a; b; c; d; e. Dislikes f; g; h; i; j.\n" in text


def test_a_long_text_is_cut_and_its_lines_are_one():
    words = [f"w{place}" for place in range(200)]
    turn = dialogue_turns(teacher_prompt("chat", TASKS["summary"], ["\n\n".join(words)]).text)[-1]
    assert turn["content"].splitlines()[0] == f"Film: {' '.join(words[:90])}"


def test_one_more_example_stands_before_the_question():
    plain, example = (teacher_prompt("chat", TASKS["pitch"], [text]) for text in ("Basalt", "Copper"))
    prompt = behind_example(plain, example, "Imagine\ncopper.")
    turns, before = dialogue_turns(prompt.text), dialogue_turns(plain.text)
    assert turns[: len(before) - 1] == before[:-1] and turns[-1] == before[-1]
    assert [turn["content"].splitlines()[0] for turn in turns[-3:]] == [
        "Film: Copper",
        "Imagine copper.",
        "Film: Basalt",
    ]
    assert prompt.answer_start == plain.answer_start == " Imagine"
