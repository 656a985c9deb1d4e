"""What the user can put right: every such error reaches the terminal as one line, exit code 2."""

from __future__ import annotations


class UserError(ValueError):
    """The command line, a setting, a file or the machine is not as it has to be."""


class StaleArtifactError(UserError):
    """What is on disk was made with other settings; it is left as it is."""


class CorruptArtifactError(UserError):
    """What is on disk is not what was written; it is left as it is."""


class DiskFullError(UserError):
    """A file could not be written for lack of space; what was there before is intact."""
