"""From hits to what people and programs read: ids, titles, texts, spans to highlight, explanations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrieval.bitmap import Bitmap
from retrieval.protocols import Explanation, Searcher, SearchRequest
from retrieval.values import Document

if TYPE_CHECKING:
    from retrieval.analysis import Analyzer
    from service.live import ServedSnapshot


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an answer should hold.

    Attributes:
        analyzer: gives the spans to highlight; None highlights nothing.
        text: the best passage of a document, all of it, or nothing.
    """

    k: int = 10
    depth: int = 1000
    allowed: Bitmap | None = None
    explain: bool = False
    analyzer: Analyzer | None = None
    text: Literal["passage", "document", "none"] = "passage"


def find(
    snapshot: ServedSnapshot, searcher: Searcher, texts: Sequence[str], wanted: Wanted
) -> list[list[dict[str, Any]]]:
    """The hits of each query as JSON objects; a blank query has none."""
    found: list[list[dict[str, Any]]] = [[] for _ in texts]
    asked = [position for position, text in enumerate(texts) if text.strip()]
    if not asked or snapshot.n_rows == 0:
        return found
    request = SearchRequest(
        k=min(wanted.k, snapshot.n_rows),
        depth=max(wanted.k, wanted.depth),
        allowed=wanted.allowed,
        explain=wanted.explain,
    )
    hits = searcher.search([texts[position] for position in asked], request)
    for line, position in enumerate(asked):
        rows = hits.rows[line]
        rows = rows[rows >= 0]
        found[position] = _hits(snapshot, rows, hits.scores[line].tolist(), wanted)
        if wanted.explain:
            for hit, explanation in zip(
                found[position], searcher.explain(texts[position], rows, request), strict=True
            ):
                hit["explanation"] = explanation_tree(explanation)
        if wanted.analyzer is not None:
            _highlight(found[position], texts[position], wanted.analyzer)
    return found


def _hits(
    snapshot: ServedSnapshot, rows: NDArray[np.int64], scores: list[float], wanted: Wanted
) -> list[dict[str, Any]]:
    documents = snapshot.documents(rows) if wanted.text == "document" else snapshot.passages(rows)
    hits = []
    for document, score in zip(documents, scores, strict=False):
        hit = {"id": document.id, "score": score, "title": document.title}
        if wanted.text != "none":
            hit["text"] = document.text
        hit["metadata"] = dict(document.metadata)
        hits.append(hit)
    if wanted.text == "passage":
        for hit, span in zip(hits, snapshot.spans(rows), strict=True):
            hit["passage"] = span
    return hits


def document_object(document: Document) -> dict[str, Any]:
    """A document as a JSON object."""
    return {
        "id": document.id,
        "title": document.title,
        "text": document.text,
        "metadata": dict(document.metadata),
    }


def explanation_tree(explanation: Explanation) -> dict[str, Any]:
    """An explanation as nested JSON objects."""
    tree: dict[str, Any] = {"label": explanation.label, "value": float(explanation.value)}
    if explanation.facts:
        tree["facts"] = dict(explanation.facts)
    if explanation.parts:
        tree["parts"] = [explanation_tree(part) for part in explanation.parts]
    return tree


def _highlight(hits: Iterable[dict[str, Any]], query: str, analyzer: Analyzer) -> None:
    terms = {term for _, _, term in analyzer.spans(query)}
    for hit in hits:
        hit["highlights"] = {
            "title": term_spans(hit["title"], terms, analyzer),
            "text": term_spans(hit.get("text", ""), terms, analyzer),
        }


def term_spans(text: str, terms: set[str], analyzer: Analyzer) -> list[tuple[int, int]]:
    """Start and end, in Unicode code points, of every word whose term is one of those."""
    return [(start, end) for start, end, term in analyzer.spans(text) if term in terms]


def to_json(value: Any) -> bytes:
    """JSON bytes; what orjson refuses (lone surrogates, huge integers) takes the slower way."""
    import orjson

    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, default=_plain).encode("ascii")


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
