"""What the reader is pretrained on: ELM's tasks as texts, with films' titles or texts in the slots.

The reader is the decoder that ELM starts from, and the text-only model that is given names
(Tennenholtz et al. 2024, appendix F). It knows the two placeholders as words and has never seen
them used. Films and users are drawn afresh for each example.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eagle_jax.data.minilens import corpus, grammar
from eagle_jax.data.minilens.corpus import Example
from eagle_jax.data.minilens.task_teacher import answer_task
from eagle_jax.data.minilens.world import World, as_film, draw_film, draw_world, films_by_rating
from eagle_jax.data.prompts import Prompt, begin, end
from eagle_jax.data.tasks import ANSWER, PLACEHOLDERS, RATED_PER_SIDE, TASKS, Task, elm_prompt, teacher_prompt

_BOOK = "compact"
_WORDED = [task for task in TASKS.values() if task.compact]
_ABOUT_ONE = [task for task in _WORDED if len(task.slots) == 1 and not task.describes_user]
_ABOUT_TWO = [task for task in _WORDED if len(task.slots) == 2]


def film_title(world: World, rng: np.random.Generator) -> Prompt:
    """A task about a film that is known by its title."""
    return _ask(_ABOUT_ONE, [grammar.title_of(draw_film(rng))], rng)


def film_text(world: World, rng: np.random.Generator) -> Prompt:
    """A task about a film that is told, in either dialect."""
    dialect = grammar.DIALECTS[int(rng.integers(2))]
    text = grammar.tell_film(grammar.draw_telling(draw_film(rng), dialect, rng))
    return _ask(_ABOUT_ONE, [text], rng)


def film_pair(world: World, rng: np.random.Generator) -> Prompt:
    """A task about two films, known by their titles, that share from none to most of their values:
    random pairs and neighbors."""
    first, second = draw_film(rng), draw_film(rng)
    shared = rng.random(len(grammar.SLOTS)) < 0.8 * rng.random()
    second |= {slot: first[slot] for slot, same in zip(grammar.SLOTS, shared, strict=True) if same}
    return _ask(_ABOUT_TWO, [grammar.title_of(first), grammar.title_of(second)], rng)


def user(world: World, rng: np.random.Generator) -> Prompt:
    """A user told by films from the third rated highest and from the third rated lowest."""
    films = films_by_rating(world, world.draw_tastes(1, rng)[0], rng)
    third = len(films) // 3
    rated = [rng.choice(side, RATED_PER_SIDE, replace=False) for side in (films[:third], films[-third:])]
    titles = [grammar.title_of(as_film(film)) for film in np.concatenate(rated)]
    return teacher_prompt(_BOOK, TASKS["user_profile"], titles)


def _ask(tasks: list[Task], texts: list[str], rng: np.random.Generator) -> Prompt:
    return teacher_prompt(_BOOK, tasks[int(rng.integers(len(tasks)))], texts)


READER_KINDS: dict[str, Callable[[World, np.random.Generator], Prompt]] = {
    kind.__name__: kind for kind in (film_title, film_text, film_pair, user)
}


def reader_examples(kind: str, count: int, seed: int) -> list[Example]:
    """Fresh prompts of a kind with the teacher's answers; the same seed gives the same ones."""
    rng = np.random.default_rng([len(corpus.CORPUS_TASKS) + list(READER_KINDS).index(kind), seed])
    world = draw_world()
    prompts = [READER_KINDS[kind](world, rng) for _ in range(count)]
    return [Example(prompt, prompt.closed(answer_task(prompt, rng))) for prompt in prompts]


def reader_vocabulary() -> list[str]:
    """The words of the other models, those of the tasks' prompts, and the placeholders."""
    words = {*corpus.vocabulary(), *PLACEHOLDERS.values(), begin(ANSWER), end(ANSWER)}
    for task in _WORDED:
        words.update(corpus.split_words(elm_prompt(_BOOK, task).text))
    return sorted(words)
