"""A ranking with ids, what evaluation and the service hand out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Run = Mapping[str, Sequence[tuple[str, float]]]
"""Query id -> (document id, score) pairs, best first."""
