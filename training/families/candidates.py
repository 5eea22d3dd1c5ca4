"""What a reranker is given to put in order while it is measured."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from indexing.bm25.index import Bm25Index
from retrieval.encoders.terms import TermsEncoder
from retrieval.protocols import SearchRequest
from retrieval.values import Document, Hits

_MEMORY_BYTES = 1 << 28


def bm25_candidates(queries: Sequence[str], documents: Sequence[str], k: int) -> Hits:
    """BM25's best k documents of each query; a row is a document's place in the sequence."""
    encoder = TermsEncoder()
    terms = encoder.encode_documents([Document(str(row), text) for row, text in enumerate(documents)])
    parameters = Bm25Index.parameters({})
    with tempfile.TemporaryDirectory(prefix="tercet-") as temporary:
        folder = Path(temporary)
        Bm25Index.build(terms, folder, parameters, memory_bytes=_MEMORY_BYTES, progress=lambda _: None)
        index = Bm25Index.load(folder, terms, parameters)
        return index.search(encoder.encode_queries(list(queries)), SearchRequest(k=k))
