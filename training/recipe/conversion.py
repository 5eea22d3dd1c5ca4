"""From the tables of a TOML file to the dataclasses of a recipe, whatever fields those have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from indexing.corpora.fields import described
from retrieval.errors import ConfigError
from training.recipe.ranges import RANGES

T = TypeVar("T")

_NUMBER = re.compile(r"\.\d+")


def convert(table: Mapping[str, Any], kind: type[T], key: str = "") -> T:
    """A dataclass from a table with a key for each of its fields.

    Args:
        table: as ``tomllib`` reads it.
        kind: the dataclass.
        key: of the table in the file; empty for the whole file.

    Raises:
        ConfigError: an unknown key, a missing one, a value of another type or out of range; names the key.
    """
    hints = get_type_hints(kind)
    known: dict[str, Field[Any]] = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for name in table:
        if name not in known:
            raise unknown_key(_joined(key, name), name, known, key)
    for name, field in known.items():
        if name not in table and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{_joined(key, name)} is missing; it has no default")
    return kind(
        **{name: _value(table[name], hints[name], _joined(key, name)) for name in known if name in table}
    )


def unknown_key(key: str, name: str, valid: Mapping[str, Any], table: str) -> ConfigError:
    """The error for a key that does not exist."""
    near = difflib.get_close_matches(name, valid, n=1)
    meant = f"; did you mean {_joined(table, near[0])!r}?" if near else ""
    where = f"[{table}]" if table else "a recipe"
    return ConfigError(f"unknown key {key!r}{meant} (valid in {where}: {', '.join(valid)})")


def _value(value: Any, hint: Any, key: str) -> Any:
    if get_origin(hint) is UnionType:  # with None, which TOML has no word for: the key is left out
        (hint,) = {*get_args(hint)} - {NoneType}
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise _wrong(key, value, "a table")
        return convert(value, hint, key)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise _wrong(key, value, "a list")
        return tuple(_value(one, get_args(hint)[0], f"{key}.{place}") for place, one in enumerate(value))
    if get_origin(hint) is Mapping:
        if not isinstance(value, Mapping):
            raise _wrong(key, value, "a table")
        return dict(value)
    return _in_range(_scalar(value, hint, key), key)


def _scalar(value: Any, hint: Any, key: str) -> Any:
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        words = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
        raise _wrong(key, value, words[hint])
    return value


def _in_range(value: Any, key: str) -> Any:
    valid = RANGES.get(_NUMBER.sub("", key))
    if valid is not None and value not in valid:
        raise ConfigError(f"{key} is {value!r}; it must be {valid}")
    return value


def _wrong(key: str, value: Any, needed: str) -> ConfigError:
    return ConfigError(f"{key} is {described(value)}; it must be {needed}")


def _joined(table: str, name: str) -> str:
    return f"{table}.{name}" if table else name
