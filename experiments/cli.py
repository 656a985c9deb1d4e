"""The console script `eagle-jax`: `eagle-jax run eagle` is `python -m experiments.eagle`.

Subcommands are functions of the arguments behind their name; a new one is a row of `COMMANDS`.
"""

import difflib
import importlib.metadata
import os
import pkgutil
import runpy
import sys

import experiments


def programs() -> list[str]:
    """The experiments that `run` knows."""
    found = (module.name for module in pkgutil.iter_modules(experiments.__path__))
    return sorted(set(found) - {"cli", "configs", "reference"})


def run(arguments: list[str]) -> None:
    """run EXPERIMENT [flags]: an experiment; its --help lists its flags and settings."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: eagle-jax run EXPERIMENT [flags]\n\nexperiments: {', '.join(programs())}")
        return
    name, *flags = arguments
    if name not in programs():
        fail(f"no experiment {name!r}{meant(name, programs())}; there are: {', '.join(programs())}")
    sys.argv = [name, *flags]
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)


def convert(arguments: list[str]) -> None:
    """convert FILE.gguf FOLDER [--dtype=bfloat16]: the same model in Hugging Face's layout."""
    words = [word for word in arguments if not word.startswith("--")]
    dtypes = [word.removeprefix("--dtype=") for word in arguments if word.startswith("--")]
    if len(words) != 2 or len(dtypes) > 1 or not {"float32", "bfloat16"}.issuperset(dtypes):
        fail("usage: eagle-jax convert FILE.gguf FOLDER [--dtype=float32|bfloat16]")
    from eagle_jax.base.errors import UserError
    from eagle_jax.language_model.checkpoints.hf_checkpoints import load_language_model, save_language_model

    file, folder = words
    if not file.endswith(".gguf"):
        fail(f"{file}: not a .gguf file")
    if os.path.isdir(folder) and os.listdir(folder):
        fail(f"{folder}: is not empty; give a new folder")
    try:
        (dtype,) = dtypes or ["float32"]
        save_language_model(load_language_model(file, dtype=dtype), folder, dtype)
    except (UserError, OSError) as error:
        fail(str(error))
    print(folder)


def catalogue(arguments: list[str]) -> None:
    """catalogue --config=FILE [flags]: what an experiment's data hold, what is wrong with them; in seconds."""
    run(["catalogue", *arguments])


def propose(arguments: list[str]) -> None:
    """propose --workdir=RUN [flags]: what a trained agent makes of items for users; --help lists the flags."""
    from eagle_jax.base.command_line import with_one_line_errors
    from eagle_jax.eagle.serving import command

    with_one_line_errors(lambda: command.propose(arguments))


def gaps(arguments: list[str]) -> None:
    """gaps --workdir=RUN [flags]: what a run's catalogue lacks, and for whom; --help lists the flags."""
    from eagle_jax.base.command_line import with_one_line_errors
    from eagle_jax.eagle.gaps import command

    with_one_line_errors(lambda: command.gaps(arguments))


def export(arguments: list[str]) -> None:
    """export --workdir=RUN --out=FOLDER: a trained policy in Hugging Face's layout, with its card."""
    from eagle_jax.base.command_line import with_one_line_errors
    from eagle_jax.eagle.serving import command

    with_one_line_errors(lambda: command.export(arguments))


def rate(arguments: list[str]) -> None:
    """rate --workdir=RUN [flags]: pages on which people rate a run's texts; --help lists the flags."""
    from eagle_jax.base.command_line import with_one_line_errors
    from eagle_jax.pages import rate as command

    with_one_line_errors(lambda: command.rating_command(arguments))


def explore(arguments: list[str]) -> None:
    """explore --workdir=RUN [flags]: pages with a map of a run, its agent and instructions of yours; --help lists."""
    from eagle_jax.base.command_line import with_one_line_errors
    from eagle_jax.pages import explore as command

    with_one_line_errors(lambda: command.explore_command(arguments))


def check_model(arguments: list[str]) -> None:
    """check-model MODEL [--config=FILE]: what it is, its speed, the roles it can play; --help lists the flags."""
    from eagle_jax.base.command_line import with_one_line_errors
    from eagle_jax.studies import model_check

    with_one_line_errors(lambda: model_check.check_model(arguments))


def sweep(arguments: list[str]) -> None:
    """sweep --experiment=NAME --grid=KEY=VALUE,VALUE [flags]: a run for each combination, one page about all."""
    from eagle_jax.base.command_line import with_one_line_errors
    from eagle_jax.studies.sweep import run as command

    with_one_line_errors(lambda: command.sweep_command(arguments))


COMMANDS = {
    "run": run,
    "sweep": sweep,
    "propose": propose,
    "gaps": gaps,
    "export": export,
    "rate": rate,
    "explore": explore,
    "convert": convert,
    "catalogue": catalogue,
    "check-model": check_model,
}


def meant(name: str, names: list[str]) -> str:
    """ ", did you mean ...?", or nothing."""
    near = difflib.get_close_matches(name, names, n=1)
    return f", did you mean {near[0]}?" if near else ""


def fail(message: str) -> None:
    """One line and exit code 2."""
    print(f"eagle-jax: {message}", file=sys.stderr)
    sys.exit(2)


def usage() -> str:
    lines = [f"  {command.__doc__}" for command in COMMANDS.values()]
    return "\n".join(["usage: eagle-jax [--version] COMMAND ...", "", "commands:", *lines])


def main() -> None:
    """Reads which command it is and calls it with the rest."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
    elif name == "--version":
        print(f"eagle_jax {importlib.metadata.version('eagle_jax')}")
    elif name in COMMANDS:
        COMMANDS[name](arguments)
    else:
        fail(f"no command {name!r}{meant(name, list(COMMANDS))}; eagle-jax --help lists them")
