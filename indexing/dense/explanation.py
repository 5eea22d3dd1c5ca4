"""Why a row scores what it does for a dense query."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexing.dense.scan import checked, score_rows
from retrieval.protocols import Explanation
from retrieval.values import Dense


def explain_inner_products(vectors: Dense, queries: Dense, rows: NDArray[np.integer]) -> list[Explanation]:
    """The inner product of the first query with each row: what the dense part of a score is made of."""
    query = checked(queries, vectors.dim)[:1]
    chosen = np.asarray(rows, dtype=np.int64)
    scores = score_rows(vectors, query, chosen[None, :])[0]
    length = float(np.linalg.norm(query[0].astype(np.float64)))
    lengths = np.linalg.norm(vectors.values[chosen].astype(np.float64), axis=1)
    return [
        Explanation(
            "inner product of query and document vector",
            float(score),
            facts={
                "dim": vectors.dim,
                "cosine": float(score / (length * norm)) if length * norm else 0.0,
                "query norm": length,
                "document norm": float(norm),
            },
        )
        for score, norm in zip(scores, lengths, strict=True)
    ]
