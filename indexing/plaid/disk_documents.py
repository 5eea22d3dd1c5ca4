"""Compressed documents whose residuals stay on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.residual.codec import ResidualCodec
from indexing.residual.documents import CompressedDocuments
from indexing.token_disk.row_reader import RowReader
from retrieval.values import MultiVector
from retrieval.values.storage import take_ragged

_ROWS = 1024  # in memory at a time where many are scored


@dataclass(frozen=True, eq=False)
class DiskDocuments:
    """What ``CompressedDocuments`` is, with the packed residuals read as they are needed; scores are the same.

    Attributes:
        codec: what compressed them.
        indptr: (N + 1,) int64, where the tokens of documents begin.
        codes: (T,) centroid of each token, memory-mapped.
        reader: of the packed residuals.
    """

    codec: ResidualCodec
    indptr: NDArray[np.int64]
    codes: NDArray[Any]
    reader: RowReader

    def decode(self, rows: NDArray[np.int64]) -> MultiVector:
        """The token vectors of the rows, in float32.

        Raises:
            CorruptError: the residuals cannot be read.
        """
        return self._part(rows).decode(np.arange(len(rows)))

    def maxsim(
        self, lanes: NDArray[np.float32], n_tokens: int, rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See ``CompressedDocuments.maxsim``; many rows are read while those before them are scored.

        Raises:
            CorruptError: the residuals cannot be read.
        """
        scores = np.empty(len(rows), dtype=np.float32)
        for first in range(0, len(rows), _ROWS):
            part = slice(first, first + _ROWS)
            documents = self._part(rows[part])
            self.reader.prefetch(rows[part.stop : part.stop + _ROWS])
            chosen = np.arange(len(documents.indptr) - 1)
            scores[part] = documents.maxsim(lanes, n_tokens, chosen)
        return scores

    def _part(self, rows: NDArray[np.int64]) -> CompressedDocuments:
        """Some rows, in memory."""
        indptr, tokens = take_ragged(self.indptr, rows)
        return CompressedDocuments(self.codec, indptr, self.codes[tokens], self.reader.take(rows))
