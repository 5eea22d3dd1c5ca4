"""Explanations of learned-sparse scores in words: which terms matched, and which of them the model added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from retrieval.protocols import Explanation


def named_terms(explanations: Sequence[Explanation], encoder: Any, query: str) -> list[Explanation]:
    """The explanations with terms instead of their numbers as labels of the parts.

    Each part gets the fact ``term``: "of the query", or "expansion" where the query's text does not have it.

    Args:
        explanations: by an index over ``Sparse``; a part's label is the number of a term.
        encoder: of the representation, with ``names_in`` and ``tokens_of``.
        query: the text.
    """
    names, own = encoder.names_in(query), set(encoder.tokens_of(query).tolist())

    def named(part: Explanation) -> Explanation:
        term = int(part.label)
        origin = "of the query" if term in own else "expansion"
        return replace(part, label=names[term], facts={"term": origin, **part.facts})

    return [replace(whole, parts=tuple(map(named, whole.parts))) for whole in explanations]
