"""Rows of terms as postings, term by term, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.values import Terms

_ENTRIES_AT_ONCE = 1_000_000
_BYTES_A_POSTING = 40  # arrays of the group, and of the run that is being sorted into it


def document_frequencies(terms: Terms) -> NDArray[np.int64]:
    """(V,) rows that have each term."""
    counts = np.zeros(len(terms.vocabulary), dtype=np.int64)
    for start in range(0, len(terms.indices), _ENTRIES_AT_ONCE):
        run = terms.indices[start : start + _ENTRIES_AT_ONCE]
        counts += np.bincount(run, minlength=len(counts))
    return counts


def postings_of(
    terms: Terms, order: Sequence[int], frequencies: NDArray[np.int64], memory_bytes: int
) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.int32]]]:
    """Term, rows ascending and frequencies of each term in the order asked for.

    The rows are read once for as many terms as fit in memory, so the less memory, the more often.

    Args:
        terms: N rows, memory-mapped.
        order: terms, each once.
        frequencies: (V,) what ``document_frequencies`` counts.
        memory_bytes: what may be held at a time; the postings of the commonest term always are.
    """
    most, first = max(1, memory_bytes // _BYTES_A_POSTING), 0
    while first < len(order):
        ends = np.cumsum(frequencies[np.asarray(order[first:], dtype=np.int64)])
        count = max(1, int(np.searchsorted(ends, most, side="right")))
        group = order[first : first + count]
        rows, tfs = _gather(terms, group, ends[:count])
        starts = [0, *ends[: count - 1].tolist()]
        for term, low, high in zip(group, starts, ends[:count].tolist(), strict=True):
            yield term, rows[low:high], tfs[low:high]
        first += count


def _gather(
    terms: Terms, group: Sequence[int], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Rows and frequencies of a group of terms, one term after another."""
    places = np.full(len(terms.vocabulary), -1, dtype=np.int32)
    places[np.asarray(group, dtype=np.int64)] = np.arange(len(group), dtype=np.int32)
    cursors = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    rows, frequencies = np.empty(int(ends[-1]), np.int32), np.empty(int(ends[-1]), np.int32)
    for start in range(0, len(terms.indices), _ENTRIES_AT_ONCE):
        stop = min(start + _ENTRIES_AT_ONCE, len(terms.indices))
        place = places[terms.indices[start:stop]]
        kept = np.flatnonzero(place >= 0)
        kept = kept[np.argsort(place[kept], kind="stable")]
        sorted_place = place[kept]
        present, firsts, counts = np.unique(sorted_place, return_index=True, return_counts=True)
        target = np.arange(len(kept)) - np.repeat(firsts - cursors[present], counts)
        rows[target] = np.searchsorted(terms.indptr, start + kept, side="right") - 1
        frequencies[target] = terms.frequencies[start:stop][kept]
        cursors[present] += counts
    return rows, frequencies
