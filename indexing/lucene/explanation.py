"""Lucene's explanations as Tercet's."""

from __future__ import annotations

from typing import Any

from retrieval.protocols import Explanation


def read_explanation(explained: Any) -> Explanation | None:
    """Lucene's tree as it is; None where the row does not match."""
    if not explained.isMatch():
        return None
    parts = (read_explanation(part) for part in explained.getDetails())
    value = float(explained.getValue().floatValue())
    return Explanation(explained.getDescription(), value, tuple(part for part in parts if part is not None))


def leaf(explained: Explanation, name: str) -> Explanation:
    """The figure that Lucene calls "NAME, what it is" somewhere in a tree.

    Raises:
        LookupError: there is none.
    """
    found = _leaf(explained, f"{name},")
    if found is None:
        raise LookupError(f"no {name!r} in Lucene's explanation {explained}")
    return found


def _leaf(explained: Explanation, start: str) -> Explanation | None:
    if not explained.parts and explained.label.startswith(start):
        return explained
    return next((found for part in explained.parts if (found := _leaf(part, start)) is not None), None)
