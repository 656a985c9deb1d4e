"""How an environment is asked for a rewriting and how its answer is read: a table of formats.

Blocks that are empty in the text are neither shown nor demanded, and stay empty. Where the first block begins with
fields of the entity ("Genres: ... Plot: ..."), what a chat sees and writes is what stands behind them.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping

from eagle_jax.base.settings import setting, settings
from eagle_jax.data.prompts import (
    EntityFormat,
    MalformedText,
    Prompt,
    PromptBook,
    environment_prompt,
    full_blocks,
    parse_blocks,
    render_blocks,
)
from eagle_jax.eagle.roles.chat_words import SENTENCE, WHOLE, ChatWords, answer_start, chat_prompt
from eagle_jax.eagle.roles.signs import Sign
from eagle_jax.language_model.generation import Generation, chat_answer, parse_generation
from eagle_jax.language_model.written_text import copied_share, refuse_loop, sentence_ends, words_of

Blocks = Mapping[str, str]
_FIELDS = re.compile(r"(?:[A-Z]\w*: .*?)??(?:Plot|Description): ")
_LABEL = re.compile(r"(?:the )?(?:new |rewritten |changed )?(?:plot|sentence|description|answer)\s*:\s*", re.IGNORECASE)
_FEWEST_WORDS, _FEWEST_OWN_WORDS = 6, 4  # of an answer; of these behind the start that it was given


@settings
class RewriteSettings:
    """How environments are asked for a rewriting."""

    format: str = setting("The name of one of the formats.")
    max_tries: int = setting("So often one that cannot be read is asked for at most.", at_least=1)
    retry_temperature: float | None = setting(
        "Of the tries after the first one; None: as the first. A small model repeats its copies.",
        default=None,
        at_least=0,
        later=True,
    )
    signs_file: str | None = setting(
        "A CSV with the columns action and signs: an answer without a sign of its action counts as one that cannot be "
        "read; empty: the list of the package; None: no such check.",
        default=None,
    )
    fields_file: str | None = setting(
        "A CSV with the columns action, genres and year: what an answer to an action changes in the text's fields; "
        "empty: the list of the package; None: fields stay.",
        default=None,
    )

    def __post_init__(self):
        if self.format not in REWRITE_FORMATS:
            raise ValueError(f"format {self.format!r} is none of {', '.join(REWRITE_FORMATS)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewriteFormat:
    """A way of asking, and of reading what comes.

    ask: (book, entity format, the text's full blocks, action) -> prompt. read: (the same blocks, action, generation) ->
    the blocks that are written anew; raises `MalformedText`. words: of a chat.
    """

    ask: Callable[[PromptBook, EntityFormat, Blocks, str], Prompt]
    read: Callable[[Blocks, str, Generation], Blocks]
    words: ChatWords | None = None


def rewrite_prompt(name: str, book: PromptBook, entity_format: EntityFormat, description: str, action: str) -> Prompt:
    """What a model is asked so that it rewrites a marked text under an action."""
    blocks = full_blocks(description, entity_format.blocks)
    return REWRITE_FORMATS[name].ask(book, entity_format, blocks, action)


def read_rewriting(
    name: str,
    entity_format: EntityFormat,
    description: str,
    action: str,
    generation: Generation,
    sign: Sign | None = None,
) -> str:
    """The marked text that an answer makes of `description`: its blocks in their order, those that were empty too.

    Raises `MalformedText`; not_followed where there is a sign of the action and the answer has none.
    """
    rewrite_format = REWRITE_FORMATS[name]
    before = parse_blocks(description, entity_format.blocks, may_be_empty=True)
    full = {block: text for block, text in before.items() if text}
    after = rewrite_format.read(full, action, generation)
    if sign is not None and not is_followed(rewrite_format, sign, full, after, action):
        raise MalformedText("not_followed", action)
    return render_blocks(before | after)


def is_followed(rewrite_format: RewriteFormat, sign: Sign, before: Blocks, after: Blocks, action: str) -> bool:
    """Whether what was written into the first block has a new sign of the action."""
    (block, text), *_ = before.items()
    written = after[block].removeprefix(text).lstrip(". ")
    start = "" if rewrite_format.words is None else answer_start(rewrite_format.words, action)
    return sign.is_new(text, written, start)


def _ask_marked(
    count: int | None, book: PromptBook, entity_format: EntityFormat, blocks: Blocks, action: str
) -> Prompt:
    """The first `count` full blocks (None: all) are shown and demanded between their markers."""
    shown = dict(list(blocks.items())[:count])
    return environment_prompt(
        book, dataclasses.replace(entity_format, blocks=tuple(shown)), render_blocks(shown), action
    )


def _read_marked(count: int | None, blocks: Blocks, action: str, generation: Generation) -> Blocks:
    return parse_generation(generation, list(blocks)[:count])


def _ask_chat(words: ChatWords, book: PromptBook, entity_format: EntityFormat, blocks: Blocks, action: str) -> Prompt:
    return chat_prompt(words, entity_format, split_fields(next(iter(blocks.values())))[1], action)


def _read_whole(words: ChatWords, blocks: Blocks, action: str, generation: Generation) -> Blocks:
    """The answer is the new text; a copy shares nine in ten of its word sequences with the text before."""
    (block, text), *_ = blocks.items()
    fields, told = split_fields(text)
    return {block: fields + _checked(_last_end, 0.9, words, told, action, generation)}


def _read_sentence(words: ChatWords, blocks: Blocks, action: str, generation: Generation) -> Blocks:
    """The text stays, and the answer's first sentence goes on from it; a copy shares half of its word sequences."""
    (block, text), *_ = blocks.items()
    added = _checked(_first_end, 0.5, words, split_fields(text)[1], action, generation)
    ended = text if sentence_ends(text[-3:]) else f"{text}."
    return {block: f"{ended} {added}"}


def split_fields(text: str) -> tuple[str, str]:
    """What tells fields of the entity at the beginning of its text ("" without any), and what follows."""
    found = _FIELDS.match(text)
    return (found[0], text[found.end() :]) if found else ("", text)


def _first_end(text: str) -> int | None:
    """Behind the first sentence, and those after it that are needed for the fewest words; None: none ends."""
    ends = sentence_ends(text)
    return next((end for end in ends if len(words_of(text[:end])) >= _FEWEST_WORDS), ends[-1] if ends else None)


def _last_end(text: str) -> int | None:
    return max(sentence_ends(text), default=None)


def _checked(
    end_of: Callable[[str], int | None],
    most_copied: float,
    words: ChatWords,
    told: str,
    action: str,
    generation: Generation,
) -> str:
    """The answer, up to the sentence's end that counts.

    Raises `MalformedText`: no_sentence, too_short (or little more than the start that it was given), loop (a sequence
    of four words thrice), copy, example (what only the examples tell) or comment (on the text, not in it).
    """
    text = " ".join(chat_answer(generation.text, "").split()).strip('"“” ')
    text = _LABEL.sub("", text, count=1) if _LABEL.match(text) else text
    end = end_of(text)
    if end is None:
        raise MalformedText("no_sentence", text[:80])
    text, start = text[:end], words_of(answer_start(words, action))
    answer = words_of(text)
    if len(answer) < max(_FEWEST_WORDS, len(start) + _FEWEST_OWN_WORDS):
        raise MalformedText("too_short", text)
    refuse_loop(answer)
    if copied_share(answer, words_of(told)) > most_copied:
        raise MalformedText("copy", text[:80])
    own = set(answer[len(start) :]) - set(words_of(told))
    for reason, strangers in (("example", words.telltales - set(words_of(action))), ("comment", words.comments)):
        if found := strangers & own:
            raise MalformedText(reason, ", ".join(sorted(found)))
    return text


REWRITE_FORMATS: dict[str, RewriteFormat] = {
    "blocks": RewriteFormat(ask=functools.partial(_ask_marked, None), read=functools.partial(_read_marked, None)),
    "one_block": RewriteFormat(ask=functools.partial(_ask_marked, 1), read=functools.partial(_read_marked, 1)),
    "chat": RewriteFormat(
        ask=functools.partial(_ask_chat, WHOLE), read=functools.partial(_read_whole, WHOLE), words=WHOLE
    ),
    "edit": RewriteFormat(
        ask=functools.partial(_ask_chat, SENTENCE), read=functools.partial(_read_sentence, SENTENCE), words=SENTENCE
    ),
}
BLOCKS_ONCE = RewriteSettings(format="blocks", max_tries=1)
