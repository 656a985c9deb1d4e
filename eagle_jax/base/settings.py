"""From a mapping (a config file's section) to a frozen dataclass, with every key and type checked.

This is the one border where a ConfigDict becomes typed settings; behind it no key can be unknown,
missing or of the wrong type.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

from ml_collections import ConfigDict

from eagle_jax.base.errors import UserError

T = TypeVar("T")


class SettingsError(UserError):
    """A setting is unknown, missing, of the wrong type or not allowed; named by its path."""


def to_settings(cls: type[T], mapping: ConfigDict | Mapping[str, Any], path: str = "config") -> T:
    """Builds the dataclass `cls` (nested ones too) from `mapping`; raises `SettingsError`.

    `path` is what the mapping is called in messages. Integers stand for floats, lists for tuples.
    """
    if isinstance(mapping, ConfigDict):
        mapping = mapping.to_dict()
    if not isinstance(mapping, Mapping):
        raise SettingsError(f"{path}: expected a group of settings, got {mapping!r}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    allowed = ", ".join(sorted(fields))
    for name in mapping:
        if name not in fields:
            raise SettingsError(f"{path}: unknown setting {name!r}; allowed are: {allowed}")
    required = [name for name, field in fields.items() if _is_required(field)]
    missing = [name for name in required if name not in mapping]
    if missing:
        raise SettingsError(f"{path}: missing setting {', '.join(map(repr, missing))}")
    field_types = typing.get_type_hints(cls)
    values = {
        name: _convert(field_types[name], value, f"{path}.{name}")
        for name, value in mapping.items()
    }
    try:
        return cls(**values)
    except ValueError as error:  # its __post_init__ refuses a value
        raise SettingsError(f"{path}: {error}") from error


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(expected: Any, value: Any, path: str) -> Any:
    """`value` as the type `expected`, or `SettingsError`."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if expected is Any:
        return value
    if dataclasses.is_dataclass(expected):
        return value if isinstance(value, expected) else to_settings(expected, value, path)
    if origin is Literal and value in arguments:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, expected, value, path)
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        return _convert_tuple(arguments, expected, value, path)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: _convert(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int, but True is no count.
    is_stray_bool = isinstance(value, bool) and expected is not bool
    if isinstance(expected, type) and isinstance(value, expected) and not is_stray_bool:
        return value
    raise _wrong_type(expected, value, path)


def _convert_union(arguments: tuple, expected: Any, value: Any, path: str) -> Any:
    if value is None and types.NoneType in arguments:
        return None
    options = [option for option in arguments if option is not types.NoneType]
    for option in options:
        try:
            return _convert(option, value, path)
        except SettingsError:
            if len(options) == 1:
                raise
    raise _wrong_type(expected, value, path)


def _convert_tuple(arguments: tuple, expected: Any, value: Sequence, path: str) -> tuple:
    if arguments[-1] is Ellipsis:
        arguments = arguments[:1] * len(value)
    if len(arguments) != len(value):
        raise _wrong_type(expected, value, path)
    return tuple(
        _convert(option, item, f"{path}[{index}]")
        for index, (option, item) in enumerate(zip(arguments, value, strict=True))
    )


def _wrong_type(expected: Any, value: Any, path: str) -> SettingsError:
    if typing.get_origin(expected) is Literal:
        wanted = "one of " + ", ".join(map(repr, typing.get_args(expected)))
    else:
        wanted = expected.__name__ if isinstance(expected, type) else str(expected)
    return SettingsError(f"{path}: expected {wanted}, got {value!r} ({type(value).__name__})")
