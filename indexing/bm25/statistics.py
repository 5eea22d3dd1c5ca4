"""What BM25 scores depend on beyond the row itself: counts over the live rows of a collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.bitmap import Bitmap
from retrieval.values import Terms

_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, eq=False)
class TermStatistics:
    """What scores depend on beyond the row itself; statistics of segments add up.

    Attributes:
        n_documents: (F,) int64, rows with at least one term in the field.
        total_length: (F,) int64, tokens in the field.
        frequencies: (V_q,) int64, rows that have each entry of the query batch's vocabulary.
    """

    n_documents: NDArray[np.int64]
    total_length: NDArray[np.int64]
    frequencies: NDArray[np.int64]

    def __add__(self, other: TermStatistics) -> TermStatistics:
        return TermStatistics(
            self.n_documents + other.n_documents,
            self.total_length + other.total_length,
            self.frequencies + other.frequencies,
        )


class Counts(NamedTuple):
    """``TermStatistics`` in a form that costs nothing to make."""

    frequencies: NDArray[np.int64]
    n_documents: NDArray[np.int64]
    total_length: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DeadTerms:
    """What the deleted rows of a segment take off its statistics.

    Attributes:
        live: the rows that are left.
        n_documents: (F,) deleted rows with a term in the field; total_length: (F,) their tokens.
        frequencies: (V + 1,) deleted rows that have each term; the last entry is 0, for the term -1.
    """

    live: Bitmap
    n_documents: NDArray[np.int64]
    total_length: NDArray[np.int64]
    frequencies: NDArray[np.int64]

    @classmethod
    def count(cls, rows: Terms, live: Bitmap) -> DeadTerms:
        """Read the deleted rows, some thousand at a time."""
        frequencies = np.zeros(len(rows.vocabulary) + 1, dtype=np.int64)
        n_documents = np.zeros(len(rows.fields), dtype=np.int64)
        total_length = np.zeros(len(rows.fields), dtype=np.int64)
        dead = (~live).rows()
        for start in range(0, len(dead), _ROWS_AT_ONCE):
            part = rows.take(dead[start : start + _ROWS_AT_ONCE])
            np.add.at(frequencies, part.indices, 1)
            n_documents += np.count_nonzero(part.lengths, axis=0)
            total_length += part.lengths.sum(axis=0, dtype=np.int64)
        return cls(live, n_documents, total_length, frequencies)
