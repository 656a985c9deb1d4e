"""From the command line to an experiment in a work directory, and from an error to one line.

    python -m experiments.eagle --config=<file.py[:argument]> --workdir=<folder> --config.a.b=value

On several hosts the same command runs on each of them with --distributed (see `processes`).

Whatever is wrong with the command is said in one line, with exit code 2, before anything is
written. A `UserError` later on ends in one line and exit code 2 as well; Ctrl-C in one and 130.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from eagle_jax.base import schema
from eagle_jax.base.errors import UserError
from eagle_jax.base.processes import join_others
from eagle_jax.base.settings import SettingsError, to_settings

T = TypeVar("T")
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)")
_CONFIG = re.compile(r"--?config(?:=(.*))?$")
_SCHEMA = re.compile(r"^SCHEMA = (\d+)", re.MULTILINE)


def main(settings: type[T], experiment: Callable[[T, Path], Path], *, config: str) -> None:
    """A whole program: `run` of an experiment, of which the path of its report is told."""

    def call(values: ConfigDict, workdir: Path) -> None:
        print(f"report: {experiment(to_settings(settings, values), workdir)}")

    run(call, config=config)


def run(action: Callable[[ConfigDict, Path], None], *, config: str) -> None:
    """Parses the flags, calls `action(config, workdir)` with a locked config, and exits.

    Without flags it is the config of experiments/configs/<config>.py in runs/<config>.
    """
    default_config = f"experiments/configs/{config}.py"
    flags.DEFINE_string(
        "workdir", f"runs/{config}", "Folder of this run; the same command resumes in it."
    )
    flags.DEFINE_bool(
        "distributed",
        False,
        "One of several processes with the same command, as on the hosts of a TPU slice; "
        "--workdir is a folder that all of them see.",
    )

    def parse(argv: Sequence[str]) -> list[str]:
        with_one_line_errors(lambda: _parse_flags(argv, default_config))
        return list(argv[:1])

    def call(_: Sequence[str]) -> None:
        with_one_line_errors(lambda: start(flags.FLAGS.config, Path(flags.FLAGS.workdir)))

    def start(config: ConfigDict, workdir: Path) -> None:
        if flags.FLAGS.distributed:
            join_others()
        try:
            action(config, workdir)
        except SettingsError as error:
            path = _config_path(sys.argv, default_config)
            raise UserError(f"--config={path}: {error}") from error

    app.run(call, flags_parser=parse)


def with_one_line_errors(action: Callable[[], None]) -> None:
    """Calls `action`; a `UserError` or Ctrl-C becomes one line on stderr and the exit code."""
    try:
        action()
    except UserError as error:
        _exit(" ".join(str(error).split()), 2)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        _exit(f"{error.filename}: {error.strerror}", 2)
    except KeyboardInterrupt:
        _exit("interrupted; the same command resumes", 130)


def load_config(path: str) -> ConfigDict:
    """The locked config of `file.py` or `file.py:argument`; raises `UserError` without it."""
    file = Path(path.split(":", 1)[0])
    if not file.is_file():
        raise UserError(f"--config={path}: there is no file {file}")
    told = _SCHEMA.search(file.read_text(encoding="utf-8", errors="replace"))
    schema.check_config(int(told[1]) if told else schema.FIRST, f"--config={path}: {file}")
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_file("config", path, flag_values=values, sys_argv=[])
        values([""])
    except flags.IllegalFlagValueError as error:  # get_config raised; its traceback is the message
        raise UserError(f"--config={path}: {str(error).strip().splitlines()[-1]}") from error
    except (Exception, SystemExit) as error:  # whatever else the file does when it is run
        raise UserError(f"--config={path}: {type(error).__name__}: {error}") from error
    if not isinstance(values.config, ConfigDict):
        kind = type(values.config).__name__
        raise UserError(f"--config={path}: get_config must return a ConfigDict, got a {kind}")
    return values.config


def _parse_flags(argv: Sequence[str], default_config: str) -> None:
    config = load_config(_config_path(argv, default_config))
    for argument in argv[1:]:
        override = _OVERRIDE.match(argument)
        if override:
            _check_key(config, override[1])
    try:
        config_flags.DEFINE_config_file(
            "config", default_config, "Config file, or file.py:argument.", sys_argv=list(argv)
        )
        unused = flags.FLAGS(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(
            f"unknown flag --{error.flagname}; allowed are --config, --config.<key>, --workdir, "
            "--distributed and those that --helpfull lists"
        ) from error
    except flags.IllegalFlagValueError as error:
        raise UserError(_say_what_is_allowed(str(error), config)) from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if unused:
        raise UserError(f"unexpected argument {unused[0]!r}; flags have the form --name=value")
    if flags.FLAGS["verbosity"].using_default_value:
        # absl would raise it to INFO, where JAX and Orbax tell of every save.
        flags.FLAGS.verbosity = logging.WARNING


def _config_path(argv: Sequence[str], default: str) -> str:
    path = default
    for position, argument in enumerate(argv[1:], start=1):
        found = _CONFIG.match(argument)
        if found and found[1] is not None:
            path = found[1]
        elif found and position + 1 < len(argv):
            path = argv[position + 1]
    return path


def _check_key(config: ConfigDict, key: str) -> None:
    """Raises `UserError` with the allowed keys at the level where `key` leaves the config."""
    group, path = config, "config"
    for name in key.split("."):
        if not isinstance(group, ConfigDict):
            raise UserError(f"--config.{key}: {path} is a single value, {group!r}; it has no keys")
        if name not in group:
            allowed = ", ".join(sorted(group))
            raise UserError(f"--config.{key}: unknown key {name!r}; {path} has: {allowed}")
        group, path = group[name], f"{path}.{name}"


def _say_what_is_allowed(message: str, config: ConfigDict) -> str:
    """Adds the type of the key to absl's message about a value that cannot be read."""
    found = re.match(r"flag --config\.([^=]+)=", message)
    if not found:
        return message
    value = config
    for name in found[1].split("."):
        value = value[name]
    expected = "a group of keys" if isinstance(value, ConfigDict) else type(value).__name__
    return f"{message}; expected {expected}, the config file has {value!r}"


def _exit(line: str, code: int) -> None:
    print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr)
    sys.exit(code)
