"""Python reads this as it starts, where the folder is in PYTHONPATH: a program that tests start finds no torch.

eagle_jax needs none. Where it is installed, `transformers` imports it even to read a config, which takes seconds.
"""

import importlib.util
import sys

_find_spec = importlib.util.find_spec


class _NoTorch:
    """A finder for `import`."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")


def _find_no_torch(name, package=None):
    """For those who ask whether it is there."""
    return None if name == "torch" else _find_spec(name, package)


sys.meta_path.insert(0, _NoTorch)
importlib.util.find_spec = _find_no_torch
