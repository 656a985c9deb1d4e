"""What an OpenAI-compatible server answers, read with suspicion: bytes in, a generation out."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from eagle_jax.data.prompts import Prompt
from eagle_jax.language_model.generation import Generation, cut_at_stop, without_opening

# Others ("abort", "error") say that the server gave up half-way.
_FINISHED = ("stop", "length", "content_filter")


class Answer(NamedTuple):
    """A generation and its tokens as the server counted them (None: it did not tell)."""

    generation: Generation
    prompt_tokens: int | None
    completion_tokens: int | None


class MalformedAnswer(ValueError):
    """An answer that holds no generation; `reason` is the kind, for counting.

    The tokens are those that the server counted nevertheless.
    """

    def __init__(self, reason: str, tokens: tuple[int | None, int | None]):
        super().__init__(reason)
        self.reason = reason
        self.tokens = tokens


def read_answer(body: bytes, prompt: Prompt, is_chat: bool) -> Answer:
    """The one choice of a chat completion or a completion.

    Raises MalformedAnswer with reason `not_json` (cut off, or more than one answer), `no_choices`,
    `several_choices` or `wrong_fields`.
    """
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise MalformedAnswer("not_json", (None, None)) from error
    answer = answer if isinstance(answer, dict) else {}
    tokens = _tokens(answer.get("usage"))
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise MalformedAnswer("no_choices", tokens)
    if len(choices) > 1:
        raise MalformedAnswer("several_choices", tokens)
    try:
        return Answer(_to_generation(choices[0], prompt, is_chat), *tokens)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MalformedAnswer("wrong_fields", tokens) from error


def _tokens(usage: Any) -> tuple[int | None, int | None]:
    """Prompt and completion tokens; whatever is no count is as if it had not been told."""
    usage = usage if isinstance(usage, dict) else {}
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    is_count = [type(count) is int and count >= 0 for count in counts]
    return tuple(counts) if all(is_count) else (None, None)


def _to_generation(choice: dict[str, Any], prompt: Prompt, is_chat: bool) -> Generation:
    # A server may stop without a text: nothing was left of max_new_tokens after thinking, or a
    # filter held it back. That is an answer; whoever asked counts it as malformed.
    text = (choice["message"]["content"] if is_chat else choice["text"]) or ""
    if is_chat:
        text = without_opening(text, prompt.opening)
    text.encode()  # half a surrogate pair is legal in JSON, and in no text
    text, was_cut = cut_at_stop(text, prompt.stop)
    reason = choice["finish_reason"]
    if reason not in _FINISHED:
        raise ValueError(f"finish_reason is {reason!r}")
    ids, log_probs = choice.get("token_ids"), _log_probs(choice.get("logprobs") or {}, is_chat)
    return Generation(
        text=text,
        # Where the cut was made here, it is not known between which tokens it lies.
        token_ids=None if was_cut or ids is None else tuple(map(int, ids)),
        log_probs=None if was_cut else log_probs,
        stop_reason="stop" if was_cut else reason,
    )


def _log_probs(told: dict[str, Any], is_chat: bool) -> tuple[float, ...] | None:
    if is_chat and told.get("content"):
        return tuple(float(token["logprob"]) for token in told["content"])
    if not is_chat and told.get("token_logprobs"):
        return tuple(map(float, told["token_logprobs"]))
    return None
