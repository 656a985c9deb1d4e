"""A prompt as the user's turn of a chat, by the Jinja template of a checkpoint's tokenizer."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from eagle_jax.base.errors import UserError
from eagle_jax.data.preferences.dialogues import turns_and_start

_DEFAULT = "default"
_SECONDS, _BYTES = 10, 2**30  # that a template may take


class ChatTemplateError(UserError):
    """A checkpoint's chat template cannot be read or rendered."""


class ChatTemplate:
    """The templates of a checkpoint by name, of which the one called "default" is rendered.

    `transformers` renders it, in a process of its own with limits of time and memory.
    """

    def __init__(self, folder: Path, templates: str | Mapping[str, str], special_tokens: Mapping[str, str]):
        self.folder = folder
        self.special_tokens = dict(special_tokens)
        self.templates = templates if isinstance(templates, Mapping) else {_DEFAULT: templates}
        if not isinstance(self.templates.get(_DEFAULT), str):
            raise ChatTemplateError(
                f"{folder}: needs a chat template that is a text, named {_DEFAULT} where it has "
                f"several, got {self.templates!r:.80}"
            )
        if "strftime_now" in self.templates[_DEFAULT]:
            logging.warning(
                "The chat template of %s may write today's date into prompts; a run on another day "
                "then has other prompts.",
                folder,
            )
        answer = self._answer([{"role": "user", "content": ""}])
        if answer.get("error") == "TemplateSyntaxError":
            raise ChatTemplateError(f"{folder}: chat template is not Jinja: {answer['message']}")

    def with_arguments(self, arguments: Mapping[str, bool | int | float | str]) -> ChatTemplate:
        """The template that renders as this one does with arguments, such as enable_thinking=False of Qwen 3.

        They are set in its first line, so that what is saved renders the same in other programs.
        Raises ChatTemplateError for one that the template does not know.
        """
        text = self.templates[_DEFAULT]
        for name in arguments:
            if not self.takes(name):
                raise ChatTemplateError(f"{self.folder}: its chat template takes no argument {name!r}")
        # The line ends in a block, after which `transformers` drops the end of a line.
        first = "".join(f"{{%- set {name} = {json.dumps(value)} %}}" for name, value in arguments.items())
        return ChatTemplate(self.folder, {**self.templates, _DEFAULT: first + "\n" + text}, self.special_tokens)

    def takes(self, name: str) -> bool:
        """Whether the template speaks of an argument of this name that is not one of every template."""
        ours = {"messages", "add_generation_prompt", *self.special_tokens}
        is_name = name not in ours and name.isidentifier()
        return is_name and bool(re.search(rf"\b{name}\b", self.templates[_DEFAULT]))

    def render(self, prompt: str) -> str:
        """The turns of a prompt (`turns_and_start`), and the opening of the answer with what it begins with.

        Raises ChatTemplateError that names the folder.
        """
        turns, start = turns_and_start(prompt)
        return self.render_turns(turns) + start

    def render_turns(self, turns: Sequence[Mapping[str, str]]) -> str:
        """Turns of "role" and "content", and the opening of the answer to them.

        Raises ChatTemplateError that names the folder.
        """
        answer = self._answer(turns)
        if "error" in answer:
            raise ChatTemplateError(f"{self.folder}: its chat template fails: {answer['error']}: {answer['message']}")
        return answer["text"]

    def to_json(self) -> str | list[dict[str, str]]:
        """The value of "chat_template" in tokenizer_config.json."""
        if set(self.templates) == {_DEFAULT}:
            return self.templates[_DEFAULT]
        return [{"name": name, "template": text} for name, text in self.templates.items()]

    def _answer(self, turns: Sequence[Mapping[str, str]]) -> Any:
        request = {
            "conversations": [list(turns)],
            "chat_template": self.templates[_DEFAULT],
            "add_generation_prompt": True,
        }
        line = _renderer.ask(json.dumps(self.special_tokens | request))
        if not line:
            raise ChatTemplateError(
                f"{self.folder}: its chat template fails: it is not done after {_SECONDS} s, or "
                f"takes more than {_BYTES >> 20} MiB"
            )
        return json.loads(line)


class _Renderer:
    """The process that runs chat_renderer.py for all templates, started when it is needed."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()
        # The day on which it is first loaded, also where it is started again.
        self._day = datetime.datetime.now().isoformat()

    def ask(self, request: str) -> str:
        """The answer to a line; "" where the process did not survive it."""
        with self._lock:
            process = self._running()
            line = ""
            timer = threading.Timer(_SECONDS, process.kill)
            timer.start()
            try:
                process.stdin.write(request + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                pass
            finally:
                timer.cancel()
                if not line:  # interrupted, it would give this answer to the next request
                    process.kill()
                    self._process = None
            return line

    def _running(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            program = str(Path(__file__).with_name("chat_renderer.py"))
            # -P: the modules beside the program are not to be imported. It ends with its input.
            self._process = subprocess.Popen(
                [sys.executable, "-P", program, str(_BYTES), self._day],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._process.stdout.readline()  # ready: `transformers` is imported
        return self._process


_renderer = _Renderer()
