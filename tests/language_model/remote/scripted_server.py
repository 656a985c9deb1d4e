"""An OpenAI-compatible server on loopback that answers, errs and breaks as a test tells it."""

from __future__ import annotations

import collections
import dataclasses
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANGS, RESETS = "hangs", "resets"


@dataclasses.dataclass(frozen=True)
class Reply:
    """What goes over the wire; `cut`: the connection ends that many bytes too early."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cut: int = 0


def answer(text: str, *, chat: bool = True, prompt_tokens: int = 10, completion_tokens: int = 5):
    """A complete answer as OpenAI's API has it, for tests to spoil."""
    content = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return {
        "id": "answer-1",
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": "scripted",
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, **content}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request: its path, headers in lower case, and JSON body."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        if "prompt" in self.body:
            return self.body["prompt"]
        (message,) = self.body["messages"]
        assert message["role"] == "user"
        return message["content"]


class ScriptedServer:
    """Serves while in a `with`, on a free port for 0; `script(asked, times)` decides about each request.

    times: how often this prompt and seed were asked for before. The script gives, or always is, an answer (a
    dict), a `Reply`, HANGS (says nothing until the server ends) or RESETS (the connection).
    """

    def __init__(
        self, script: Callable[[Asked, int], dict[str, Any] | Reply | str] | dict[str, Any] | Reply | str, port: int = 0
    ):
        self.script = script if callable(script) else lambda asked, times: script
        self.asked: list[Asked] = []
        self._times: collections.Counter[str] = collections.Counter()
        self.max_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def prompts(self) -> list[str]:
        """The prompts of all requests, in the order in which they came."""
        return [asked.prompt for asked in self.asked]

    def forget(self) -> None:
        """As if nothing had been asked yet."""
        with self._lock:
            self.asked.clear()
            self._times.clear()

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                owner._serve(self, Asked(self.path, headers, body))

            def log_message(self, *_):
                pass

        return Handler

    def _serve(self, handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        with self._lock:
            same = json.dumps(asked.body, sort_keys=True)
            times = self._times[same]
            self._times[same] += 1
            self.asked.append(asked)
            self._in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self._in_flight)
        reply = self.script(asked, times)
        with self._lock:
            self._in_flight -= 1
        if reply == HANGS:
            self._ends.wait()
            handler.close_connection = True
        elif reply == RESETS:
            # No lingering: the client reads "connection reset" rather than an end.
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.connection.close()
            handler.close_connection = True
        else:
            _send(handler, reply if isinstance(reply, Reply) else Reply(json.dumps(reply).encode()))


def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    handler.send_response(reply.status)
    for name, value in {"content-type": "application/json", **reply.headers}.items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(reply.body)))
    handler.end_headers()
    handler.wfile.write(reply.body[: len(reply.body) - reply.cut])
    handler.close_connection = reply.cut > 0
