"""What an OpenAI-compatible server answers, read with suspicion: bytes in, a generation out."""

from __future__ import annotations

import json
from typing import Any

from eagle_jax.data.prompts import Prompt
from eagle_jax.language_model.generation import Generation, chat_answer, cut_at_stop

# Reason -> stop reason; others ("abort", "error") say that the server gave up half-way.
_FINISHED = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "eos": "stop",  # Together
    "eos_token": "stop",  # Text Generation Inference, and the next
    "stop_sequence": "stop",
}
# A count beyond it is none: sums of such have to fit into SQLite's integers of 64 bits.
_MOST_TOKENS = 2**31


Tokens = tuple[int | None, int | None]  # of prompt and completion as the server counted them; None: it did not tell


class MalformedAnswer(ValueError):
    """An answer that holds no generation; `reason` is the kind, for counting.

    The tokens are those that the server counted nevertheless.
    """

    def __init__(self, reason: str, tokens: Tokens):
        super().__init__(reason)
        self.reason = reason
        self.tokens = tokens


def read_answer(body: bytes, prompt: Prompt, is_chat: bool) -> tuple[Generation, Tokens]:
    """The one choice of a chat completion or a completion, and its tokens.

    Raises MalformedAnswer with reason `not_json` (cut off, or more than one answer), `no_choices`,
    `several_choices` or `wrong_fields`.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswer("not_json", (None, None)) from error
    answer = answer if isinstance(answer, dict) else {}
    tokens = _tokens(answer.get("usage"))
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise MalformedAnswer("no_choices", tokens)
    if len(choices) > 1:
        raise MalformedAnswer("several_choices", tokens)
    try:
        return _to_generation(choices[0], prompt, is_chat), tokens
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MalformedAnswer("wrong_fields", tokens) from error


def _tokens(usage: Any) -> Tokens:
    """Prompt and completion tokens; whatever is no count is as if it had not been told."""
    usage = usage if isinstance(usage, dict) else {}
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    is_count = [type(count) is int and 0 <= count <= _MOST_TOKENS for count in counts]
    return tuple(counts) if all(is_count) else (None, None)


def _to_generation(choice: dict[str, Any], prompt: Prompt, is_chat: bool) -> Generation:
    # A server may stop without a text: nothing was left of max_new_tokens after thinking, or a
    # filter held it back. That is an answer; whoever asked counts it as malformed.
    text = (choice["message"]["content"] if is_chat else choice["text"]) or ""
    text = chat_answer(text, prompt.opening) if is_chat else prompt.answer_start.lstrip() + text
    text.encode()  # half a surrogate pair is legal in JSON, and in no text
    text, was_cut = cut_at_stop(text, prompt.stop)
    reason = choice["finish_reason"]
    if reason not in _FINISHED:
        raise ValueError(f"finish_reason is {reason!r}")
    # Where the cut was made here, it is not known between which tokens it lies.
    ids, log_probs = (None, None) if was_cut else (_ids(choice), _log_probs(choice, is_chat))
    return Generation(
        text=text, token_ids=ids, log_probs=log_probs, stop_reason="stop" if was_cut else _FINISHED[reason]
    )


def _ids(choice: dict[str, Any]) -> tuple[int, ...] | None:
    """The tokens that vLLM tells; None where it is anything else: the text is paid for."""
    told = choice.get("token_ids")
    is_good = isinstance(told, list) and all(type(token_id) is int for token_id in told)
    return tuple(told) if is_good else None


def _log_probs(choice: dict[str, Any], is_chat: bool) -> tuple[float, ...] | None:
    """One per token; None where there are none or one cannot be read."""
    told = choice.get("logprobs")
    try:
        if is_chat:
            values = [token["logprob"] for token in told["content"]]
        else:
            values = told["token_logprobs"]
        return tuple(map(float, values)) or None
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
