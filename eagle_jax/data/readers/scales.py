"""What ratings may be: a scale is declared and never guessed."""

from __future__ import annotations

import math
from typing import NamedTuple

from eagle_jax.base.errors import UserError

_THUMBS = {"up": 1.0, "like": 1.0, "yes": 1.0, "true": 1.0, "1": 1.0}
_THUMBS |= {"down": 0.0, "dislike": 0.0, "no": 0.0, "false": 0.0, "0": 0.0}


class Scale(NamedTuple):
    """What a rating may be, and how it is written."""

    lowest: float
    highest: float
    name: str

    @classmethod
    def named(cls, name: str) -> Scale:
        """Of "1 to 10", "percent" (0 to 100, "85" or "85%") or "thumbs" (up, down, like, true, 1 and the like)."""
        if name in ("percent", "thumbs"):
            return cls(0.0, 100.0 if name == "percent" else 1.0, name)
        try:
            lowest, highest = (number_of("scale", end) for end in name.split(" to "))
            if lowest >= highest:
                raise ValueError(f"{lowest} is not below {highest}")
        except ValueError as error:
            raise UserError(
                f'scale {name!r}: expected "1 to 10" (or others), "percent" or "thumbs"; {error}'
            ) from error
        return cls(lowest, highest, name)

    def read(self, text: str) -> float:
        """The rating; ValueError for what is none, `OutsideError` for what is none on this scale."""
        if self.name == "thumbs" and text.lower() in _THUMBS:
            return _THUMBS[text.lower()]
        value = number_of("rating", text.removesuffix("%").rstrip() if self.name == "percent" else text)
        if not self.lowest <= value <= self.highest:
            raise OutsideError(f"rating outside {self.lowest} to {self.highest}: {value}")
        if self.name == "thumbs" and value not in (0, 1):
            raise OutsideError(f"rating that is no thumb: {value}")
        if self is WEIGHTS and value == 0:
            raise ValueError(f"weight of nothing: {text}")
        return value


STARS = Scale(0.5, 5.0, "0.5 to 5")
WEIGHTS = Scale(0.0, math.inf, "weights from 0")  # of implicit feedback: plays, clicks


class OutsideError(ValueError):
    """A number that is not on the declared scale."""


def number_of(name: str, text: str) -> float:
    """A finite number; ValueError that begins with `name` for any other text."""
    try:
        if "_" in text or not text.isascii():  # which Python reads, and no other program
            raise ValueError
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} is not a number: {text[:40]!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"{name} is not finite: {text[:40]!r}")
    return value
