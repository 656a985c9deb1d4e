"""What the user can put right: every such error reaches the terminal as one line, exit code 2."""

from __future__ import annotations

import re

# Control characters but tab and newline, marks of direction, and half surrogates.
_ACTED_ON = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


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


class DiskFullError(UserError):
    """A file could not be written for lack of space; what was there before is intact."""
