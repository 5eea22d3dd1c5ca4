"""Several sparse vectors a text made one, so that a plain inverted index can find candidates for MaxSim.

With weights of at least 0 the order of maximum and sum decides which way the inner product of the fused vectors
errs (Li, Lin, Ma & Lin, "SLIM", SIGIR 2023, arXiv:2302.06587, section 3.2). For query tokens q_i, document tokens d_j
and d[t] = max_j d_j[t]:

    upper:  sum_i sum_t q_i[t] d[t]              >=  MaxSim = sum_i max_j sum_t q_i[t] d_j[t]
    lower:  sum_i q_i[m_i] d[m_i], m_i = argmax_t q_i[t]  <=  MaxSim
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.sparse_rows import heaviest, row_offsets
from retrieval.values import MultiSparse, Sparse


def fused_documents(vectors: MultiSparse) -> Sparse:
    """The largest weight of each term over the tokens of a text.

    Args:
        vectors: N texts, weights at least 0.

    Returns:
        (N, V); terms without a positive weight are left out.
    """
    return _reduced(vectors, np.maximum.reduceat)


def upper_queries(queries: MultiSparse) -> Sparse:
    """(Q, V): the weights of each term added up over tokens; with fused documents, at least MaxSim."""
    return _reduced(queries, np.add.reduceat)


def lower_queries(queries: MultiSparse) -> Sparse:
    """(Q, V): the same of each token's heaviest term alone (of equals the lowest); at most MaxSim."""
    return _reduced(MultiSparse(queries.indptr, heaviest(queries.tokens, 1)), np.add.reduceat)


def last_term_queries(queries: MultiSparse) -> Sparse:
    """(Q, V): what Pyserini has for the lower score, the lightest term of a query's last token.

    Its ``SlimQueryEncoder`` looks for the heaviest term but then stores the one its loop ended with, which is
    bounded by MaxSim as well. Of equal weights the highest term is last.
    """
    tokens = queries.tokens
    owners = np.repeat(np.arange(len(tokens)), np.diff(tokens.indptr))
    order = np.lexsort((tokens.indices, -tokens.values, owners))
    order = order[tokens.values[order] > 0]
    rows = _rows_of_tokens(queries)[owners[order]]
    last = order[np.flatnonzero(np.diff(rows, append=len(queries)))]
    counts = np.minimum(np.bincount(rows, minlength=len(queries)), 1)
    return Sparse(row_offsets(counts), tokens.indices[last], tokens.values[last], queries.dim)


def mixed(first: Sparse, second: Sparse, weight: float) -> Sparse:
    """``weight`` times the rows of the first, plus ``1 - weight`` times those of the second; zeros are left out."""
    owners = [np.repeat(np.arange(len(rows)), np.diff(rows.indptr)) for rows in (first, second)]
    values = [first.values * np.float64(weight), second.values * np.float64(1 - weight)]
    return _grouped(
        np.concatenate(owners),
        np.concatenate([first.indices, second.indices]),
        np.concatenate(values),
        (len(first), first.dim),
        np.add.reduceat,
    )


FUSIONS: dict[str, Callable[[MultiSparse, float], Sparse]] = {
    "fused": lambda queries, weight: mixed(upper_queries(queries), lower_queries(queries), weight),
    "upper": lambda queries, weight: upper_queries(queries),
    "lower": lambda queries, weight: lower_queries(queries),
    "pyserini": lambda queries, weight: mixed(upper_queries(queries), last_term_queries(queries), weight),
}
"""How a query's tokens become one vector; the weight is that of the upper score where two are mixed."""


def without_common_terms(queries: Sparse, frequencies: NDArray[np.int64], n: int, min_idf: float) -> Sparse:
    """The queries without terms whose idf, log(N / df), is below ``min_idf``.

    A term no document has goes as well, and a query without a rarer term keeps the ones it has, for it would find
    nothing.

    Args:
        queries: (Q, V).
        frequencies: (V,) documents that have the term.
        n: how many documents there are.
        min_idf: with 0 every term stays that some document has.
    """
    df = frequencies[queries.indices]
    known = df > 0
    rare = known & (df <= n * np.exp(-min_idf))
    owners = np.repeat(np.arange(len(queries)), np.diff(queries.indptr))
    has_rare = np.bincount(owners[rare], minlength=len(queries)) > 0
    kept = np.where(has_rare[owners], rare, known)
    counts = np.bincount(owners[kept], minlength=len(queries))
    return Sparse(row_offsets(counts), queries.indices[kept], queries.values[kept], queries.dim)


def _rows_of_tokens(vectors: MultiSparse) -> NDArray[np.int64]:
    """(T,) the text each token belongs to."""
    return np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))


def _reduced(vectors: MultiSparse, reduce: Callable[..., Any]) -> Sparse:
    """The tokens of each text reduced term by term."""
    tokens = vectors.tokens
    owners = np.repeat(_rows_of_tokens(vectors), np.diff(tokens.indptr))
    return _grouped(owners, tokens.indices, tokens.values, (len(vectors), tokens.dim), reduce)


def _grouped(
    owners: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[Any],
    shape: tuple[int, int],
    reduce: Callable[..., Any],
) -> Sparse:
    """Entries of a matrix, those of one place reduced to one; what is not positive is left out."""
    n, dim = shape
    keys = owners * dim + indices
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    sums = reduce(values[order].astype(np.float64), starts).astype(np.float32) if len(keys) else values[:0]
    kept = sums > 0
    places = keys[starts][kept]
    counts = np.bincount(places // dim, minlength=n)
    return Sparse(row_offsets(counts), (places % dim).astype(np.int32), sums[kept].astype(np.float32), dim)
