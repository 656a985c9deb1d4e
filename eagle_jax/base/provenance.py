"""What made an artifact: code, versions, machine and command. Never environment variables."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "safetensors")


def provenance() -> dict[str, Any]:
    """Commit (None outside a clone), versions, platform, device, command line and UTC time."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "command": command(),
        "time": now.isoformat(timespec="seconds"),
    }


def command() -> str:
    """The command line of this process, as it can be typed again."""
    return shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]])


def _commit() -> str | None:
    """The commit of the clone that this package lies in, with "+changes" where files differ."""
    package = Path(__file__).resolve().parents[1]
    try:
        root = _git(package, "rev-parse", "--show-toplevel")
        # An installed copy may lie inside somebody else's repository: that commit says nothing.
        if Path(root) / package.name != package:
            return None
        changes = _git(package, "status", "--porcelain", "--untracked-files=no")
        return _git(package, "rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    completed = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=30
    )
    return completed.stdout.strip()
