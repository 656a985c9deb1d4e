"""A generator for a scripted server, whose pauses between tries are recorded instead of waited."""

import threading
from pathlib import Path

import pytest

from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.remote.cache import GenerationCache
from eagle_jax.language_model.remote.client import RemoteGenerator
from eagle_jax.language_model.remote.settings import RemoteBudget, RemotePrices, RemoteSettings
from tests.language_model.counting_generator import prompts as prompts
from tests.language_model.remote.scripted_server import Asked, ScriptedServer, answer

pytest.importorskip("openai")

SAMPLING = SamplingSettings(temperature=0.5, top_k=0, top_p=0.9, max_new_tokens=8)


def texts(generations):
    return [generation.text.strip() for generation in generations]


def settings(server: ScriptedServer, **changes) -> RemoteSettings:
    budget = {"max_requests": None, "max_tokens": None} | changes.pop("budget", {})
    values = {
        "base_url": server.base_url,
        "model": "scripted",
        "api_key_variable": None,
        "api": "chat",
        "max_tokens_field": "max_tokens",
        "request_fields": {},
        "concurrency": 1,
        "timeout_seconds": 20.0,
        "max_tries": 3,
        "backoff_seconds": 1.0,
        "max_wait_seconds": 60.0,
        "prices": RemotePrices(prompt=2.0, completion=10.0),
    }
    return RemoteSettings(budget=RemoteBudget(**budget), **(values | changes))


def make(server: ScriptedServer, folder: Path, pauses: list | None = None, **changes):
    """A generator with its own connection to the cache in `folder`, as in a new process."""

    def pause(stop: threading.Event, seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)

    cache = GenerationCache(folder / "generations.sqlite")
    return RemoteGenerator(settings(server, **changes), cache, pause)


def ask(script, folder: Path, *asked: str, pauses: list | None = None, **changes):
    """What a new generator made of the texts, the generator, and the server."""
    with ScriptedServer(script) as server:
        generator = make(server, folder, pauses, **changes)
        return generator.generate(prompts(*asked), SAMPLING, seed=1), generator, server


def echo(asked: Asked, times: int):
    chat = asked.path.endswith("/chat/completions")
    return answer(f" {asked.prompt}/{asked.body['seed']} ", chat=chat)
