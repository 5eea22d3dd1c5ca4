"""The first BM25 queries of a process, in numpy: numba takes half a second to import, such a query a millisecond.

Equal to ``kernels`` to the last bit: the same float32 products, added in the same order.
"""

from __future__ import annotations

import math
import sys
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.values import Terms

_MASK = (1 << 64) - 1


class FirstQueries:
    """Which queries are answered without numba: the first few of a process, each in all its segments.

    A command that warms up, searches and explains stays without it. Once numba is imported there is nothing to save.
    """

    def __init__(self, count: int = 3) -> None:
        self._left = count
        self._current: weakref.ref[Terms] | None = None

    def include(self, queries: Terms) -> bool:
        """Whether this batch is one query and among the first; asking again for the same batch does not count."""
        if len(queries) != 1 or "numba" in sys.modules:
            return False
        if self._current is None or self._current() is not queries:
            if not self._left:
                return False
            self._left -= 1
            self._current = weakref.ref(queries)
        return True


def hash_term(term: bytes, field: int) -> int:
    """See ``term_kernels.hash_term``."""
    value = 14695981039346656037
    for byte in term:
        value = (value ^ byte) * 1099511628211 & _MASK
    value = (value ^ field) * 1099511628211 & _MASK
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCD & _MASK
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33


def look_up(
    blob: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    fields: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    term_of: NDArray[np.int32],
    buckets: NDArray[np.int64],
    known_blob: NDArray[np.uint8],
    known_offsets: NDArray[np.int64],
    known_fields: NDArray[np.uint8],
    indptr: NDArray[np.int64],
    out_terms: NDArray[np.int32],
    out_hashes: NDArray[np.uint64],
    out_frequencies: NDArray[np.int64],
) -> None:
    """See ``term_kernels.look_up``; a binary search over all hashes does without the buckets."""
    for position, field in enumerate(fields.tolist()):
        term = blob[offsets[position] : offsets[position + 1]].tobytes()
        value = hash_term(term, field)
        out_hashes[position] = value
        out_terms[position], out_frequencies[position] = -1, 0
        place = int(np.searchsorted(hashes, np.uint64(value)))
        while place < len(hashes) and int(hashes[place]) == value:
            candidate = int(term_of[place])
            known = known_blob[known_offsets[candidate] : known_offsets[candidate + 1]].tobytes()
            if known == term and int(known_fields[candidate]) == field:
                out_terms[position] = candidate
                out_frequencies[position] = indptr[candidate + 1] - indptr[candidate]
                break
            place += 1


def idf(n_documents: int, frequency: int) -> np.float32:
    """See ``kernels.idf``."""
    return np.float32(math.log(1.0 + (n_documents - frequency + 0.5) / (frequency + 0.5)))


def best_rows(
    weighted: list[tuple[np.float32, NDArray[np.int32], NDArray[Any]]],
    table: NDArray[np.float32],
    n: int,
    allowed: NDArray[np.bool_] | None,
    out_rows: NDArray[np.int64],
    out_scores: NDArray[np.float32],
) -> None:
    """Score one query over all rows.

    Args:
        weighted: weight, rows and codes of each term, in the order in which scores are added up.
        table: (C,) the factor of each code.
        n: rows of the segment.
        allowed: (n,) the rows that may be returned, or None for all.
        out_rows, out_scores: (k,) all filled in.
    """
    scores = np.zeros(n, dtype=np.float32)
    for weight, rows, codes in weighted:
        scores[rows] += weight * table[codes]
    if allowed is not None:
        scores[~allowed] = 0
    k = len(out_rows)
    cut = np.partition(scores, n - k)[n - k] if k < n else np.float32(0)
    kept = np.flatnonzero(scores >= cut if cut > 0 else scores > 0)
    kept = kept[np.lexsort((kept, -scores[kept]))][:k]
    out_rows[: len(kept)], out_rows[len(kept) :] = kept, -1
    out_scores[: len(kept)], out_scores[len(kept) :] = scores[kept], -np.inf
