"""Settings of a model behind an OpenAI-compatible endpoint: vLLM, Gemini, OpenAI and others."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
from typing import Any, Literal

# Fields that the prompt and the sampling settings say, or that change what an answer is.
_NOT_TO_CHANGE = {
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "n", "best_of", "stream",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteBudget:
    """What one run of a program may ask for; None: no limit."""

    max_requests: int | None
    max_tokens: int | None  # of prompts and completions


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemotePrices:
    """Per million tokens, in any currency; None: not known."""

    prompt: float | None
    completion: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteSettings:
    """A model behind an endpoint.

    api_key_variable: the environment variable that holds the key; None: no key is sent.
    api: "chat" sends the prompt as the user's turn, "completion" as text to go on from.
    max_tokens_field: what the endpoint calls the limit of new tokens.
    request_fields: more fields of every request; None takes one of ours away.
    max_tries: requests for one row before the run gives up.
    backoff_seconds: the wait before the second try, doubled for each further one.
    max_wait_seconds: the longest wait; a server that asks for more ends the run.
    """

    base_url: str
    model: str
    api_key_variable: str | None
    api: Literal["chat", "completion"]
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"]
    request_fields: dict[str, Any]
    concurrency: int
    timeout_seconds: float
    max_tries: int
    backoff_seconds: float
    max_wait_seconds: float
    budget: RemoteBudget
    prices: RemotePrices

    def __post_init__(self):
        url = urllib.parse.urlsplit(self.base_url)
        if url.username or url.password or url.query:
            raise ValueError("base_url stands in reports: it must hold no password and no query")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"base_url must be like https://host/v1, got {self.base_url!r}")
        # Names are in upper case, keys are not: a key put here by mistake is not repeated.
        if self.api_key_variable is not None and not re.fullmatch(
            r"[A-Z_][A-Z0-9_]*", self.api_key_variable
        ):
            raise ValueError(
                "api_key_variable must be the name of an environment variable in upper case, "
                "never the key itself"
            )
        if wrong := sorted(_NOT_TO_CHANGE & self.request_fields.keys()):
            raise ValueError(f"request_fields must not change {', '.join(wrong)}")
        if min(self.concurrency, self.max_tries) < 1 or self.timeout_seconds <= 0:
            raise ValueError("concurrency, max_tries and timeout_seconds must be positive")
        if not 0 <= self.backoff_seconds <= self.max_wait_seconds:
            raise ValueError("backoff_seconds must be in [0, max_wait_seconds]")
