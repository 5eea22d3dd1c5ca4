"""The compiled loop behind sparse MaxSim. Import it inside functions: numba takes a quarter of a second.

It stands alone in its file because numba's cache on disk notices a change in the file of the caller only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval.compute import kernel_cache

kernel_cache()

from numba import njit  # noqa: E402

_LARGEST = float(np.finfo(np.float32).max)


@njit(cache=True, nogil=True)
def score_rows(
    starts: Any,
    tokens: Any,
    weights: Any,
    documents: Any,
    token_indptr: Any,
    terms: Any,
    values: Any,
    rows: Any,
    out: Any,
) -> None:
    """Sparse MaxSim of one query with chosen rows.

    Products of two float32 are exact in float64 and are added in the order of the document token's terms, so a
    score depends on the query and the row alone.

    Args:
        starts: (V + 1,) int32, where the entries of each term start in tokens and weights.
        tokens: (E,) int32, the query token of an entry, 0 .. L-1, all of them occurring.
        weights: (E,) float32, the weight of the term in that token.
        documents: (N + 1,) int64, where the tokens of each row start.
        token_indptr: (T + 1,) int64, where the terms of each token start.
        terms: (nnz,) int32; one outside the vocabulary matches nothing.
        values: (nnz,) float32.
        rows: (C,) int64; -1 scores -inf.
        out: (C,) float32, written; beyond the range of float32 the score is its largest number.
    """
    n_terms = len(starts) - 1
    n_tokens = 0
    for entry in range(len(tokens)):
        n_tokens = max(n_tokens, tokens[entry] + 1)
    products = np.empty(n_tokens, dtype=np.float64)
    largest = np.empty(n_tokens, dtype=np.float64)
    for place in range(len(rows)):
        row = rows[place]
        if row < 0:
            out[place] = -np.inf
            continue
        first, last = documents[row], documents[row + 1]
        if first == last:
            out[place] = 0.0
            continue
        largest[:] = -np.inf
        for token in range(first, last):
            products[:] = 0.0
            for at in range(token_indptr[token], token_indptr[token + 1]):
                term = terms[at]
                if 0 <= term < n_terms:
                    for entry in range(starts[term], starts[term + 1]):
                        products[tokens[entry]] += np.float64(weights[entry]) * np.float64(values[at])
            for i in range(n_tokens):
                largest[i] = max(largest[i], products[i])
        out[place] = min(max(largest.sum(), -_LARGEST), _LARGEST)
