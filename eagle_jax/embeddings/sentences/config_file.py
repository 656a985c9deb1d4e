"""The JSON files of encoders, of which every value is checked as it is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eagle_jax.base.errors import UserError
from eagle_jax.base.tensor_files import CheckpointError, read_json

_MOST = 2**31 - 1


class UnsupportedEncoderError(UserError):
    """A config file asks for something that these encoders do not compute."""


class ConfigFile:
    """The object in a JSON file; raises CheckpointError without it, unless it is optional."""

    def __init__(self, path: Path, is_optional: bool = False):
        self.path = path
        self.content = {} if is_optional and not path.is_file() else read_json(path)

    def read(self, key: str, kind: type, default: Any = None, least: float = 1) -> Any:
        """The value, of this kind; the default where it is absent or null.

        least: of numbers. Raises CheckpointError that names file, key and value.
        """
        value = self.content.get(key)
        value = default if value is None else value
        if value is None:
            raise CheckpointError(f"{self.path} lacks {key}")
        kinds = (int, float) if kind is float else kind
        is_kind = isinstance(value, kinds) and (kind is bool or not isinstance(value, bool))
        is_number = kind in (int, float)
        if not is_kind or (is_number and not least <= value <= _MOST):
            expected = f"{kind.__name__} from {least} to {_MOST}" if is_number else kind.__name__
            raise CheckpointError(f"{self.path}: {key} must be {expected}, got {value!r}")
        return value

    def choose(self, key: str, known: Iterable[Any], default: Any = None) -> Any:
        """The value, which is one of the known ones; raises UnsupportedEncoderError."""
        value = self.content.get(key)
        value = default if value is None else value
        known = tuple(known)
        if not isinstance(value, str | bool) or value not in known:
            raise UnsupportedEncoderError(
                f"{self.path}: {key} = {value!r} is not supported; known: {', '.join(map(str, known))}"
            )
        return value
