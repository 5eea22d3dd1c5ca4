"""The stored arrays of a BM25 index."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import CorruptError
from retrieval.values import Terms
from retrieval.values.storage import map_array


class Bm25Files(NamedTuple):
    """What is stored, one .npy each.

    Attributes:
        hashes: (V,) uint64 of the terms, ascending; hash_terms: (V,) int32, the term of each.
        buckets: (2^b + 1,) int64, where the hashes with each value of their first b bits start.
        indptr: (V + 1,) int64 into the postings of each term.
        rows: (P,) int32, ascending within a term; codes: (P,) uint16 or uint32 into keys.
        peaks: (V,) float32, the largest reference factor among each term's postings.
        keys: (C,) int64, the distinct triples; reference: (C,) float32, their factors when the index was built.
        totals: (2, F) int64, rows with a term and tokens of each field.
    """

    hashes: NDArray[np.uint64]
    hash_terms: NDArray[np.int32]
    buckets: NDArray[np.int64]
    indptr: NDArray[np.int64]
    rows: NDArray[np.int32]
    codes: NDArray[Any]
    peaks: NDArray[np.float32]
    keys: NDArray[np.int64]
    reference: NDArray[np.float32]
    totals: NDArray[np.int64]

    @classmethod
    def map(cls, folder: Path, rows: Terms) -> Self:
        """Map the files of the index over some rows.

        Raises:
            CorruptError: a file is missing or cut short, or belongs to other rows.
        """
        files = cls(*(np.asarray(map_array(folder / f"{name}.npy")) for name in cls._fields))
        n_terms, n_postings = len(rows.vocabulary), len(rows.indices)
        if len(files.indptr) != n_terms + 1 or len(files.hashes) != n_terms or len(files.peaks) != n_terms:
            raise CorruptError(folder, f"indexes another vocabulary than the {n_terms} terms of its rows")
        if len(files.rows) != n_postings or len(files.codes) != n_postings:
            raise CorruptError(folder, f"holds {len(files.rows)} postings, expected {n_postings}")
        return files
