"""Late interaction between sparse token vectors: exact scores of chosen rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import parallel
from retrieval.values import MultiSparse, Sparse

_GRAIN = 64  # documents worth a thread: about 1 ms


def sparse_maxsim(
    queries: MultiSparse, documents: MultiSparse, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Every query token takes its best document token of a row, and the maxima are summed.

    The similarity of two tokens is the inner product over the vocabulary (Li, Lin, Ma & Lin, "SLIM", SIGIR 2023,
    arXiv:2302.06587). A row without tokens scores 0, and so does every row for a query without tokens.

    Args:
        queries: Q texts.
        documents: N texts over the same vocabulary.
        rows: (Q, C) the rows to score for each query, -1 for padding.

    Returns:
        (Q, C) scores, -inf for padding; they depend on query and row alone, not on batch or thread.

    Raises:
        ValueError: the vocabularies differ in size, or a query has a term outside its own.
    """
    if queries.dim != documents.dim:
        raise ValueError(
            f"queries have width {queries.dim}, documents {documents.dim}; encode both with one model"
        )
    indices = queries.tokens.indices
    if len(indices) and not (0 <= int(indices.min()) and int(indices.max()) < queries.dim):
        raise ValueError(f"a query has a term outside the vocabulary of {queries.dim}")
    from retrieval.kernels import frozen
    from retrieval.sparse_maxsim_kernels import score_rows

    scores = np.empty(rows.shape, dtype=np.float32)
    tokens = documents.tokens
    arrays: tuple[NDArray[Any], ...] = (documents.indptr, tokens.indptr, tokens.indices, tokens.values)
    stored = [frozen(array) for array in arrays]

    def score(query: int, columns: slice) -> None:
        low, high = int(queries.indptr[query]), int(queries.indptr[query + 1])
        entries = _entries_by_term(queries.tokens[low:high])
        score_rows(*entries, *stored, frozen(rows[query, columns]), scores[query, columns])

    def score_queries(part: slice) -> None:
        for query in range(part.start, part.stop):
            score(query, slice(None))

    if len(queries) == 1:
        parallel(lambda part: score(0, part), rows.shape[1], grain=_GRAIN)
    else:
        parallel(score_queries, len(queries), grain=max(1, _GRAIN // max(1, rows.shape[1])))
    return scores


def _entries_by_term(
    tokens: Sparse,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """The tokens of a query by column: where each term starts, and the token and weight of each entry."""
    order = np.argsort(tokens.indices, kind="stable")
    owners = np.repeat(np.arange(len(tokens), dtype=np.int32), np.diff(tokens.indptr))
    starts = np.zeros(tokens.dim + 1, dtype=np.int32)
    np.cumsum(np.bincount(tokens.indices, minlength=tokens.dim), out=starts[1:])
    return starts, owners[order], tokens.values[order]
