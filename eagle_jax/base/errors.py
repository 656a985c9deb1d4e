"""What the user can put right: every such error reaches the terminal as one line, exit code 2."""

from __future__ import annotations

import errno
import re
from pathlib import Path

# Control characters but tab and newline, marks of direction, and half surrogates.
_ACTED_ON = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # `Path` makes one slash of two


def visible(text: str) -> str:
    """What files, models and servers said, with escapes (`\\x1b`) for characters that a terminal
    acts on or cannot show."""
    return _ACTED_ON.sub(lambda found: ascii(found[0])[1:-1], text)


class UserError(ValueError):
    """The command line, a setting, a file or the machine is not as it has to be.

    Its text is `visible`, whatever it repeats.
    """

    def __str__(self) -> str:
        return visible(super().__str__())


class StaleArtifactError(UserError):
    """What is on disk was made with other settings; it is left as it is."""


class CorruptArtifactError(UserError):
    """What is on disk is not what was written; it is left as it is."""


class UnwritableError(UserError):
    """A file could not be written; what was there before is intact."""


class DiskFullError(UnwritableError):
    """A file could not be written for lack of space; what was there before is intact."""


NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REMEDIES = {
    **dict.fromkeys(NO_SPACE, "free some space and run the same command again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable or choose another work directory"),
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ESTALE),
        "something else removed or replaced it; run the same command again, which makes anew what is missing",
    ),
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "see to the disk and run the same command again",
}


def remedy(number: int | None) -> str | None:
    """What helps against an error of the file system; None where it is no such error."""
    return _REMEDIES.get(number)


def require_local(path: str | Path, what: str) -> None:
    """Raises UserError for an address such as gs://bucket/folder, of which `Path` would make a
    folder "gs:" on this machine."""
    if _ADDRESS.match(str(path)):
        raise UserError(
            f"{what}: {path} is an address, and files are written to folders only: name a folder of "
            "a disk of this machine, of NFS, or of a bucket that is mounted (gs:// with Cloud Storage FUSE)"
        )
