"""From a text query to hits of a snapshot: encode, search every segment, merge, collapse chunks to documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexing.commit import Representation
from indexing.planner import planned_search
from indexing.term_names import named_terms
from indexing.token_names import named_tokens, with_passages
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, unknown_name
from retrieval.protocols import Encoder, Explanation, Searcher, SearchRequest
from retrieval.topk import merge
from retrieval.values import Hits, MultiSparse, MultiVector, Sparse, Terms

if TYPE_CHECKING:
    from indexing.collection import CollectionSnapshot
    from indexing.segment import Segment


@dataclass(frozen=True, eq=False)
class RepresentationSearcher:
    """Searches one representation through one kind of index, over all segments.

    Attributes:
        name: the representation.
        kind: the index kind.
        parameters: search-time parameters that replace fields of the index (``ef``, ...).
    """

    snapshot: CollectionSnapshot
    name: str
    kind: str
    encoder: Encoder[Any, Any]
    parameters: Mapping[str, Any]

    @property
    def floor(self) -> float | None:
        """What a document scores that shares nothing with the query and is not returned; None: there is no such."""
        return 0.0 if self.encoder.value in (Terms, Sparse, MultiSparse) else None

    def search(self, queries: Sequence[str], request: SearchRequest) -> Hits:
        """The best documents of each query, each by its best row."""
        if not self.snapshot.segments:  # nothing yet that an encoder could have been fitted on
            return Hits.none(len(queries), request.k, self.snapshot.token)
        return self.search_encoded(self.encoder.encode_queries(list(queries)), request)

    def search_encoded(self, queries: Any, request: SearchRequest) -> Hits:
        """The same for queries that are encoded already."""
        if not self.snapshot.chunked:
            return self._search_rows(queries, request)
        # Chunks of one document may fill the list, so more rows than k are asked for until k documents are found.
        rows_per_document = self.snapshot.n_rows / max(
            1, sum(e.n_documents for e in self.snapshot.commit.segments)
        )
        wanted = int(request.k * min(4.0, rows_per_document)) + 8
        while True:
            hits = self._search_rows(queries, replace(request, k=wanted))
            collapsed, counts = collapse(hits, self.snapshot.document_numbers(hits.rows), request.k)
            exhausted = hits.rows[:, -1] < 0
            if bool(np.all(exhausted | (counts >= request.k))) or wanted >= self.snapshot.n_rows:
                return collapsed
            wanted *= 2

    def _search_rows(self, queries: Any, request: SearchRequest) -> Hits:
        parts = []
        for segment, index, allowed in self._parts(queries, request.allowed):
            local = planned_search(index, queries, replace(request, allowed=allowed))
            rows = np.where(local.rows >= 0, local.rows + segment.base, -1)
            parts.append(Hits(rows, local.scores, self.snapshot.token))
        if not parts:
            return Hits.none(len(queries), request.k, self.snapshot.token)
        return parts[0] if len(parts) == 1 else merge(parts, request.k)

    def _parts(self, queries: Any, allowed: Bitmap | None) -> list[tuple[Segment, Any, Bitmap | None]]:
        """Every segment with its index and the rows that may be returned, deletes taken off."""
        indexes = (
            [
                replace(segment.index(self.name, self.kind), **self.parameters)
                for segment in self.snapshot.segments
            ]
            if self.parameters
            else [segment.index(self.name, self.kind) for segment in self.snapshot.segments]
        )
        if indexes and hasattr(indexes[0], "statistics"):
            indexes = self._with_statistics(indexes, queries)
        parts = []
        for segment, index in zip(self.snapshot.segments, indexes, strict=True):
            rows = segment.live
            if allowed is not None:
                part = allowed.slice(segment.base, segment.base + segment.n_rows)
                rows = part if rows is None else part & rows
            parts.append((segment, index, rows))
        return parts

    def _with_statistics(self, indexes: list[Any], queries: Any) -> list[Any]:
        """Sum the statistics of live rows over all segments before any of them scores."""
        total = None
        for segment, index in zip(self.snapshot.segments, indexes, strict=True):
            part = index.statistics(queries, segment.live)
            total = part if total is None else total + part
        return [index.with_statistics(total) for index in indexes]

    def explain(
        self, query: str, rows: NDArray[np.integer], request: SearchRequest | None = None
    ) -> list[Explanation]:
        """Why each row scores what it does, whatever the request."""
        encoded = self.encoder.encode_queries([query])
        explained: dict[int, Explanation] = {}
        for segment, index, _ in self._parts(encoded, None):
            inside = [int(row) for row in rows if segment.base <= row < segment.base + segment.n_rows]
            if inside:
                parts = index.explain(encoded, np.array(inside, dtype=np.int64) - segment.base)
                explained.update(zip(inside, self._in_words(parts, query, inside), strict=True))
        return [explained[int(row)] for row in rows]

    def _in_words(self, explanations: list[Explanation], query: str, rows: list[int]) -> list[Explanation]:
        """Explanations whose parts are numbers with the words they stand for.

        The collection's own encoder knows these; the one that encodes here may be a wrapper that batches.
        """
        if self.encoder.value is Sparse:
            return named_terms(explanations, self.snapshot.encoder(self.name), query)
        if self.encoder.value in (MultiVector, MultiSparse):
            chosen = np.array(rows, dtype=np.int64)
            passages = self.snapshot.passages(chosen)
            named = named_tokens(explanations, self.snapshot.encoder(self.name), query, passages)
            return with_passages(named, self.snapshot.spans(chosen)) if self.snapshot.chunked else named
        return explanations


def collapse(hits: Hits, documents: NDArray[np.int64], k: int) -> tuple[Hits, NDArray[np.int64]]:
    """Keep the first (best) row of every document.

    Args:
        documents: (Q, K) document number of each row, -1 for padding.
        k: documents to keep.

    Returns:
        (Q, k) hits, and (Q,) how many documents were found before the cut.
    """
    out = Hits.none(len(hits), k, hits.snapshot)
    counts = np.zeros(len(hits), dtype=np.int64)
    for query in range(len(hits)):
        found = documents[query] >= 0
        _, first = np.unique(documents[query][found], return_index=True)
        first.sort()
        counts[query] = len(first)
        first = first[:k]
        out.rows[query, : len(first)] = hits.rows[query][first]
        out.scores[query, : len(first)] = hits.scores[query][first]
    return out, counts


OWN_NAMES = {
    "lucene-bm25": "bm25",
    "lucene-impact": "sparse",
    "plaid": "late",
    "fde": "late",
    "hypencoder-graph": "hypencoder",
}
"""Kinds that are asked for by their own name, and the representation they usually index."""

MAX_PARTS = 8
"""Names that "+" may join: each is searched, so one request could ask for any amount of work."""


def index_names(representations: Mapping[str, Representation]) -> dict[str, tuple[str, str]]:
    """Every name a single index can be asked for by: "dense" (its first index) and "dense-hnsw".

    A kind of ``OWN_NAMES``, which tells what it is over, goes by that as well.
    """
    names: dict[str, tuple[str, str]] = {}
    for name, representation in representations.items():
        for spec in representation.indexes:
            names.setdefault(name, (name, spec.kind))
            names[f"{name}-{spec.kind}"] = (name, spec.kind)
    for name, kind in list(names.values()):
        if kind in OWN_NAMES:
            names.setdefault(kind, (name, kind))
    return names


def searcher_names(representations: Mapping[str, Representation]) -> list[str]:
    """What ``using`` accepts, the default first."""
    names = list(index_names(representations))
    return ["hybrid", *names] if len(representations) > 1 else names


def split_using(using: str) -> tuple[str, str]:
    """The fusion method ("" where none is written) and the names of what ``CollectionSnapshot.searcher`` takes.

    Raises:
        ConfigError: there is no such method.
    """
    method, _, names = using.rpartition(":")
    if method:
        from retrieval.fusion import METHODS

        if method not in METHODS:
            raise unknown_name("fusion method", method, METHODS)
    return method, names


def parse_using(representations: Mapping[str, Representation], using: str) -> tuple[str, list[str]]:
    """The fusion method ("" where none is written) and the name of each index that is searched.

    Raises:
        ConfigError: a name does not exist, two are one index, or there are more than ``MAX_PARTS``.
    """
    method, names = split_using(using)
    names = names or searcher_names(representations)[0]
    if names == "hybrid":
        return method, list(representations)
    parts = names.split("+")
    if len(parts) > MAX_PARTS:
        raise ConfigError(f"cannot search using {len(parts)} names joined by +; at most {MAX_PARTS}")
    known = index_names(representations)
    named: dict[tuple[str, str], str] = {}
    for part in parts:
        if part not in known:
            raise ConfigError(
                f"cannot search using {part!r}; this collection has: {', '.join(searcher_names(representations))} "
                '(join several with "+")'
            )
        if known[part] in named:
            raise ConfigError(f"cannot search using {names!r}: {named[known[part]]} and {part} are one index")
        named[known[part]] = part
    return method, parts


def make_searcher(
    snapshot: CollectionSnapshot,
    using: str,
    rerank: str | None,
    encoders: Mapping[str, Encoder[Any, Any]],
    *,
    query_bank: bool = False,
) -> Searcher:
    """See ``CollectionSnapshot.searcher``."""
    representations = snapshot.representations
    method, parts = parse_using(representations, using)
    known = index_names(representations)
    plain: list[RepresentationSearcher] = []
    for part in parts:
        name, kind = known[part]
        encoder = encoders.get(name) or snapshot.encoder(name)
        plain.append(RepresentationSearcher(snapshot, name, kind, encoder, {}))
    searchers: list[Searcher] = [*plain]
    if query_bank:
        from indexing.query_banks import normalised_searchers

        searchers = normalised_searchers(snapshot, plain)
    single = [(part, own, 1.0) for part, own in zip(parts, searchers, strict=True)]
    if len(single) == 1 and not method:
        searcher: Searcher = searchers[0]
    else:
        from retrieval.fusion import Fused

        documents = snapshot.document_numbers if snapshot.chunked else None
        searcher = Fused(tuple(single), method or "minmax", documents)
    if rerank is None:
        return searcher
    from retrieval.rerank import Reranked, open_reranker

    return Reranked(searcher, open_reranker(rerank), snapshot)
