"""Settings of a model behind an OpenAI-compatible endpoint: vLLM, Gemini, OpenAI and others."""

from __future__ import annotations

import re
import urllib.parse
from typing import Any, Literal

from eagle_jax.base.settings import setting, settings

# Fields that the prompt and the sampling settings say, or that change what an answer is.
_NOT_TO_CHANGE = {"model", "messages", "prompt", "max_tokens", "max_completion_tokens", "n", "best_of", "stream"}


@settings
class RemoteBudget:
    """What one run of a program may ask for; None: no limit."""

    max_requests: int | None = setting("Requests, retries among them.", at_least=0)
    max_tokens: int | None = setting("Of prompts and completions.", at_least=0, at_most=2**53, unit="tokens")


@settings
class RemotePrices:
    """Per million tokens, in any currency; None: not known."""

    prompt: float | None = setting("Of what is sent.", at_least=0, unit="per million tokens")
    completion: float | None = setting("Of the answer.", at_least=0, unit="per million tokens")


@settings
class RemoteSettings:
    """A model behind an endpoint."""

    base_url: str = setting("Like https://host/v1.")
    model: str = setting("The endpoint's name of it.")
    api_key_variable: str | None = setting("The environment variable that holds the key; None: no key is sent.")
    api: Literal["chat", "completion"] = setting(
        "chat sends the prompt as the user's turn, completion as text to go on from."
    )
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = setting(
        "What the endpoint calls the limit of new tokens."
    )
    request_fields: dict[str, Any] = setting("More fields of every request; None takes one of ours away.")
    concurrency: int = setting("Requests at a time.", at_least=1)
    timeout_seconds: float = setting("The longest wait for one answer.", above=0, unit="s")
    max_tries: int = setting("Requests for one row before the run gives up.", at_least=1)
    backoff_seconds: float = setting(
        "The wait before the second try, doubled for each further one.", at_least=0, unit="s"
    )
    max_wait_seconds: float = setting(
        "The longest wait; a server that asks for more ends the run.", at_least=0, unit="s"
    )
    budget: RemoteBudget
    prices: RemotePrices

    def __post_init__(self):
        url = urllib.parse.urlsplit(self.base_url)
        if url.username or url.password or url.query:
            raise ValueError("base_url stands in reports: it must hold no password and no query")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"base_url must be like https://host/v1, got {self.base_url!r}")
        # Names are in upper case, keys are not: a key put here by mistake is not repeated.
        if self.api_key_variable is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_variable):
            raise ValueError(
                "api_key_variable must be the name of an environment variable in upper case, never the key itself"
            )
        if wrong := sorted(_NOT_TO_CHANGE & self.request_fields.keys()):
            raise ValueError(f"request_fields must not change {', '.join(wrong)}")
        if self.backoff_seconds > self.max_wait_seconds:
            raise ValueError("backoff_seconds must be at most max_wait_seconds")
