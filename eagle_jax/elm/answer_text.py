"""What a model answered to a task: read from between markers, or in a chat up to its last sentence's end."""

from __future__ import annotations

from eagle_jax.data.prompts import MalformedText
from eagle_jax.data.task_chats import TELLTALES, example_answers
from eagle_jax.data.tasks import ANSWER, CHAT
from eagle_jax.language_model.generation import Generation, parse_generation
from eagle_jax.language_model.written_text import copied_share, refuse_loop, sentence_ends, words_of

_FEWEST_WORDS = 6
_MOST_COPIED = 0.5  # of the runs of four words, from the text that was told
_MOST_OF_EXAMPLES = 0.25
_EXAMPLES = tuple(words_of(answer) for answer in example_answers())


def read_task_answer(book: str, generation: Generation) -> str:
    """The answer; raises `MalformedText`: of a chat no_sentence, where none comes to its end."""
    if book != CHAT:
        return parse_generation(generation, [ANSWER])[ANSWER]
    text = " ".join(generation.text.split()).strip('"“” ')
    ends = sentence_ends(text)
    if not ends:
        raise MalformedText("no_sentence", text[:80])
    return text[: ends[-1]]


def read_target(book: str, generation: Generation, told: str) -> str:
    """The answer of a teacher that was told `told`, good enough to learn from.

    Raises `MalformedText` as `read_task_answer`, and in a chat: too_short, loop, copy (of what it was told) or
    example (what only the examples tell).
    """
    text = read_task_answer(book, generation)
    if book != CHAT:
        return text
    answer, known = words_of(text), words_of(told)
    if len(answer) < _FEWEST_WORDS:
        raise MalformedText("too_short", text)
    refuse_loop(answer)
    if copied_share(answer, known) > _MOST_COPIED:
        raise MalformedText("copy", text[:80])
    strangers = TELLTALES.intersection(answer).difference(known)
    if strangers or copied_share(answer, *_EXAMPLES) > _MOST_OF_EXAMPLES:
        raise MalformedText("example", ", ".join(sorted(strangers)) or text[:80])
    return text
