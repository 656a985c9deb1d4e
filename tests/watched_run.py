"""`python -m <module>` under watch of its renames, which is how it makes things last.

    python watched_run.py <module> log <file> <arguments>    lists every rename's target in <file>
    python watched_run.py <module> before|after <target> <arguments>    kill -9 of itself just then

Targets are relative to --workdir.
"""

import os
import runpy
import signal
import sys
from pathlib import Path


def watch(mode: str, what: str, workdir: Path) -> None:
    """Replaces os.rename and os.replace, on which pathlib and everybody else rest."""

    def watched(rename):
        def call(source, target, **options):
            path = Path(os.path.abspath(os.fspath(target)))
            name = path.relative_to(workdir).as_posix() if path.is_relative_to(workdir) else None
            if mode == "before" and name == what:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target, **options)
            if mode == "after" and name == what:
                os.kill(os.getpid(), signal.SIGKILL)
            if mode == "log" and name is not None:
                with open(what, "a", encoding="utf-8") as file:
                    file.write(name + "\n")

        return call

    os.rename, os.replace = watched(os.rename), watched(os.replace)


if __name__ == "__main__":
    _, module, mode, what, *arguments = sys.argv
    (workdir,) = (a.partition("=")[2] for a in arguments if a.startswith("--workdir="))
    watch(mode, what, Path(os.path.abspath(workdir)))
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
