"""The compiled search for candidates: documents near a query's tokens by centroid alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.compiled import kernel, no_nan_kernel


@kernel
def _keep_best(found: NDArray[np.int32], values: NDArray[np.float32], size: int, wanted: int) -> int:
    """Move the best of the first ``size`` entries to the front, at most ``wanted``; returns how many."""
    if size <= wanted:
        return size
    least = np.partition(values[:size], size - wanted)[size - wanted]
    ties = wanted
    for i in range(size):
        ties -= values[i] > least
    kept = 0
    for i in range(size):
        if values[i] < least:
            continue
        if values[i] == least:
            if ties == 0:
                continue
            ties -= 1
        found[kept], values[kept] = found[i], values[i]
        kept += 1
    return kept


@no_nan_kernel
def nearest_centroids(
    similarities: NDArray[np.float32],
    n_tokens: int,
    found: NDArray[np.int32],
    values: NDArray[np.float32],
    nprobe: int,
) -> None:
    """The centroids nearest to each token of a query.

    Args:
        similarities: (C, L') inner products of centroids and tokens; those past n_tokens are ignored.
        n_tokens: L.
        found: (L, S) their numbers, the first nprobe of a line written, the nearest first; S is above nprobe.
        values: (L, S) their inner products.
        nprobe: how many, at most C.
    """
    counts = np.zeros(n_tokens, dtype=np.int64)
    floors = np.full(similarities.shape[1], np.inf, dtype=np.float32)  # which padding is never above
    floors[:n_tokens] = -np.inf
    for centroid in range(len(similarities)):
        line = similarities[centroid]
        above = False
        for q in range(len(line)):
            above |= line[q] > floors[q]
        if not above:
            continue
        for q in range(n_tokens):
            if line[q] > floors[q]:
                size = counts[q]
                found[q, size], values[q, size] = centroid, line[q]
                size += 1
                if size == found.shape[1]:
                    size = _keep_best(found[q], values[q], size, nprobe)
                    floors[q] = values[q, :size].min()
                counts[q] = size
    for q in range(n_tokens):
        size = _keep_best(found[q], values[q], counts[q], nprobe)
        order = np.argsort(-values[q, :size], kind="mergesort")
        found[q, :size] = found[q, :size][order]
        values[q, :size] = values[q, :size][order]


@kernel
def probe(
    found: NDArray[np.int32],
    values: NDArray[np.float32],
    nprobe: int,
    starts: NDArray[np.int64],
    gaps: NDArray[np.uint8],
    allowed: NDArray[np.uint8],
    marks: NDArray[np.int32],
    gains: NDArray[np.float32],
    touched: NDArray[np.int64],
) -> int:
    """The documents in the lists of the nearest centroids, and what they gain over one that is in none.

    A document in the list of a token's centroid has that centroid's similarity for the token, the largest where it is
    in several; for a token without, it is given the similarity of the last centroid probed, an upper bound of what it
    misses by (WARP's imputation; Scheerer et al., SIGIR 2025). The gain is what it has beyond those.

    Args:
        found, values: (L, S) see ``nearest_centroids``.
        starts, gaps: the lists.
        allowed: packed bits of the rows that may be returned; empty for all.
        marks: (N,) zeros.
        gains: (N,) written for the rows that are touched.
        touched: (N,) written.

    Returns:
        How many documents are touched. Their marks are left for the caller to clear.
    """
    count = 0
    for q in range(len(found)):
        missed = values[q, nprobe - 1]
        for i in range(nprobe):
            gain = values[q, i] - missed
            row = np.int64(-1)
            at, stop = starts[found[q, i]], starts[found[q, i] + 1]
            while at < stop:
                byte, shift, gap = np.int64(gaps[at]), 0, np.int64(0)
                at += 1
                while byte > 127:
                    gap |= (byte & 127) << shift
                    shift += 7
                    byte = np.int64(gaps[at])
                    at += 1
                row += gap | (byte << shift)
                if marks[row] == q + 1 or (len(allowed) and not (allowed[row >> 3] >> (row & 7)) & 1):
                    continue
                if marks[row] == 0:
                    touched[count] = row
                    count += 1
                    gains[row] = np.float32(0.0)
                marks[row] = q + 1
                gains[row] += gain
    return count


@kernel
def collect(
    touched: NDArray[np.int64], marks: NDArray[np.int32], gains: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """The gains of the touched documents, side by side; their marks are cleared."""
    for i in range(len(touched)):
        out[i] = gains[touched[i]]
        marks[touched[i]] = 0


@no_nan_kernel
def interact(
    similarities: NDArray[np.float32],
    n_tokens: int,
    indptr: NDArray[np.int64],
    codes: NDArray[Any],
    rows: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """MaxSim of a query with documents, every token taken for its centroid (PLAID's centroid interaction).

    Args:
        similarities: (C, L') inner products of centroids and tokens; those past n_tokens are ignored.
        n_tokens: L.
        indptr: (N + 1,) where the tokens of documents begin.
        codes: (T,) centroids.
        rows: (M,) documents that have tokens.
        out: (M,) written.
    """
    best = np.empty(similarities.shape[1], dtype=np.float32)
    for at in range(len(rows)):
        first, last = indptr[rows[at]], indptr[rows[at] + 1]
        best[:] = -np.inf
        for token in range(
            first, last, 4
        ):  # four at a time, so that the maxima are loaded and stored a quarter as often
            a = similarities[codes[token]]
            b = similarities[codes[min(token + 1, last - 1)]]
            c = similarities[codes[min(token + 2, last - 1)]]
            d = similarities[codes[min(token + 3, last - 1)]]
            for q in range(len(best)):
                best[q] = max(best[q], max(max(a[q], b[q]), max(c[q], d[q])))
        total = 0.0
        for q in range(n_tokens):
            total += np.float64(best[q])
        out[at] = total
