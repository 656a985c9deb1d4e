"""The repository's programs as a user starts them: in a process of their own, on one device."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_WITHOUT_TORCH = Path(__file__).with_name("without_torch")


def environment_of(num_devices=1, cache=None):
    """That of the tests, in which they have eight devices and torch, for a program that has so many and no torch;
    cache: the folder of what it compiles and others have compiled."""
    count = "--xla_force_host_platform_device_count"
    flags = re.sub(rf"{count}=\d+", f"{count}={num_devices}", os.environ["XLA_FLAGS"])
    keeping = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    paths = os.pathsep.join(map(str, (ROOT, _WITHOUT_TORCH)))
    return {**os.environ, "PYTHONPATH": paths, "XLA_FLAGS": flags, **(keeping if cache else {})}


def run_module(module, *arguments, cwd=ROOT, options=(), **variables):
    """Exit code, stdout and stderr of `python -m module`; options of Python itself, variables of the environment."""
    command = [sys.executable, *options, "-m", module, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment_of() | variables, capture_output=True, text=True)
