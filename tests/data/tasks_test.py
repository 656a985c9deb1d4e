"""The table of ELM's tasks is whole, and one row asks both the teacher and ELM."""

import re

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import cut_spans
from eagle_jax.data.tasks import PLACEHOLDERS, TASKS, elm_prompt, find_task, read_teacher_prompt, teacher_prompt

# Table 2 of the paper (24 tasks), its user profile, and table 3.
MOVIE = (
    "summary positive_review negative_review neutral_review five_positive_characteristics "
    "five_negative_characteristics long_description funnier sadder scarier improve movie_to_viewer "
    "pitch criticize convince1 convince2 convince3 dissuade1 dissuade2 similarities interpolation "
    "why_like_nn diff_than_nn common_with_nn"
)
AMAZON = "description positive_review negative_review neutral_review endorsement user_profile"
BOOKS = ("compact", "detailed")  # with markers; `task_chats_test` has the third
ROWS = [(task, book) for task in TASKS.values() for book in BOOKS if task.group != "amazon" or book == "detailed"]
every_prompt = pytest.mark.parametrize(("task", "book"), ROWS, ids=[f"{task.name}-{book}" for task, book in ROWS])


def texts_of(task):
    return [f"title {i}" for i in range(task.num_texts)]


def test_all_tasks_of_the_paper_are_there():
    movie = MOVIE.split()
    assert len(movie) == 24
    amazon = [f"amazon_{name}" for name in AMAZON.split()]
    assert list(TASKS) == [*movie, "user_profile", *amazon]
    assert all(TASKS[name].group == "movie" for name in movie)


def test_pairs_are_drawn_as_the_names_say():
    partners = {name: task.partner for name, task in TASKS.items() if len(task.slots) == 2}
    assert partners == {
        "similarities": "random",
        "interpolation": "random",
        "why_like_nn": "nearest",
        "diff_than_nn": "nearest",
        "common_with_nn": "nearest",
    }
    assert all(task.partner == "none" for task in TASKS.values() if len(task.slots) == 1)
    of_users = [task.name for task in TASKS.values() if task.slots == ("behavioral",)]
    assert of_users == ["user_profile", "amazon_user_profile"]


@every_prompt
def test_slots_of_the_wording_are_those_of_the_row(task, book):
    numbers = [int(number) for number in re.findall(r"\{(\d)\}", task.wording(book))]
    assert numbers == list(range(len(task.slots)))
    prompt = elm_prompt(book, task)
    found = re.findall("<(?:item|user)>", prompt.text)
    assert found == [PLACEHOLDERS[kind] for kind in task.slots]
    assert prompt.text.endswith(prompt.opening) and prompt.stop == ("#END_ANSWER",)


@every_prompt
def test_teacher_and_elm_are_asked_the_same(task, book):
    asked = teacher_prompt(book, task, texts_of(task))
    shown = read_teacher_prompt(book, asked)
    assert shown[0] is task and len(shown[1]) == len(task.slots)
    text = asked.text
    for in_slot, kind in zip(shown[1], task.slots, strict=True):
        text = text.replace(in_slot, PLACEHOLDERS[kind])
    assert text == elm_prompt(book, task).text


@pytest.mark.parametrize("book", BOOKS)
def test_no_two_prompts_are_alike(book):
    texts = [elm_prompt(book, task).text for task, of_book in ROWS if of_book == book]
    assert len(set(texts)) == len(texts) == {"compact": 25, "detailed": 31}[book]


def test_a_told_film_may_stand_in_a_slot_and_its_plot_be_cut():
    told = "#BEGIN_PLOT a long story. #END_PLOT #BEGIN_REASONS_TO_LIKE x #END_REASONS_TO_LIKE"
    prompt = teacher_prompt("compact", TASKS["summary"], [told])
    assert read_teacher_prompt("compact", prompt)[1] == (told,)
    assert [prompt.text[start:end].strip() for start, end in cut_spans(prompt)] == ["a long story."]


def test_a_user_is_told_by_five_liked_and_five_disliked():
    prompt = teacher_prompt("detailed", TASKS["user_profile"], list("abcdefghij"))
    assert "#BEGIN_LIKED a; b; c; d; e #END_LIKED" in prompt.text
    assert "#BEGIN_DISLIKED f; g; h; i; j #END_DISLIKED" in prompt.text
    # A title is quoted, so that it closes no block.
    titles = ["x #END_LIKED", *"bcdefghij"]
    text = teacher_prompt("detailed", TASKS["user_profile"], titles).text
    assert text.count("#END_LIKED") == 1


def test_faults_are_named():
    with pytest.raises(UserError, match="no task 'sumary': expected one of summary, .*pitch"):
        find_task("sumary")
    with pytest.raises(UserError, match="no book of tasks 'short': expected one of compact"):
        elm_prompt("short", TASKS["summary"])
    with pytest.raises(UserError, match="'amazon_endorsement' has no compact wording"):
        elm_prompt("compact", TASKS["amazon_endorsement"])
    with pytest.raises(UserError, match="'similarities' has no chat wording: use another prompt book"):
        elm_prompt("chat", TASKS["similarities"])
    with pytest.raises(ValueError, match="similarities: expected 2 texts, got 1"):
        teacher_prompt("compact", TASKS["similarities"], ["a"])
    with pytest.raises(ValueError, match="not a prompt of the detailed book"):
        read_teacher_prompt("detailed", elm_prompt("compact", TASKS["summary"]))
