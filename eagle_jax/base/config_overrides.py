"""Overrides of a config on the command line, `--config.<key>=<value>`, beyond what flags check.

A key is looked up before anything is set, and a mistake gets the name that was meant. A group that
the config file leaves None or out takes keys as well: so a source or a part that is off by default
is switched on by flags alone, and its settings are checked like all others.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from eagle_jax.base.errors import UserError

_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)(?:=(.*))?$", re.DOTALL)


# Made by `python -m experiments.reference`: program -> key -> sentence. A file, because importing
# the settings themselves imports JAX, which takes seconds.
SENTENCES = "sentences.json"


def program_file() -> Path:
    """The program that runs."""
    return Path(getattr(sys.modules["__main__"], "__file__", None) or "program")


def known_settings() -> Mapping[str, str]:
    """Key -> sentence of all settings of the program that runs; none where no file says them."""
    program = program_file()
    file = program.with_name(SENTENCES)
    if not file.is_file():
        return {}
    return json.loads(file.read_text(encoding="utf-8")).get(program.stem, {})


def flat_items(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in a config that is no group."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flat_items(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check_overrides(arguments: Sequence[str], config: ConfigDict) -> None:
    """Raises `UserError` for a key that is not there, or a list of words that would be one word."""
    for argument in arguments:
        if found := _OVERRIDE.match(argument):
            key, text = found.groups()
            value = _value_at(config, key)
            # ml-collections reads ann,bob as the one word "ann,bob" where a tuple of words stands.
            words = isinstance(value, (tuple, list)) and any(isinstance(v, str) for v in value)
            if words and text and text[0] not in "([\"'":
                listed = ", ".join(repr(word.strip()) for word in text.split(",") if word.strip())
                raise UserError(
                    f"--config.{key}={text}: a list of words is written with quotes and "
                    f'brackets: --config.{key}="({listed},)"'
                )


def apply_to_empty_groups(argv: Sequence[str], config: ConfigDict) -> tuple[list[str], ConfigDict]:
    """The arguments without those for keys of groups that are None, and these groups."""
    groups = ConfigDict()
    others = []
    for argument in argv:
        found = _OVERRIDE.match(argument)
        if not found or not _is_in_empty_group(config, found[1]):
            others.append(argument)
            continue
        key, text = found.groups()
        if text is None:
            raise UserError(f"--config.{key}: give its value as --config.{key}=<value>")
        *path, name = key.split(".")
        group = groups
        for part in path:
            if part not in group:
                group[part] = ConfigDict()
            group = group[part]
        group[name] = _read(text)
    return others, groups


def fill_empty_groups(config: ConfigDict, groups: ConfigDict) -> None:
    """Puts the groups that flags gave where the config has None."""
    for name, group in groups.items():
        if isinstance(config.get(name), ConfigDict):
            fill_empty_groups(config[name], group)
        else:
            with config.unlocked():
                config[name] = group


def expected_at(message: str, config: ConfigDict) -> str:
    """Adds the type of the key to absl's message about a value that cannot be read."""
    found = re.match(r"flag --config\.([^=]+)=", message)
    if not found:
        return message
    value = _value_at(config, found[1])
    expected = "a group of keys" if isinstance(value, ConfigDict) else type(value).__name__
    return f"{message}; expected {expected}, the config file has {value!r}"


def _is_in_empty_group(config: ConfigDict, key: str) -> bool:
    """Whether a part of the key is None or not there though keys come after it."""
    group = config
    for name in key.split(".")[:-1]:
        group = group.get(name)
        if group is None:
            return True
    return False


def _value_at(config: ConfigDict, key: str) -> Any:
    """Raises `UserError`, with what was meant and what there is, where `key` leaves the config."""
    group, path = config, "config"
    for name in key.split("."):
        if group is None:  # a group that the config file leaves out: its settings class knows it
            return None
        if not isinstance(group, ConfigDict):
            raise UserError(f"--config.{key}: {path} is a single value, {group!r}; it has no keys")
        if name not in group and key in known_settings():
            return None
        if name not in group:
            allowed = ", ".join(sorted(group))
            meant = _meant(config, group, path, key, name)
            raise UserError(f"--config.{key}: unknown key {name!r}{meant}; {path} has: {allowed}")
        group, path = group[name], f"{path}.{name}"
    return group


def _meant(config: ConfigDict, group: ConfigDict, path: str, key: str, name: str) -> str:
    """ ", did you mean ...?" with a setting like the whole key, keys of this group, or such of the
    same name elsewhere; "" for none."""
    all_keys = [other for other, _ in flat_items(config)]
    like = difflib.get_close_matches(key, [*known_settings()], n=1, cutoff=0.9)
    here = [f"{path}.{other}" for other in difflib.get_close_matches(name, list(group), n=2)]
    elsewhere = [f"config.{other}" for other in all_keys if other.split(".")[-1] == name]
    keys = ([f"config.{other}" for other in like] or here or elsewhere)[:3]
    return f", did you mean {' or '.join(keys)}?" if keys else ""


def _read(text: str) -> Any:
    """A number, list or None as Python writes it, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
