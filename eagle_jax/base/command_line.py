"""From the command line to an experiment in a work directory, and from an error to one line.

    python -m experiments.eagle --config=<file.py[:argument]> --workdir=<folder> --config.a.b=value

On several hosts the same command runs on each of them with --distributed (see `processes`).

Whatever is wrong with the command is said in one line, with exit code 2, before anything is
written. A `UserError` later on ends in one line and exit code 2 as well; Ctrl-C in one and 130.
Flags are read before a program imports what it runs, so that --help and mistakes take no time.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from eagle_jax.base import schema
from eagle_jax.base.command_help import help_text
from eagle_jax.base.config_overrides import (
    apply_to_empty_groups,
    check_overrides,
    expected_at,
    fill_empty_groups,
    program_file,
)
from eagle_jax.base.errors import UserError, remedy, require_local, visible
from eagle_jax.base.settings import SettingsError, to_settings

T = TypeVar("T")
Experiment = Callable[..., Path]  # (settings, work directory) -> its report
_HELP = {"--help", "-h", "-help", "--helpshort", "-helpshort", "--helpfull", "-helpfull"}
_CONFIG = re.compile(r"--?config(?:=(.*))?$")
_SCHEMA = re.compile(r"^SCHEMA = (\d+)", re.MULTILINE)


def main(load: Callable[[], tuple[type[T], Experiment]], *, config: str, stops: Sequence[str] = ()) -> None:
    """A whole program: `run` of an experiment, of which the path of its report is told.

    load: imports and gives the class of its settings and the function that runs it. stops: stages after
    which it can end; the one that --stop_after names is `stop_after` of that function.
    """

    def call(values: ConfigDict, workdir: Path) -> None:
        settings, experiment = load()
        from eagle_jax.base.metrics import duration, say  # imports JAX, as what was loaded has

        chosen = {"stop_after": flags.FLAGS.stop_after} if stops else {}
        started = time.monotonic()
        report = experiment(to_settings(settings, values), workdir, **chosen)
        for line in _files_beside(workdir):
            say(line)
        say(f"took {duration(time.monotonic() - started)}")
        print(f"report: {report}")

    if stops:
        flags.DEFINE_enum("stop_after", None, list(stops), "The run ends with this stage and a page on it.")
    run(call, config=config)


def run(action: Callable[[ConfigDict, Path], None], *, config: str) -> None:
    """Parses the flags, calls `action(config, workdir)` with a locked config, and exits.

    Without flags it is the config of experiments/configs/<config>.py in runs/<config>.
    """
    default_config = f"experiments/configs/{config}.py"
    flags.DEFINE_string("workdir", f"runs/{config}", "Folder of this run; the same command resumes in it.")
    flags.DEFINE_bool(
        "distributed",
        False,
        "One of several processes with the same command, as on the hosts of a TPU slice; "
        "--workdir is a folder that all of them see.",
    )

    def parse(argv: Sequence[str]) -> list[str]:
        if _HELP & set(argv):
            with_one_line_errors(lambda: _show(help_text(load_config, default_config)))
            sys.exit(0)
        with_one_line_errors(lambda: _parse_flags(argv, default_config))
        return list(argv[:1])

    def call(_: Sequence[str]) -> None:
        with_one_line_errors(lambda: start(flags.FLAGS.config, workdir_of(flags.FLAGS.workdir)))

    def start(config: ConfigDict, workdir: Path) -> None:
        if flags.FLAGS.distributed:
            from eagle_jax.base.processes import join_others  # imports JAX

            join_others()
        try:
            action(config, workdir)
        except SettingsError as error:
            path, _ = _config_path(sys.argv, default_config)
            raise UserError(f"--config={path}: {error}") from error

    app.run(call, flags_parser=parse)


def with_one_line_errors(action: Callable[[], None]) -> None:
    """Calls `action`; a `UserError` or Ctrl-C becomes one line on stderr and the exit code."""
    # That there is no torch is no news here, and that models were missing without it is not so.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        action()
    except UserError as error:
        _exit(" ".join(str(error).split()), 2)
    except OSError as error:
        if error.filename is None or not (helps := remedy(error.errno)):
            raise
        _exit(f"{error.filename}: {error.strerror}; {helps}", 2)
    except KeyboardInterrupt:
        _exit("interrupted; the same command resumes", 130)


def _files_beside(workdir: Path) -> list[str]:
    """What a finished run left beside its report, for people and programs to read."""
    lines = [f"numbers: {workdir / name}" for name in ("results.json", "results.csv") if (workdir / name).is_file()]
    if any(workdir.glob("*/metrics/tensorboard")):
        lines.append(f"curves: tensorboard --logdir={workdir}")
    return lines


class FlagParser(argparse.ArgumentParser):
    """Of a command with flags of its own and no config: they are written out, and a mistake is a `UserError`."""

    def __init__(self, **kwargs: Any):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help lists the flags")


def load_config(path: str) -> ConfigDict:
    """The locked config of `file.py` or `file.py:argument`; raises `UserError` without it."""
    path = _found(path)
    file = Path(path.split(":", 1)[0])
    told = _SCHEMA.search(file.read_text(encoding="utf-8", errors="replace"))
    schema.check_config(int(told[1]) if told else schema.FIRST_SCHEMA, f"--config={path}: {file}")
    values = flags.FlagValues()
    # ml-collections runs every file as this one module, in which an earlier one's names would stay.
    sys.modules.pop("config_config", None)
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


def _found(path: str) -> str:
    """`file.py[:argument]` with the file as it is, or as it lies beside the installed programs.

    Raises `UserError` where it is neither here nor there.
    """
    name, *argument = path.split(":", 1)
    for file in (Path(name), program_file().resolve().parents[1] / name):
        if file.is_file():
            return ":".join([str(file), *argument])
    raise UserError(f"--config={path}: there is no file {name}")


def workdir_of(name: str) -> Path:
    """The folder that --workdir names; raises `UserError` where nothing can be written there."""
    if not name.strip():
        raise UserError("--workdir= is empty; name the folder of this run")
    require_local(name, "--workdir")
    path = Path(name)
    try:
        name.encode()  # bytes that are not UTF-8 could not be told in JSON
        nearest = path.absolute()
        while not nearest.is_dir() and not _exists(nearest):
            nearest = nearest.parent
        os.rmdir(tempfile.mkdtemp(prefix=".eagle-jax-", dir=nearest))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "its name is not UTF-8"
        raise UserError(f"--workdir={ascii(name)[1:-1]}: {reason}; choose a folder that can be written to") from error
    return path


def _exists(path: Path) -> bool:
    """As `Path.exists`, but a name that cannot be one raises `OSError`."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _parse_flags(argv: Sequence[str], default_config: str) -> None:
    path, argv = _config_path(argv, default_config)
    config = load_config(path)
    check_overrides(argv[1:], config)
    argv, groups = apply_to_empty_groups(argv, config)
    try:
        config_flags.DEFINE_config_file("config", _found(path), "Config file, or file.py:argument.", sys_argv=argv)
        unused = flags.FLAGS(argv)[1:]
        fill_empty_groups(flags.FLAGS.config, groups)
    except flags.UnrecognizedFlagError as error:
        raise UserError(
            f"unknown flag --{error.flagname}; allowed are --config, --config.<key>, --workdir, "
            "--distributed and those that --help lists"
        ) from error
    except flags.IllegalFlagValueError as error:
        raise UserError(expected_at(str(error), config)) from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if unused:
        raise UserError(f"unexpected argument {unused[0]!r}; flags have the form --name=value")
    if flags.FLAGS["verbosity"].using_default_value:
        # absl would raise it to INFO, where JAX and Orbax tell of every save.
        flags.FLAGS.verbosity = logging.WARNING


def _config_path(argv: Sequence[str], default: str) -> tuple[str, list[str]]:
    """What --config says, and the arguments without it."""
    path, others, arguments = default, [], iter(argv)
    for argument in arguments:
        found = _CONFIG.match(argument)
        if not found:
            others.append(argument)
        elif found[1] is not None:
            path = found[1]
        else:
            path = next(arguments, "")
    return path, others


def _show(page: str) -> None:
    """Prints to a reader who may not want all of it (`--help | head`)."""
    try:
        print(page, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit(line: str, code: int) -> None:
    print(f"{Path(sys.argv[0]).name}: {visible(line)}", file=sys.stderr)
    sys.exit(code)
