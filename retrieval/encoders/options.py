"""Options of an encoder family: names, types and defaults in one table, checked in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrieval.errors import ConfigError, unknown_name

PLACEMENT = ("device", "dtype")
"""Options that say where and how a model runs, not what it computes."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        kind: its type; int also passes for float.
        default: its value when not given; None means "as the model says".
        least: the smallest number allowed.
    """

    kind: type
    default: Any = None
    least: float | None = None


def read_options(family: str, given: Mapping[str, Any], table: Mapping[str, Option]) -> dict[str, Any]:
    """Every option of the table with its given or default value.

    Raises:
        ConfigError: an option that does not exist (the message lists those that do) or has a wrong value.
    """
    values = {name: option.default for name, option in table.items()}
    for name, value in given.items():
        if name not in table:
            raise unknown_name(f"option of the {family} encoder", name, table)
        values[name] = _checked(family, name, value, table[name])
    return values


def chosen_options(values: Mapping[str, Any], table: Mapping[str, Option]) -> dict[str, Any]:
    """The options a spec names: those with other values than the table's, but not where and how the model runs."""
    return {
        name: value
        for name, value in values.items()
        if name not in PLACEMENT and value != table[name].default
    }


def _checked(family: str, name: str, value: Any, option: Option) -> Any:
    if value is None and option.default is None:
        return None
    if option.kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    wrong_type = not isinstance(value, option.kind) or (option.kind is not bool and isinstance(value, bool))
    if wrong_type:
        raise ConfigError(
            f"option {name!r} of the {family} encoder is {value!r}; it must be of type {option.kind.__name__}"
        )
    if option.least is not None and value < option.least:
        raise ConfigError(
            f"option {name!r} of the {family} encoder is {value!r}; it must be at least {option.least:g}"
        )
    return value
