"""The repository's programs as a user starts them: in a process of their own, on one device."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_module(module, *arguments, cwd=ROOT, options=(), **variables):
    """Exit code, stdout and stderr of `python -m module`; options of Python itself, variables of the environment."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, *options, "-m", module, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment | {"PYTHONPATH": str(ROOT)} | variables, capture_output=True, text=True
    )
