"""Values set beside a recipe's file: ``optim.lr=2e-5``, ``losses.0.weight=2``."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from retrieval.errors import ConfigError


def override(tables: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The tables with each value set in turn.

    A key is the path to a value; a number is the place in a list, where the one after the last adds an entry. The value
    is read as TOML and is a string where it is none; no value at all takes the key out, so that its default counts.

    Args:
        tables: as ``tomllib`` reads them; not changed.
        overrides: ``key=value`` each.

    Raises:
        ConfigError: there is no "=", or a part of the path leads nowhere; names the override.
    """
    changed: Any = tables
    for one in overrides:
        key, equals, text = one.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise ConfigError(f"--set {one!r}: needed is key=value, such as optim.lr=2e-5")
        changed = _set(changed, path, text.strip(), one)
    return dict(changed)


def _set(value: Any, path: Sequence[str], text: str, shown: str) -> Any:
    """The value with what stands at the path replaced."""
    if not path:
        return _parsed(text)
    name, rest = path[0], path[1:]
    if isinstance(value, list) or (value is None and name.isdigit()):
        items = value or []
        if not name.isdigit() or int(name) > len(items):
            raise ConfigError(f"--set {shown}: {name!r} is no place in a list of {len(items)} (from 0)")
        place = int(name)
        before = items[place] if place < len(items) else None
        return [*items[:place], _set(before, rest, text, shown), *items[place + 1 :]]
    if not isinstance(value, dict | None):
        raise ConfigError(f"--set {shown}: there is no key {name!r} in {value!r}, which is no table")
    table = dict(value or {})
    if not rest and not text:
        table.pop(name, None)
        return table
    return {**table, name: _set(table.get(name), rest, text, shown)}


def _parsed(text: str) -> Any:
    try:
        tables = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return tables["value"] if len(tables) == 1 else text
