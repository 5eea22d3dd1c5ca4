"""Analysed text: which terms each row has and how often, with a vocabulary local to the batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.values.storage import load_arrays, ragged_rows, save_arrays, take_ragged, whole
from retrieval.values.strings import Strings


@dataclass(frozen=True, eq=False)
class Terms:
    """Term frequencies of N rows over one or several fields.

    BM25 has no fixed vocabulary while a corpus streams, so the vocabulary belongs to the batch.
    A term of one field is another vocabulary entry than the same word of another field.

    Attributes:
        indptr: (N+1,) int64 into indices and frequencies.
        indices: (nnz,) int32 into vocabulary; unique within a row, ascending.
        frequencies: (nnz,) int32, at least 1.
        lengths: (N, F) int32, tokens counted in each field.
        vocabulary: V terms.
        term_fields: (V,) uint8, the field of each vocabulary entry.
        fields: F names.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    frequencies: NDArray[np.int32]
    lengths: NDArray[np.int32]
    vocabulary: Strings
    term_fields: NDArray[np.uint8]
    fields: tuple[str, ...] = ("contents",)

    def __post_init__(self) -> None:
        n = len(self.indptr) - 1
        if self.lengths.shape != (n, len(self.fields)):
            raise ValueError(f"lengths must be ({n}, {len(self.fields)}), got {self.lengths.shape}")
        if len(self.indices) != len(self.frequencies) or int(self.indptr[-1]) != len(self.indices):
            raise ValueError("indptr, indices and frequencies disagree")
        if len(self.term_fields) != len(self.vocabulary):
            raise ValueError("term_fields and vocabulary disagree")

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, rows: slice) -> Terms:
        """A run of rows; the vocabulary stays whole."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("slices of terms have step 1")
        indptr, low, high = ragged_rows(self.indptr, start, stop)
        return Terms(
            indptr,
            self.indices[low:high],
            self.frequencies[low:high],
            self.lengths[start : max(start, stop)],
            self.vocabulary,
            self.term_fields,
            self.fields,
        )

    def take(self, rows: NDArray[np.integer]) -> Terms:
        """The chosen rows, copied; the vocabulary stays whole."""
        indptr, positions = take_ragged(self.indptr, rows)
        return Terms(
            indptr,
            self.indices[positions],
            self.frequencies[positions],
            self.lengths[rows],
            self.vocabulary,
            self.term_fields,
            self.fields,
        )

    def save(self, folder: Path) -> None:
        """Write .npy arrays and value.json into an existing folder."""
        save_arrays(
            folder,
            "terms",
            {"fields": list(self.fields)},
            indptr=self.indptr,
            indices=self.indices,
            frequencies=self.frequencies,
            lengths=self.lengths,
            term_fields=self.term_fields,
            vocabulary_blob=self.vocabulary.blob,
            vocabulary_offsets=self.vocabulary.offsets,
        )

    @classmethod
    def load(cls, folder: Path) -> Terms:
        """Map what ``save`` wrote.

        Raises:
            CorruptError: a file is missing, truncated or of another type.
        """
        with whole(folder):
            facts, arrays = load_arrays(folder, "terms")
            vocabulary = Strings(arrays["vocabulary_blob"], arrays["vocabulary_offsets"])
            return cls(
                arrays["indptr"],
                arrays["indices"],
                arrays["frequencies"],
                arrays["lengths"],
                vocabulary,
                arrays["term_fields"],
                tuple(facts["fields"]),
            )
