"""A prompt as the user's turn of a chat, by the Jinja template of a checkpoint's tokenizer."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from absl import logging
from jinja2.sandbox import ImmutableSandboxedEnvironment

from eagle_jax.base.errors import UserError

_FILE, _FOLDER, _DEFAULT = "chat_template.jinja", "additional_chat_templates", "default"


class ChatTemplateError(UserError):
    """A checkpoint's chat template cannot be read or rendered."""


class ChatTemplate:
    """The templates of a checkpoint by name, of which the one called "default" is rendered.

    The environment is that of `transformers` (`utils/chat_template_utils.py`): sandboxed, as
    templates are other people's programs, with the same filters and functions.
    """

    def __init__(self, folder: Path, templates: Mapping[str, str], special_tokens: dict[str, str]):
        self.folder, self.templates, self.special_tokens = folder, dict(templates), special_tokens
        if _DEFAULT not in self.templates:
            raise ChatTemplateError(
                f"{folder}: has chat templates named {', '.join(sorted(self.templates))}, but none "
                f"named {_DEFAULT}"
            )
        text = self.templates[_DEFAULT]
        if "strftime_now" in text:
            logging.warning(
                "The chat template of %s may write today's date into prompts; a run on another day "
                "then has other prompts.",
                folder,
            )
        try:
            self._template = _environment().from_string(text)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"{folder}: its chat template is not Jinja: {error}") from error

    def render(self, prompt: str) -> str:
        """The user's turn that says `prompt`, and the opening of the answer.

        Raises ChatTemplateError that names the folder.
        """
        return self.render_turns([{"role": "user", "content": prompt}])

    def render_turns(self, turns: Sequence[Mapping[str, str]]) -> str:
        """Turns of "role" and "content", and the opening of the answer to them.

        Raises ChatTemplateError that names the folder.
        """
        try:
            return self._template.render(
                messages=list(turns),
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self.special_tokens,
            )
        except Exception as error:  # a template may fail with whatever its expressions raise
            raise ChatTemplateError(
                f"{self.folder}: its chat template fails: {type(error).__name__}: {error}"
            ) from error

    def to_json(self) -> str | list[dict[str, str]]:
        """The value of "chat_template" in tokenizer_config.json."""
        if set(self.templates) == {_DEFAULT}:
            return self.templates[_DEFAULT]
        return [{"name": name, "template": text} for name, text in self.templates.items()]


def read_chat_template(
    folder: Path, in_config: Any, special_tokens: dict[str, str]
) -> ChatTemplate | None:
    """The chat template of a checkpoint, None where it has none.

    chat_template.jinja and additional_chat_templates/*.jinja go before `in_config`, the value in
    tokenizer_config.json (a string or a list of named ones), as in `transformers`.
    Raises ChatTemplateError that names the folder.
    """
    files = [path for path in (folder / _FILE,) if path.is_file()]
    files += sorted((folder / _FOLDER).glob("*.jinja"))
    if files:
        names = [_DEFAULT if path.name == _FILE else path.stem for path in files]
        templates = {
            name: path.read_text(encoding="utf-8") for name, path in zip(names, files, strict=True)
        }
    elif in_config is None:
        return None
    elif isinstance(in_config, str):
        templates = {_DEFAULT: in_config}
    else:
        try:
            templates = {str(entry["name"]): str(entry["template"]) for entry in in_config}
        except (TypeError, KeyError) as error:
            raise ChatTemplateError(
                f"{folder / 'tokenizer_config.json'}: chat_template must be a string or a list of "
                f"objects with name and template, got {in_config!r:.80}"
            ) from error
    return ChatTemplate(folder, templates, special_tokens)


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}` marks what the model says; here it only groups."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def _environment() -> ImmutableSandboxedEnvironment:
    def raise_exception(message):
        raise jinja2.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = tojson  # Jinja's own escapes HTML
    environment.globals["raise_exception"] = raise_exception
    # The day on which the template was read: a prompt must not change while a run goes on.
    environment.globals["strftime_now"] = datetime.datetime.now().strftime
    return environment
