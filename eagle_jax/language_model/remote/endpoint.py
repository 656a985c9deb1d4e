"""One request to an OpenAI-compatible endpoint: a prompt out, an answer or a reason back."""

from __future__ import annotations

import base64
import email.utils
import ipaddress
import os
import re
import string
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

from eagle_jax.base.errors import UserError, visible
from eagle_jax.data.preferences.dialogues import turns_and_start
from eagle_jax.data.prompts import Prompt
from eagle_jax.language_model.generation import Generation, SamplingSettings
from eagle_jax.language_model.remote.answers import MalformedAnswer, Tokens, read_answer
from eagle_jax.language_model.remote.cache import ANSWERED
from eagle_jax.language_model.remote.settings import RemoteSettings

_TRY_AGAIN = frozenset({408, 409, 425, 429})  # and every 5xx
_EXCERPT = 300  # characters that an error repeats of what a server said
_PIECE = 8  # characters of a key that tell too much of it
_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Attempt(NamedTuple):
    """What became of one request.

    outcome: `ANSWERED`, or why there is no generation; final: asking again would not help.
    detail: what the server or the system said; retry_after: the seconds it asks to wait.
    """

    outcome: str
    generation: Generation | None
    tokens: Tokens
    detail: str = ""
    retry_after: float = 0.0
    final: bool = False


class Endpoint:
    """A client of the official `openai` package; it may be used by many threads."""

    def __init__(self, settings: RemoteSettings):
        try:
            import openai
        except ImportError as error:
            raise UserError(
                "remote language models need the package openai: pip install 'eagle_jax[remote]' "
                "(with launch/run.sh: EAGLE_EXTRAS=remote)"
            ) from error
        self._settings = settings
        self._errors = openai
        self._key = _read_key(settings.api_key_variable)
        host = urllib.parse.urlsplit(settings.base_url).hostname
        client = openai.OpenAI(
            # Without a key in the settings, the one in OPENAI_API_KEY is none of this server's.
            api_key=self._key or "none",
            base_url=settings.base_url,
            timeout=settings.timeout_seconds,
            max_retries=0,  # they are counted, so they are made by whoever asks
            http_client=openai.DefaultHttpxClient(
                # A proxy cannot reach this machine's own servers.
                trust_env=not _is_loopback(host),
                # Nobody but the server in the settings gets the prompt.
                follow_redirects=False,
            ),
        )
        of_api = client.chat.completions if settings.api == "chat" else client.completions
        self._create = of_api.with_raw_response.create

    def ask(self, prompt: Prompt, sampling: SamplingSettings, seed: int) -> Attempt:
        """One request, one attempt. Nothing that is returned or raised holds the key."""
        try:
            response = self._create(**self._fields(prompt, sampling, seed))
        except self._errors.APITimeoutError:
            seconds = self._settings.timeout_seconds
            return Attempt("timeout", None, (None, None), f"no answer within {seconds:g} s")
        except self._errors.APIConnectionError as error:
            detail = self._excerpt(str(error.__cause__ or error))
            return Attempt("connection", None, (None, None), detail)
        except self._errors.APIStatusError as error:
            return self._refused(error)
        try:
            generation, tokens = read_answer(response.content, prompt, self._settings.api == "chat")
        except MalformedAnswer as error:
            detail = self._excerpt(response.content.decode(errors="replace"))
            return Attempt(error.reason, None, error.tokens, detail)
        return Attempt(ANSWERED, generation, tokens)

    def _fields(self, prompt: Prompt, sampling: SamplingSettings, seed: int) -> dict[str, Any]:
        """The arguments of `create`: fields that every server has, all others in extra_body."""
        settings = self._settings
        own: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            # Not every server knows these.
            "top_k": sampling.top_k or None,
            "min_p": sampling.min_p or None,
            "repetition_penalty": None if sampling.repetition_penalty == 1 else sampling.repetition_penalty,
            settings.max_tokens_field: sampling.max_new_tokens,
            "stop": list(prompt.stop),
            "seed": seed,
        }
        more = own | settings.request_fields
        asked: dict[str, Any] = {"prompt": prompt.text + prompt.answer_start}
        if settings.api == "chat":  # in which nobody begins the server's answer
            asked = {"messages": turns_and_start(prompt.text)[0]}
        kept = {name: value for name, value in more.items() if value is not None}
        return {"model": settings.model, **asked, "extra_body": kept}

    def _refused(self, error: Any) -> Attempt:
        """The server answered with an error status: it did nothing, so no tokens were spent."""
        status = error.status_code
        told = error.response.text
        if 300 <= status < 400:
            place = error.response.headers.get("location", "nowhere")
            told = f"it sends on to {place}, where nothing is sent; if that is right, set base_url"
        no_credit = error.code == "insufficient_quota"  # OpenAI's 429 that no waiting mends
        return Attempt(
            f"http_{status}",
            None,
            (0, 0),
            self._excerpt(told),
            _retry_after(error.response.headers),
            final=no_credit or not (status in _TRY_AGAIN or status >= 500),
        )

    def _excerpt(self, text: str) -> str:
        """What somebody else wrote, short, on one line, and without the key."""
        text = visible(" ".join(text.split()))[: 20 * _EXCERPT]
        return (_without_key(text, self._key) if self._key else text)[:_EXCERPT]


def _without_key(text: str, key: str) -> str:
    """`text` with "***" for whatever tells `_PIECE` characters of the key or more: as they are, in
    upper or lower case, backwards, or as JSON, URLs, hexadecimal digits or Base64 spell them."""
    data = key.encode()
    forms = {
        key,
        key[::-1],
        urllib.parse.quote(key, safe=""),
        data.hex(),
        "".join(f"%{byte:02x}" for byte in data),
        "".join(f"\\u{byte:04x}" for byte in data),
    }
    # Base64 depends on how many bytes, modulo 3, are ahead; its ends on what is beside it.
    forms |= {base64.b64encode(bytes(n) + data)[2 * n : -4].decode() for n in range(3)}
    lower, kept = text.translate(_TO_LOWER), list(text)
    for form in filter(None, forms):
        size = min(len(form), _PIECE * max(1, len(form) // len(key)))
        for start in range(len(form) - size + 1):
            piece = form[start : start + size].translate(_TO_LOWER)
            place = lower.find(piece)
            while place >= 0:
                kept[place : place + size] = "\0" * size
                place = lower.find(piece, place + 1)
    return re.sub("\0+", "***", "".join(kept))


def _read_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"the environment variable {variable} has to hold the API key; it is empty")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"the environment variable {variable} holds something that is no API key")
    return key


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait (a number or a date), 0 where it does not."""
    told = headers.get("retry-after", "")
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(told).timestamp() - time.time()
        except ValueError:
            seconds = 0.0
    return max(seconds, 0.0)
