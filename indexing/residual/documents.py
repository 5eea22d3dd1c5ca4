"""Documents as compressed token vectors, and MaxSim with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.residual.codec import ResidualCodec
from retrieval.compute import parallel
from retrieval.values import MultiVector

_GRAIN = 8  # documents worth a thread: about 0.3 ms
_TOKENS = 3072  # decompressed at a time, so that they stay in a core's cache


@dataclass(frozen=True, eq=False)
class CompressedDocuments:
    """What a residual codec made of documents.

    Attributes:
        codec: what compressed them.
        indptr: (N + 1,) int64, where the tokens of documents begin.
        codes: (T,) centroid of each token.
        buckets: (T, P) its packed residual.
    """

    codec: ResidualCodec
    indptr: NDArray[np.int64]
    codes: NDArray[Any]
    buckets: NDArray[np.uint8]

    def decode(self, rows: NDArray[np.int64]) -> MultiVector:
        """The token vectors of the rows, in float32."""
        lengths = self.indptr[rows + 1] - self.indptr[rows]
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:])
        values = np.empty((int(indptr[-1]), self.codec.dim), dtype=np.float32)
        self.codec.decode_rows(self.indptr, rows, self.codes, self.buckets, values)
        return MultiVector(indptr, values)

    def maxsim(
        self, lanes: NDArray[np.float32], n_tokens: int, rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """MaxSim of a query with the decompressed vectors of rows; a row without tokens scores 0.

        Args:
            lanes: the query's vectors as ``retrieval.maxsim.pack`` gives them.
            n_tokens: how many they are.
            rows: (M,).

        Returns:
            (M,), each depending on the query and the row alone.
        """
        from retrieval.kernels import frozen
        from retrieval.maxsim_kernels import maxima

        scores = np.empty(len(rows), dtype=np.float32)
        lengths = self.indptr[rows + 1] - self.indptr[rows]
        query = frozen(lanes)

        def share(part: slice) -> None:
            space = np.empty((max(_TOKENS, int(lengths[part].max())), self.codec.dim), dtype=np.float32)
            for first, last in _runs(lengths[part]):
                first, last = part.start + first, part.start + last
                indptr = np.zeros(last - first + 1, dtype=np.int64)
                np.cumsum(lengths[first:last], out=indptr[1:])
                self.codec.decode_rows(self.indptr, rows[first:last], self.codes, self.buckets, space)
                whole = frozen(np.arange(last - first))
                maxima(frozen(indptr), frozen(space), whole, query, n_tokens, scores[first:last])

        parallel(share, len(rows), grain=_GRAIN)
        return scores


def _runs(lengths: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Neighbours that together have ``_TOKENS`` tokens at most, or are one document of more."""
    first = total = 0
    for at, length in enumerate(lengths.tolist()):
        if total and total + length > _TOKENS:
            yield first, at
            first, total = at, 0
        total += length
    yield first, len(lengths)
