"""A program that renders chat templates: one request a line on standard input, an answer each.

A template is other people's program. The sandbox of `transformers` keeps it from files and from the
interpreter, but lets it run for ever and fill the memory; so it runs in a process of its own, which
limits its memory and may be killed. Arguments: bytes that it may take, the day that it sees.
"""

from __future__ import annotations

import datetime
import json
import resource
import sys
from pathlib import Path


def limit_memory(num_bytes: int) -> None:
    """So many bytes beyond what is taken now, where the system tells (Linux)."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        taken = int(statm.read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (taken + num_bytes, hard))


def answer_requests(num_bytes: str, day: str) -> None:
    from transformers.utils import chat_template_utils

    class FixedTime(datetime.datetime):
        """`strftime_now` of a template: a prompt must not change while a run goes on."""

        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.fromisoformat(day)

    chat_template_utils.datetime = FixedTime
    limit_memory(int(num_bytes))
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            texts, _ = chat_template_utils.render_jinja_template(**json.loads(line))
            answer = {"text": texts[0]}
        except BaseException as error:  # a template may fail with whatever its expressions raise
            answer = {"error": type(error).__name__, "message": str(error)[:1000]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    answer_requests(*sys.argv[1:])
