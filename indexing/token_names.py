"""Explanations of late-interaction scores in words: which token of the query matched which token of the document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from retrieval.protocols import Explanation
from retrieval.values import Document


def named_tokens(
    explanations: Sequence[Explanation], encoder: Any, query: str, documents: Sequence[Document]
) -> list[Explanation]:
    """The explanations with the texts of tokens in place of their positions.

    A part's label becomes the query token. Where it matched a document token, the fact ``token`` is that one's text,
    and ``start`` and ``end`` are its characters in the document's text; tokens of the title have no such place.
    Parts of a part, which only token vectors over terms have, get the terms as labels.

    Args:
        explanations: of one document each, with a part for every vector of the query.
        encoder: of the representation, with ``query_tokens`` and ``document_tokens``.
        query: the text.
        documents: the texts as they were encoded, one for each explanation.
    """
    asked = encoder.query_tokens(query)
    vocabulary = getattr(encoder, "vocabulary", None)
    named = []
    for whole, document in zip(explanations, documents, strict=True):
        held = encoder.document_tokens(document) if whole.parts else []
        parts = zip(asked, whole.parts, strict=True) if whole.parts else ()
        named.append(
            replace(whole, parts=tuple(_named(part, token, held, vocabulary) for token, part in parts))
        )
    return named


def with_passages(
    explanations: Sequence[Explanation], passages: Sequence[tuple[int, int]]
) -> list[Explanation]:
    """The explanations with the facts ``passage start`` and ``passage end``: the characters that places count from.

    A list of a fused search explains the passage that it found, which need not be the one that is shown.

    Args:
        explanations: of one row each.
        passages: start and end of each row in its document's text.
    """
    return [
        replace(whole, facts={**whole.facts, "passage start": start, "passage end": end})
        for whole, (start, end) in zip(explanations, passages, strict=True)
    ]


def _named(
    part: Explanation, token: str, held: Sequence[tuple[str, int, int]], vocabulary: Any
) -> Explanation:
    facts = dict(part.facts)
    if "position" in facts:
        facts["token"], start, end = held[int(facts["position"])]
        if start >= 0:
            facts |= {"start": start, "end": end}
    terms = tuple(replace(term, label=vocabulary[int(term.label)]) for term in part.parts)
    return replace(part, label=token, parts=terms, facts=facts)
