"""BM25 the slow and plain way: the oracle of the BM25 index."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from retrieval.analysis.lengths import BYTE_LENGTHS, length_bytes
from retrieval.bitmap import Bitmap
from retrieval.values import Terms


def bm25_scores(
    queries: Terms,
    documents: Terms,
    *,
    k1: float = 0.9,
    b: float = 0.4,
    weights: Mapping[str, float] | None = None,
    live: Bitmap | None = None,
) -> NDArray[np.float32]:
    """The BM25 score of every query against every document, as Lucene defines it.

    Sum over fields and terms of boost * qtf * idf * tf / (tf + k1 (1 - b + b dl / avgdl)) with
    idf = ln(1 + (N - df + 0.5) / (df + 0.5)), N the live documents that have the field and dl rounded to one byte.
    Added up in float64, so it may differ from an index in the last bits of a float32.

    Args:
        queries: Q queries.
        documents: N documents with the same fields.
        k1, b: saturation and length normalisation.
        weights: field -> boost, 1 where not named.
        live: the documents that are not deleted; the others count for nothing and score 0.

    Returns:
        (Q, N) scores; 0 where no term of the query occurs.
    """
    n = len(documents)
    mask = np.ones(n, dtype=bool) if live is None else live.mask()
    lengths = documents.lengths[mask]
    n_documents = np.count_nonzero(lengths, axis=0)
    average = lengths.sum(axis=0, dtype=np.int64) / np.maximum(n_documents, 1)
    rounded = BYTE_LENGTHS[length_bytes(documents.lengths)]

    postings: dict[tuple[int, str], list[tuple[int, int]]] = {}
    vocabulary = [
        (int(field), term) for field, term in zip(documents.term_fields, documents.vocabulary, strict=True)
    ]
    for row in np.flatnonzero(mask).tolist():
        for entry in range(int(documents.indptr[row]), int(documents.indptr[row + 1])):
            key = vocabulary[documents.indices[entry]]
            postings.setdefault(key, []).append((row, int(documents.frequencies[entry])))

    scores = np.zeros((len(queries), n), dtype=np.float64)
    for query in range(len(queries)):
        for entry in range(int(queries.indptr[query]), int(queries.indptr[query + 1])):
            field = int(queries.term_fields[queries.indices[entry]])
            found = postings.get((field, queries.vocabulary[int(queries.indices[entry])]), [])
            boost = (weights or {}).get(documents.fields[field], 1.0) * int(queries.frequencies[entry])
            idf = math.log(1 + (n_documents[field] - len(found) + 0.5) / (len(found) + 0.5))
            for row, tf in found:
                norm = k1 * (1 - b + b * rounded[row, field] / average[field])
                scores[query, row] += boost * idf * tf / (tf + norm)
    return scores.astype(np.float32)
