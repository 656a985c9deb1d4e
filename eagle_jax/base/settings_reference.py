"""The reference of settings: a page made from their declarations."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from eagle_jax.base.settings import declaration, type_hints, type_name


class DescribedSetting(NamedTuple):
    """One row of the reference; a group's own keys follow it, after a dot."""

    key: str
    type: str
    range: str
    unit: str
    sentence: str


def described_settings(cls: type, prefix: str = "") -> Iterator[DescribedSetting]:
    """Every setting of a class of settings, in its order. A group without a sentence of its own is
    described by the first paragraph of its class."""
    for field in dataclasses.fields(cls):
        expected, declared = type_hints(cls)[field.name], declaration(field)
        group, key = _group_in(expected), prefix + field.name
        sentence = declared.sentence
        if group is not None and not sentence:
            sentence = " ".join((group.__doc__ or "").split("\n\n")[0].split())
        yield DescribedSetting(key, type_name(expected), declared.range(), declared.unit, sentence)
        if group is not None:
            is_table = typing.get_origin(expected) in (dict, Mapping)
            yield from described_settings(group, f"{key}.<name>." if is_table else f"{key}.")


def settings_page(title: str, cls: type) -> str:
    """The reference as a Markdown table."""
    rows = [("setting", "type", "range", "unit", "meaning"), ("---",) * 5]
    rows += [(f"`{row.key}`", *row[1:]) for row in described_settings(cls)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return f"# {title}\n\n" + "\n".join(lines) + "\n"


def _group_in(expected: Any) -> type | None:
    """The class of settings that the type is, or holds (X | None, a table of X)."""
    if dataclasses.is_dataclass(expected):
        return expected
    return next(filter(None, map(_group_in, typing.get_args(expected))), None)
