"""Text files, plain or compressed, whose faults name the file."""

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from eagle_jax.base.errors import UserError


@contextlib.contextmanager
def open_text(path: Path, expected: str) -> Iterator[TextIO]:
    """A UTF-8 file to read, gunzipped if its name ends with .gz; a byte order mark is left out.

    Line ends stay as they are, bytes that are not UTF-8 are read as surrogates. Raises UserError,
    also while it is read, when the file is missing or unreadable, is not gzip although its name
    says so, or is cut or damaged.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({why}); expected {expected}") from error
