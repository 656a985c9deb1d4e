"""Rows of HH-RLHF, of TRL's formats and of your own tables as preference examples.

Each function takes one row's values by name and raises ValueError ("<kind>: <particulars>") for
what cannot be used. Where a row has a chosen and a rejected response, they are responses 0 and 1.
"""

from collections.abc import Mapping
from typing import Any

from eagle_jax.data.preferences.dialogues import (
    PLAIN_LAYOUT,
    DialogueLayout,
    Turn,
    dialogue_turns,
    read_turns,
    split_at_common_prefix,
    split_at_common_turns,
    split_dialogue,
)
from eagle_jax.data.preferences.examples import MAX_RESPONSES, PreferenceExample
from eagle_jax.data.rows import text_value

Values = Mapping[str, Any]


class CountsFromZeroError(ValueError):
    """A label is 0: then every other label of its file is another response than it seems, too."""


_NUMBERED = {kind: {k: f"{kind}_{k}" for k in range(1, MAX_RESPONSES + 1)} for kind in ("response", "score")}


def hh_rlhf_example(values: Values, layout: DialogueLayout) -> PreferenceExample:
    """Two dialogues of HH-RLHF: the prompt ends with the last "\\n\\nAssistant:".

    In the plain layout prompt and response are together the dialogue, character for character.
    """
    prompt, chosen = split_dialogue(text_value(values, "chosen"))
    other_prompt, rejected = split_dialogue(text_value(values, "rejected"))
    if prompt != other_prompt:
        raise ValueError("dialogues differ before the last turn")
    if layout != PLAIN_LAYOUT:
        prompt = layout.prompt(dialogue_turns(prompt))
        chosen, rejected = (
            layout.reply_prefix + reply.removeprefix(PLAIN_LAYOUT.reply_prefix) for reply in (chosen, rejected)
        )
    return _of_pair(prompt, chosen, rejected)


def trl_example(values: Values, layout: DialogueLayout) -> PreferenceExample:
    """A row of TRL's preference formats: plain or conversational, prompt explicit or implicit.

    A plain row's responses continue its prompt as they stand. A prompt in another format than the
    responses is a copy of what they hold and not used, as in TRL's `maybe_extract_prompt`.
    """
    if isinstance(values["chosen"], str):
        return _plain_example(values)
    if given := [name for name in ("tools", "chat_template_kwargs") if values.get(name)]:
        raise ValueError(f"arguments of a chat template, which are not read: {', '.join(given)}")
    chosen, rejected = (read_turns(values[name], name) for name in ("chosen", "rejected"))
    prompt = values.get("prompt")
    if prompt is None or isinstance(prompt, str):
        turns, chosen, rejected = split_at_common_turns(chosen, rejected)
        if not turns:
            raise ValueError("no common prompt: chosen and rejected begin with different turns")
    else:
        turns = read_turns(prompt, "prompt")
    replies = (layout.reply_prefix + _reply(chosen), layout.reply_prefix + _reply(rejected))
    return _of_pair(layout.prompt(turns), *replies)


def table_example(values: Values) -> PreferenceExample:
    """A row of a table: prompt, and response_1 ... response_K or chosen and rejected.

    Empty responses are absent ones, so K may differ from row to row. score_1 ... score_K are
    optional; so is label, the number of the best response. Of K > 2 responses a label says only
    that one is better than all others: they are scored 1 and 0. A row without both waits for a
    rater.
    """
    prompt = text_value(values, "prompt")
    if "response_1" not in values:
        return _of_pair(prompt, text_value(values, "chosen"), text_value(values, "rejected"))
    numbers = _present(values, "response")
    scores = _scores(values, numbers)
    best = None if _is_absent(values, "label") else _best(values, numbers, scores)
    label = None
    if best is not None and len(numbers) == 2:
        label = (best, 1 - best)
    elif best is not None and scores is None:
        scores = tuple(float(place == best) for place in range(len(numbers)))
    return PreferenceExample(
        prompt=prompt, responses=tuple(text_value(values, f"response_{k}") for k in numbers), scores=scores, label=label
    )


def whole_number(values: Values, name: str) -> int:
    """A field as an int; ValueError if it is no whole number."""
    value = number(values, name)
    if not value.is_integer():
        raise ValueError(f"no whole number: {name} is {values[name]!r:.40}")
    return int(value)


def number(values: Values, name: str) -> float:
    """A field as a float, text of a number included; ValueError if it is none."""
    if isinstance(values[name], bool):
        raise ValueError(f"no number: {name} is {values[name]}")
    try:
        return float(values[name])
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"no number: {name} is {values[name]!r:.40}") from error


def _of_pair(prompt: str, chosen: str, rejected: str) -> PreferenceExample:
    return PreferenceExample(prompt=prompt, responses=(chosen, rejected), scores=None, label=(0, 1))


def _plain_example(values: Values) -> PreferenceExample:
    chosen, rejected = (text_value(values, name) for name in ("chosen", "rejected"))
    if chosen.startswith("[{"):
        raise ValueError("turns written as text: store them as lists, or as JSON lines")
    if isinstance(values.get("prompt"), str):
        return _of_pair(text_value(values, "prompt"), chosen, rejected)
    prompt, chosen, rejected = split_at_common_prefix(chosen, rejected)
    if not prompt.strip():
        raise ValueError("no common prompt: chosen and rejected begin differently")
    return _of_pair(prompt, chosen, rejected)


def _reply(turns: list[Turn]) -> str:
    """What the one turn says that follows the prompt; empty if there is none."""
    if len(turns) > 1 or any(turn["role"] != "assistant" for turn in turns):
        roles = ", ".join(turn["role"] for turn in turns)
        raise ValueError(f"reply that is not one turn of the assistant: {roles}")
    return turns[0]["content"] if turns else ""


def _is_absent(values: Values, name: str) -> bool:
    value = values.get(name)
    return value is None or (isinstance(value, str) and not value.strip())


def _present(values: Values, kind: str) -> list[int]:
    """The k of which the row has a response_k or score_k."""
    names = _NUMBERED[kind].items()
    return [k for k, name in names if name in values and not _is_absent(values, name)]


def _scores(values: Values, numbers: list[int]) -> tuple[float, ...] | None:
    """Scores of the responses `numbers`, [K]; None if the row has none."""
    scored = _present(values, "score")
    if not scored:
        return None
    if empty := sorted(set(scored) - set(numbers)):
        raise ValueError(f"empty response: response_{empty[0]}, and it has a score")
    if without := sorted(set(numbers) - set(scored)):
        raise ValueError(f"response without a score: response_{without[0]}")
    return tuple(number(values, f"score_{k}") for k in numbers)


def _best(values: Values, numbers: list[int], scores: tuple[float, ...] | None) -> int:
    """Place in `numbers` of the response that the label names."""
    label = whole_number(values, "label")
    if label == 0:
        raise CountsFromZeroError(
            "label is 0, but responses are numbered from 1 (response_1): add 1 to every label of "
            "the file, or leave a label empty where no response is the best"
        )
    if label not in numbers:
        raise ValueError(f"label out of range: {label}, the responses are {numbers}")
    place = numbers.index(label)
    if scores is not None and scores[place] < max(scores):
        raise ValueError(f"label contradicts the scores: {label} of {scores}")
    return place
