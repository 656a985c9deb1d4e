"""Settings are declared once, as fields of frozen dataclasses: type, range, unit and a sentence.

    @settings
    class Sampling:
        temperature: float = setting("Of the softmax; 0 is greedy.", at_least=0)

Whatever builds one, a config file's mapping (`to_settings`) or a program, its values are checked
first: behind this border none is missing, of another type, out of its range, NaN or infinite.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, Union

from ml_collections import ConfigDict

from eagle_jax.base.errors import UserError

T = TypeVar("T")
LARGEST_INT = 2**31 - 1  # what an int is at most where its declaration does not say: JAX's int32


class SettingsError(UserError):
    """A setting is unknown, missing, of the wrong type or not allowed; named by its path."""


class Declaration(NamedTuple):
    """What a field says about itself; bounds are those of every number in it."""

    sentence: str = ""
    unit: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    may_be_empty: bool = False  # of a list
    distinct: bool = False  # no item of the list twice
    later: bool = False  # work directories of before lack it, and were made by its default

    def range(self) -> str:
        """The bounds in words, "" without any."""
        bounds = (("at least", self.at_least), ("above", self.above), ("at most", self.at_most), ("below", self.below))
        return " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)

    def check(self, value: float, path: str) -> None:
        """Raises `SettingsError` unless the number is finite and within the bounds."""
        wanted = self.range() or "a finite number"
        is_right = (isinstance(value, int) or math.isfinite(value)) and self._contains(value)
        if is_right and isinstance(value, int) and self.at_most is None:
            is_right, wanted = abs(value) <= LARGEST_INT, f"at most {LARGEST_INT} in size"
        if not is_right:
            raise SettingsError(f"{path} must be {wanted}, got {value!r}")

    def _contains(self, value: float) -> bool:
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


def setting(sentence: str, *, default: Any = dataclasses.MISSING, **declared: Any) -> Any:
    """A field of a class of settings; `declared` are the other fields of `Declaration`."""
    declaration = Declaration(sentence, **declared)
    return dataclasses.field(default=default, metadata={"declaration": declaration})


def declaration(field: dataclasses.Field) -> Declaration:
    """What the field was declared with; a group of settings needs no declaration."""
    return field.metadata.get("declaration", Declaration())


@typing.dataclass_transform(kw_only_default=True, field_specifiers=(setting,))
def settings(cls: type[T]) -> type[T]:
    """A frozen dataclass, by keyword only, that takes no value its declarations do not allow.

    Integers become floats and lists tuples where these are declared. The class'
    `__post_init__`, for what several fields must fulfil together, runs after that.
    """
    check_together = getattr(cls, "__post_init__", None)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            converted = _convert(type_hints(type(self))[field.name], value, field.name, declaration(field))
            object.__setattr__(self, field.name, converted)
        if check_together is not None:
            check_together(self)

    cls.__post_init__ = __post_init__
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def told(item: Any) -> dict[str, Any]:
    """The values of a dataclass by name, without those that are declared `later` and are their defaults: what was made
    before there were such settings is still read."""
    named = [(field, getattr(item, field.name)) for field in dataclasses.fields(item)]
    return {field.name: value for field, value in named if not (declaration(field).later and value == field.default)}


@functools.cache
def type_hints(cls: type) -> dict[str, Any]:
    """Field name -> type, of a class of settings."""
    return typing.get_type_hints(cls)


def to_settings(cls: type[T], mapping: ConfigDict | Mapping[str, Any], path: str = "config") -> T:
    """Builds `cls`, a class of settings (nested ones too), from `mapping`; raises `SettingsError`.

    `path` is what the mapping is called in messages.
    """
    if isinstance(mapping, ConfigDict):
        mapping = mapping.to_dict()
    if not isinstance(mapping, Mapping):
        raise SettingsError(f"{path}: expected a group of settings, got {mapping!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in mapping:
        if name not in fields:
            allowed = ", ".join(sorted(fields))
            raise SettingsError(f"{path}: unknown setting {name!r}; allowed are: {allowed}")
    missing = [
        repr(name) for name, field in fields.items() if name not in mapping and field.default is dataclasses.MISSING
    ]
    if missing:
        raise SettingsError(f"{path}: missing setting {', '.join(missing)}")
    try:
        return cls(**mapping)
    except SettingsError as error:  # of one field, which it names
        raise SettingsError(f"{path}.{error}") from error
    except ValueError as error:  # of several together
        raise SettingsError(f"{path}: {error}") from error


def type_name(expected: Any) -> str:
    """A field's type as it is said to people."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(map(type_name, arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {type_name(arguments[0])}"
    if origin is tuple:
        return f"list ({', '.join(map(type_name, arguments))})"
    if origin in (dict, Mapping):
        return f"table of {type_name(arguments[1])}"
    if dataclasses.is_dataclass(expected):
        return "group"
    return "None" if expected is types.NoneType else getattr(expected, "__name__", str(expected))


def _convert(expected: Any, value: Any, path: str, declared: Declaration) -> Any:
    """`value` as the type `expected`, or `SettingsError`."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if expected is Any:
        return value
    if dataclasses.is_dataclass(expected):
        return value if isinstance(value, expected) else to_settings(expected, value, path)
    if origin is Literal and value in arguments:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, expected, value, path, declared)
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        return _convert_tuple(arguments, expected, value, path, declared)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: _convert(arguments[1], item, f"{path}.{key}", declared) for key, item in value.items()}
    # bool is a subclass of int, but True is no count.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if expected is float and is_number:
        is_huge = isinstance(value, int) and value.bit_length() > 1000
        value = math.inf if is_huge else float(value)
    if expected in (int, float) and is_number and isinstance(value, expected):
        declared.check(value, path)
        return value
    if expected in (bool, str) and isinstance(value, expected):
        return value
    raise _wrong_type(expected, value, path)


def _convert_union(arguments: tuple, expected: Any, value: Any, path: str, declared: Declaration) -> Any:
    if value is None and types.NoneType in arguments:
        return None
    options = [option for option in arguments if option is not types.NoneType]
    for option in options:
        try:
            return _convert(option, value, path, declared)
        except SettingsError:
            if len(options) == 1:
                raise
    raise _wrong_type(expected, value, path)


def _convert_tuple(arguments: tuple, expected: Any, value: Sequence, path: str, declared: Declaration) -> tuple:
    if arguments[-1] is Ellipsis:
        arguments = arguments[:1] * len(value)
    if len(arguments) != len(value):
        raise _wrong_type(expected, value, path)
    items = tuple(
        _convert(option, item, f"{path}[{index}]", declared)
        for index, (option, item) in enumerate(zip(arguments, value, strict=True))
    )
    if not items and not declared.may_be_empty:
        raise SettingsError(f"{path}: at least one, got none")
    if declared.distinct and len(set(items)) < len(items):
        raise SettingsError(f"{path}: none twice, got {items}")
    return items


def _wrong_type(expected: Any, value: Any, path: str) -> SettingsError:
    return SettingsError(f"{path}: expected {type_name(expected)}, got {value!r} ({type(value).__name__})")
