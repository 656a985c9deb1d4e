"""The grammar's answers to ELM's tasks: in known words, about the right film, and read back."""

import re

import numpy as np
import pytest

from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.data.minilens.task_corpus import READER_KINDS, reader_examples, reader_vocabulary
from eagle_jax.data.minilens.task_teacher import (
    BOTH_FILMS,
    answer_task,
    named_slots,
    read_film,
    share_recovered,
    target_film,
    task_slots,
    taste_of,
)
from eagle_jax.data.minilens.world import as_film, draw_films, draw_world
from eagle_jax.data.prompts import MalformedText, Prompt
from eagle_jax.data.tasks import PLACEHOLDERS, TASKS, read_teacher_prompt, teacher_prompt

COMPACT = [task for task in TASKS.values() if task.compact]
ABOUT_ONE = [task for task in COMPACT if task.num_texts == 1]
COMPARISONS = [TASKS[name] for name in ("similarities", "why_like_nn", "diff_than_nn", "common_with_nn")]
WESTERN = {slot: 0 for slot in grammar.SLOTS}
NOIR = {slot: 1 for slot in grammar.SLOTS}


@pytest.fixture(scope="module")
def film_words():
    """What the models know that embed texts: less than the reader."""
    return set(corpus.vocabulary())


@pytest.fixture(scope="module")
def reader_words():
    return set(reader_vocabulary())


@pytest.fixture(scope="module")
def examples():
    return {kind: reader_examples(kind, 150, 3) for kind in READER_KINDS}


def names(task):
    return task.name


def ask(task, films, seed=0):
    prompt = teacher_prompt("compact", task, [grammar.title_of(film) for film in films])
    return prompt, answer_task(prompt, np.random.default_rng(seed))


def draw_pair(rng):
    first, second = (as_film(film) for film in draw_films(2, rng))
    shared = rng.random(10) < 0.5
    return first, second | {s: first[s] for s, same in zip(first, shared, strict=True) if same}


@pytest.mark.parametrize("task", COMPACT, ids=names)
def test_answers_are_right_by_their_own_measure_and_in_known_words(task, film_words):
    rng = np.random.default_rng(1)
    for seed in range(20):
        films = [as_film(film) for film in draw_films(task.num_texts, rng)]
        if len(task.slots) == 2:
            films = draw_pair(rng)
        prompt, answer = ask(task, films, seed)
        assert share_recovered(prompt, answer) == 1.0
        assert set(corpus.split_words(answer)) <= film_words
        assert answer == ask(task, films, seed)[1] and "  " not in answer


@pytest.mark.parametrize("task", ABOUT_ONE, ids=names)
def test_an_answer_about_a_film_is_of_that_film(task):
    for seed, values in enumerate(draw_films(20, np.random.default_rng(2))):
        film = as_film(values)
        prompt, answer = ask(task, [film], seed)
        target = target_film(task, [film])
        assert task_slots(task, answer) == {slot: target[slot] for slot in named_slots(task)}
        changed = {slot for slot in film if film[slot] != target[slot]}
        assert changed <= {"genre", "tone", "theme", "ending", "music"}
        # Another film's answer is right where the two films agree, and nowhere else.
        other = {slot: (v + 1) % grammar.num_values(slot) for slot, v in target.items()}
        kept = {slot: film[slot] for slot in changed}
        assert share_recovered(prompt, answer_of(task, other | kept)) <= 0.4


def answer_of(task, film):
    return ask(task, [film])[1]


def test_nearly_all_tasks_name_nearly_all_slots():
    counts = {task.name: len(named_slots(task)) for task in ABOUT_ONE}
    assert counts["summary"] == counts["long_description"] == counts["improve"] == 10
    assert sorted(counts.values())[:4] == [5, 6, 7, 9]
    assert min(counts, key=counts.get) == "convince3"  # "briefly"


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("funnier", {"genre": "comedy", "tone": "playful", "ending": "happily"}),
        ("sadder", {"tone": "grim", "theme": "grief", "ending": "tragically"}),
        ("scarier", {"genre": "horror", "tone": "eerie", "ending": "surprisingly"}),
    ],
)
def test_a_changed_film_is_otherwise_the_same(task, changes):
    film = dict.fromkeys(grammar.SLOTS, 5)
    expected = film | {slot: grammar.word_values()[name][1] for slot, name in changes.items()}
    assert target_film(TASKS[task], [film]) == expected
    assert task_slots(TASKS[task], ask(TASKS[task], [film])[1]) == expected


def test_an_improved_film_is_liked_better_by_most():
    world = draw_world()
    films = draw_films(200, np.random.default_rng(3))
    better = [target_film(TASKS["improve"], [as_film(film)]) for film in films]
    better = np.array([[film[slot] for slot in grammar.SLOTS] for film in better])
    tastes = world.draw_tastes(2000, np.random.default_rng(4))
    before, after = (world.film_vectors(x) @ tastes.T for x in (films, better))
    assert (after.mean(axis=1) >= before.mean(axis=1) - 1e-9).mean() > 0.99
    assert after.mean() > before.mean() + 0.1


def test_an_interpolation_mixes_both_films():
    task = TASKS["interpolation"]
    prompt, answer = ask(task, [WESTERN, NOIR])
    found = task_slots(task, answer)
    assert [found[slot] for slot in grammar.SLOTS] == [0, 1] * 5
    for film, share in ((WESTERN, 1.0), (NOIR, 1.0), (dict.fromkeys(grammar.SLOTS, 2), 0.0)):
        assert share_recovered(prompt, answer_of(TASKS["summary"], film)) == share


@pytest.mark.parametrize("task", COMPARISONS, ids=names)
def test_comparisons_tell_what_is_shared_from_what_is_not(task):
    rng = np.random.default_rng(5)
    for seed in range(30):
        first, second = draw_pair(rng)
        prompt, answer = ask(task, [first, second], seed)
        shared = {slot: v for slot, v in first.items() if second[slot] == v}
        assert task_slots(task, answer).items() <= shared.items()
        if BOTH_FILMS in answer:
            assert len(task_slots(task, answer)) == min(3, len(shared))
        # The same words about the films the other way round are wrong where they differ.
        turned = ask(task, [second, first], seed)[0]
        if task.name == "diff_than_nn":
            assert share_recovered(turned, answer) == 0.0


def test_a_comparison_is_judged_by_worked_counts():
    first, second = WESTERN, NOIR | {"genre": 0, "tone": 0}  # two values are shared
    prompt, _ = ask(TASKS["common_with_nn"], [first, second])
    for text, share in (
        ("film a and film b: the western genre, the grim tone.", 1.0),
        ("film a and film b: the western genre.", 1 / 2),
        ("film a and film b: the western genre, the eerie tone.", 1 / 2),
        ("film a and film b: the western genre, the grim tone, the desert.", 2 / 3),
        ("film a: the western genre, the grim tone.", 0.0),
        ("", 0.0),
    ):
        assert share_recovered(prompt, text) == pytest.approx(share), text
    prompt, answer = ask(TASKS["common_with_nn"], [WESTERN, NOIR])
    assert answer == "film a is not as film b." and share_recovered(prompt, answer) == 1.0


def test_told_films_are_read_as_titles_are():
    rng = np.random.default_rng(6)
    film = as_film(draw_films(1, rng)[0])
    for dialect in grammar.DIALECTS:
        told = grammar.tell_film(grammar.draw_telling(film, dialect, rng))
        assert read_film(told) == read_film(grammar.title_of(film)) == film
        prompt = teacher_prompt("compact", TASKS["pitch"], [told])
        answer = answer_task(prompt, np.random.default_rng(0))
        assert answer == ask(TASKS["pitch"], [film])[1]


def test_a_user_s_taste_is_inferred_from_ten_titles():
    """As least squares on the augmented system infers it, and nearer to the true taste than the
    population's taste is."""
    world, rng = draw_world(), np.random.default_rng(7)
    tastes = world.draw_tastes(50, rng)
    inferred = []
    for taste in tastes:
        films = draw_films(60, rng)
        order = np.argsort(-(world.film_vectors(films) @ taste))
        films = films[np.concatenate([order[:5], order[-5:]])]
        titles = [grammar.title_of(as_film(film)) for film in films]
        prompt = teacher_prompt("compact", TASKS["user_profile"], titles)
        inferred.append(taste_of(read_teacher_prompt("compact", prompt)[1][0]))
    vectors = world.film_vectors(films)
    errors = np.repeat([1.0, -1.0], 5) - vectors @ world.mean_taste
    rows = np.concatenate([vectors / np.sqrt(0.5), np.eye(world.latent_width)])
    values = np.concatenate([errors / np.sqrt(0.5), np.zeros(world.latent_width)])
    expected = world.mean_taste + np.linalg.lstsq(rows, values)[0]
    np.testing.assert_allclose(inferred[-1], expected, atol=1e-9)
    ours, mean = (np.linalg.norm(guess - tastes, axis=1).mean() for guess in (np.array(inferred), world.mean_taste))
    assert ours < 0.9 * mean, (ours, mean)


def test_what_is_no_prompt_or_no_film_is_an_error():
    with pytest.raises(ValueError, match="not a prompt of the compact book"):
        answer_task(Prompt("hello #BEGIN_ANSWER", ("#END_ANSWER",), "#BEGIN_ANSWER"), None)
    for text in ("a western", f"{grammar.title_of(WESTERN)} noir"):
        with pytest.raises(MalformedText, match="not_a_film"):
            answer_task(teacher_prompt("compact", TASKS["summary"], [text]), None)


def test_a_text_that_contradicts_itself_names_no_value():
    found = task_slots(TASKS["summary"], "a grim western. it is playful, a frontier film.")
    assert found == {"genre": 0}


@pytest.mark.parametrize("kind", READER_KINDS)
def test_the_corpus_is_in_the_reader_s_words_and_the_seed_decides(kind, examples, reader_words):
    assert reader_examples(kind, 5, 3) == reader_examples(kind, 5, 3) != reader_examples(kind, 5, 4)
    for example in examples[kind]:
        text = f"{example.prompt.text} {example.completion}"
        words = corpus.split_words(re.sub(r"(#[A-Z_]+)\.", r"\1 .", text))
        assert set(words) <= reader_words
        assert example.completion.endswith(f" {example.prompt.stop[0]}")
        assert not set(words) & set(PLACEHOLDERS.values())


def test_every_compact_task_is_in_the_corpus(examples):
    asked = [example.prompt for of_kind in examples.values() for example in of_kind]
    found = {read_teacher_prompt("compact", prompt)[0].name for prompt in asked}
    assert found == {task.name for task in COMPACT}
