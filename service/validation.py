"""What is wrong with a request body, in words that name the field, the value and what is valid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from service.schemas import BODIES

_MOST_NAMED = 5
_LONGEST_VALUE = 80
_VALUE_SAYS_NOTHING = frozenset(("missing", "misfit", "json_invalid"))
"""Kinds of mistake whose input is the whole body, or whose message holds the value already."""


def describe_mistakes(error: ValidationError) -> tuple[str, str | None]:
    """The message of a body that does not validate, and the first field to blame."""
    found = error.errors(include_url=False)
    lines = [_mistake(item, error.title) for item in found[:_MOST_NAMED]]
    if len(found) > _MOST_NAMED:
        lines.append(f"and {len(found) - _MOST_NAMED} more")
    return "; ".join(lines), _place(found[0]) or None


def _mistake(item: Mapping[str, Any], body: str) -> str:
    place = _place(item)
    if item["type"] == "extra_forbidden":
        return f"{place}: no such field, got {_shown(item['input'])}; known: {', '.join(BODIES[body].model_fields)}"
    message = str(item["msg"])
    if item["type"] not in _VALUE_SAYS_NOTHING:
        message += f", got {_shown(item['input'])}"
    return f"{place}: {message}" if place else message


def _place(item: Mapping[str, Any]) -> str:
    """The dotted name of a field; checks across fields name the one to blame in their context."""
    parts = item["loc"] or (item.get("ctx", {}).get("field", ""),)
    return ".".join(str(part) for part in parts)


def _shown(value: object) -> str:
    """A value as JSON writes it, cut short."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
