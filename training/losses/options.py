"""Options of losses: what a recipe may say, read off a function's keyword-only arguments."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from retrieval.errors import ConfigError, unknown_name
from training.recipe.ranges import Numbers

Positive = Annotated[float, Numbers(0, open=True)]
Count = Annotated[int, Numbers(0)]


def checked_options(loss: str, function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, all of which the function takes.

    Args:
        loss: the name in the table, for messages.
        function: its keyword-only arguments are the options; annotated with float, int, bool, str, a Literal, a union
            of these, or one of them ``Annotated`` with a range, such as ``Positive``.
        options: what a recipe says.

    Raises:
        ConfigError: an option that does not exist, or a value that it cannot have.
    """
    parameters = inspect.signature(function).parameters.values()
    valid = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    hints = get_type_hints(function, include_extras=True)
    for name, value in options.items():
        if name not in valid:
            raise unknown_name(f"option of loss {loss!r}", name, valid or ["none"])
        if not _fits(value, hints[name]):
            raise ConfigError(
                f"option {name!r} of loss {loss!r} is {value!r}; it must be {_said(hints[name])}"
            )
    return dict(options)


def _fits(value: Any, hint: Any) -> bool:
    """Whether the value is of the annotated type; an int is a float too, a bool is neither."""
    if get_origin(hint) is Annotated:
        base, bounds = get_args(hint)
        return _fits(value, base) and value in bounds
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint


def _said(hint: Any) -> str:
    """The annotation in words."""
    if get_origin(hint) is Annotated:
        base, bounds = get_args(hint)
        return f"{_said(base)} {bounds}"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_said(part) for part in get_args(hint) if part is not NoneType)
    return {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}[hint]
