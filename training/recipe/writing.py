"""A recipe as TOML: everything that was decided, defaults too, so that a run can be repeated from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from retrieval.errors import ConfigError
from training.recipe.options import Recipe

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def recipe_toml(recipe: Recipe) -> str:
    """The resolved recipe; ``read_recipe`` makes the same value of it. Keys without a value are left out.

    Raises:
        ConfigError: an option of a family or loss that TOML has no value for.
    """
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    lines = _keys({name: value for name, value in values.items() if not _is_table(value)})
    for name, value in values.items():
        for one in value if isinstance(value, tuple) else (value,):
            if is_dataclass(one):
                header = f"[[{name}]]" if isinstance(value, tuple) else f"[{name}]"
                lines += ["", header, *_keys({field.name: getattr(one, field.name) for field in fields(one)})]
    return "\n".join(lines) + "\n"


def _is_table(value: Any) -> bool:
    return is_dataclass(value) or isinstance(value, tuple)


def _keys(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_value(value, name)}" for name, value in values.items() if value is not None]


def _value(value: Any, name: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(one, name) for one in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(one, key)}" for key, one in value.items()) + "}"
    raise ConfigError(
        f"{name} is {value!r}; a recipe has numbers, strings, true, false, lists and tables alone"
    )


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    """TOML's basic strings are JSON's, but for the character 127."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
