"""Files that are there whole or not at all, and checksums that say whether they still are.

A file is written beside its place under the suffix `.partial`, flushed to the disk and renamed:
a kill or a full disk at any moment leaves what was there before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from eagle_jax.base.errors import NO_SPACE, CorruptArtifactError, DiskFullError, UnwritableError, remedy
from eagle_jax.base.processes import from_primary

PARTIAL = ".partial"


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Replaces `path` by what `write(file)` writes; raises `UnwritableError` where it cannot.

    Of several processes the first one writes, and all go on when it is done.
    """
    from_primary(f"write {path}", lambda: replace_atomically(path, write))


def replace_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """`write_atomically` of this process alone, which waits for no other."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with report_faults(path):
            with open(partial, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error says it better
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def report_faults(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into `UnwritableError`, one without space (also quota and
    file size limit) into `DiskFullError`."""
    try:
        yield
    except OSError as error:
        if (helps := remedy(error.errno)) is None:
            raise
        kind = DiskFullError if error.errno in NO_SPACE else UnwritableError
        raise kind(f"{path}: cannot be written: {os.strerror(error.errno)}; {helps}") from error


def sync_folder(folder: Path) -> None:
    """Makes the renames inside `folder` last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial(folder: Path) -> None:
    """Removes what interrupted writes left anywhere below `folder`."""
    for leftover in list(folder.rglob("*" + PARTIAL)):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Relative path -> size and SHA-256 of every file below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": _sha256(path)} for path in files
    }


def verify(folder: Path, recorded: Any, record: str) -> None:
    """Raises `CorruptArtifactError` naming the first file that is not as `recorded` (see
    `checksums`), or what is wrong with `record`, the file in `folder` that told it."""
    if not isinstance(recorded, dict):
        problem = f"must be an object of files, got {type(recorded).__name__}"
        raise CorruptArtifactError(f"{folder / record}: files {problem}; {_remedy(folder)}")
    for name, entry in recorded.items():
        if not _is_entry(name, entry):
            raise CorruptArtifactError(
                f"{folder / record}: files: {name[:80]!r} must lie below the folder and have size "
                f"and sha256; {_remedy(folder)}"
            )
        path = folder / name
        if not os.path.isfile(path):
            raise CorruptArtifactError(f"{path}: is missing; {_remedy(folder)}")
        if path.stat().st_size != entry["size"]:
            raise CorruptArtifactError(
                f"{path}: has {path.stat().st_size} bytes where {entry['size']} were written; {_remedy(folder)}"
            )
        if _sha256(path) != entry["sha256"]:
            raise CorruptArtifactError(f"{path}: its content is not what was written; {_remedy(folder)}")


def _is_entry(name: str, entry: Any) -> bool:
    path = PurePosixPath(name)
    is_below = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    kinds = {"size": int, "sha256": str}
    return is_below and isinstance(entry, dict) and kinds == {k: type(v) for k, v in entry.items()}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remedy(folder: Path) -> str:
    return f"remove {folder} and run the same command again to make it anew"
