"""What `--help` of a program says: what it does, its flags, the config's keys, examples."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable

from absl import flags
from ml_collections import ConfigDict

from eagle_jax.base.config_overrides import flat_items, known_settings, program_file

_WIDTH = 100


def help_text(load_config: Callable[[str], ConfigDict], default_config: str) -> str:
    """The whole page, for the program that runs; keys are those of the default config."""
    file = program_file()
    command = f"python -m {file.parent.name}.{file.stem}"
    workdir = flags.FLAGS["workdir"].default
    rows = [
        ("--config", f"Config file, or file.py:argument (default: {default_config})"),
        *((f"--{flag.name}", f"{flag.help} (default: {flag.default})") for flag in _flags()),
    ]
    parts = [
        (sys.modules["__main__"].__doc__ or "").strip(),
        f"usage: {command} [--config=FILE.py[:ARGUMENT]] [--config.KEY=VALUE ...] [--FLAG ...]",
        "flags:\n" + _table(rows),
        f"keys of {default_config}:\n" + _table(_keys(load_config(default_config))),
        f"examples:\n  {command}\n"
        f"  {command} --config={default_config} --workdir={workdir}_again\n"
        f"  {command} --workdir={workdir}_seed_1 --config.seed=1",
    ]
    return "\n\n".join(parts)


def _flags() -> list[flags.Flag]:
    """The program's own flags first, then those that all programs have."""
    by_module = flags.FLAGS.flags_by_module_dict()
    modules = (sys.argv[0], "__main__", "eagle_jax.base.command_line")
    found = [flag for module in modules for flag in by_module.get(module, [])]
    return [flag for flag in dict.fromkeys(found) if flag.name != "config"]


def _keys(config: ConfigDict) -> list[tuple[str, str]]:
    """(key = value, sentence) of every key."""
    sentences = known_settings()

    def sentence(key: str) -> str:
        """Where a part of the key is a name of the user's own, the reference says <name>."""
        parts = key.split(".")
        named = (".".join([*parts[:i], "<name>", *parts[i + 1 :]]) for i in range(len(parts)))
        return next((sentences[k] for k in (key, *named) if k in sentences), "")

    return [(f"{key} = {value!r}", sentence(key)) for key, value in flat_items(config)]


def _table(rows: list[tuple[str, str]]) -> str:
    """Two columns; what is long goes on below."""
    lines = []
    for left, right in rows:
        head = f"  {left}"
        wrapped = textwrap.wrap(right, _WIDTH - 32)
        if wrapped and len(head) < 31:
            head = f"{head:<32}{wrapped.pop(0)}"
        lines += [head, *(" " * 32 + line for line in wrapped)]
    return "\n".join(lines)
