"""Dialogues as text and as turns, and where the reply to be judged begins.

A turn is a mapping of "role" and "content", as chat templates take it.
"""

import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eagle_jax.data.rows import text_value

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"  # how HH-RLHF opens a turn
_OPENINGS = {"system": "\n\nSystem:", "user": HUMAN, "assistant": ASSISTANT}
_OPENING = re.compile("|".join(_OPENINGS.values()))
Turn = Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DialogueLayout:
    """How turns become a prompt, and what a reply begins with.

    `prompt` gives all that stands before the reply, its opening included. What it raises as
    ValueError makes a bad row.
    """

    prompt: Callable[[Sequence[Turn]], str]
    reply_prefix: str


def plain_prompt(turns: Sequence[Turn]) -> str:
    """HH-RLHF's own layout: "\\n\\nHuman: ...\\n\\nAssistant: ... \\n\\nAssistant:".

    `dialogue_turns` gives the turns again.
    """
    for turn in turns:
        if turn["role"] not in _OPENINGS:
            raise ValueError(f"unknown role: {turn['role']}")
        if _OPENING.search(turn["content"]):
            raise ValueError(f"turn that holds the opening of another: {turn['content']!r:.40}")
    text = "".join(f"{_OPENINGS[turn['role']]} {turn['content']}" for turn in turns)
    return text + ASSISTANT


def dialogue_turns(prompt: str) -> list[Turn] | None:
    """The turns of a prompt in the layout of `plain_prompt`; None for any other text."""
    openings = list(_OPENING.finditer(prompt))
    if not openings or openings[0].start() or not prompt.endswith(ASSISTANT):
        return None
    roles = {opening: role for role, opening in _OPENINGS.items()}
    return [
        {"role": roles[opening[0]], "content": prompt[opening.end() : following.start()].removeprefix(" ")}
        for opening, following in itertools.pairwise(openings)
    ]


def turns_and_start(prompt: str) -> tuple[list[Turn], str]:
    """What a chat is asked by a prompt: the turns of a dialogue, and what stands behind its last
    "\\n\\nAssistant:", with which the answer begins; any other text is the user's turn."""
    before, opening, start = prompt.rpartition(ASSISTANT)
    turns = None if _OPENING.search(start) else dialogue_turns(before + opening)
    return ([{"role": "user", "content": prompt}], "") if turns is None else (turns, start.lstrip(" "))


PLAIN_LAYOUT = DialogueLayout(prompt=plain_prompt, reply_prefix=" ")


def split_dialogue(dialogue: str) -> tuple[str, str]:
    """(prompt up to and including the last "\\n\\nAssistant:", reply); together the dialogue.

    Raises ValueError for a dialogue that does not begin with a Human turn, has no Assistant turn,
    or ends with a Human turn.
    """
    if not dialogue.startswith(HUMAN):
        raise ValueError(f"dialogue does not begin with Human's turn: {dialogue!r:.40}")
    before, opening, reply = dialogue.rpartition(ASSISTANT)
    if not opening:
        raise ValueError("dialogue without Assistant's turn")
    if HUMAN in reply:
        raise ValueError(f"dialogue ends with Human's turn: {reply[reply.rindex(HUMAN) :]!r:.60}")
    return before + opening, reply


def split_at_common_prefix(chosen: str, rejected: str) -> tuple[str, str, str]:
    """(prompt, chosen reply, rejected reply): what both texts begin with, and how they go on.

    The prompt is the longest common prefix cut where a word begins, without the space before it.
    TRL's `extract_prompt` (trl.data_utils) cuts the same but within words: of "is green" and "is
    gray" it makes the replies "een" and "ay", here they are " green" and " gray".
    """
    end = len(os.path.commonprefix((chosen, rejected)))
    if any(end < len(text) and text[end].isalnum() for text in (chosen, rejected)):
        while end and chosen[end - 1].isalnum():
            end -= 1
    if end and chosen[end - 1] == " ":
        end -= 1
    return chosen[:end], chosen[end:], rejected[end:]


def read_turns(value: Any, name: str) -> list[Turn]:
    """Turns as they stand in a row; ValueError if they are no turns of text."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"no turns: {name} is {value!r:.40}")
    turns = []
    for turn in value:
        if not isinstance(turn, Mapping) or not {"role", "content"} <= set(turn):
            raise ValueError(f"turn without role and content: {name} has {turn!r:.40}")
        if turn.get("tool_calls"):
            raise ValueError(f"turn that calls tools, which are not read: {name} has {turn!r:.40}")
        turns.append({key: text_value(turn, key) for key in ("role", "content")})
    return turns


def split_at_common_turns(
    chosen: Sequence[Turn], rejected: Sequence[Turn]
) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """(prompt, chosen reply, rejected reply): the turns that both begin with, and the others."""
    same = [a == b for a, b in zip(chosen, rejected, strict=False)]
    end = same.index(False) if False in same else len(same)
    return list(chosen[:end]), list(chosen[end:]), list(rejected[end:])
