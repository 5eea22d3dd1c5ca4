"""From a query to the documents that are worth decompressing, by centroids alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexing.plaid.layout import PlaidFiles
from indexing.residual.codec import ResidualCodec
from indexing.scratch import Scratch
from retrieval.bitmap import Bitmap
from retrieval.compute import parallel
from retrieval.topk import top_k

NARROWING = 4
"""Candidates of the inverted lists for each that is decompressed, as in PLAID."""
EARLY_PROBES = 3
"""One in so many lists is read before rows are foreseen (ESPN's prefetch step)."""
EARLY_ROWS = 2
"""Rows foreseen for each that is decompressed."""
_ROWS_GRAIN = 128  # documents whose centroid interaction is worth a thread
_COLLECTED = 4  # times nprobe centroids a token are kept before the worst are dropped
_NO_BITS = np.zeros(0, dtype=np.uint8)

_scratch = Scratch()


@dataclass(frozen=True, slots=True)
class Allowed:
    """The rows that may be returned.

    Attributes:
        indptr: (N + 1,) where the tokens of all rows begin.
        bitmap: which rows; None for all.
        empty: (E,) those without tokens, ascending.
        count: how many there are with tokens.
    """

    indptr: NDArray[np.int64]
    bitmap: Bitmap | None
    empty: NDArray[np.int64]
    count: int

    @classmethod
    def of(cls, indptr: NDArray[np.int64], empty: NDArray[np.int64], bitmap: Bitmap | None) -> Allowed:
        """Split the allowed rows.

        Args:
            indptr: (N + 1,) where the tokens of all rows begin.
            empty: every row without tokens.
            bitmap: which rows are allowed; None for all.

        Raises:
            ValueError: the bitmap is for another number of rows.
        """
        n = len(indptr) - 1
        if bitmap is None:
            return cls(indptr, None, empty, n - len(empty))
        if bitmap.n != n:
            raise ValueError(f"the bitmap is for {bitmap.n} rows, the index has {n}")
        empty = empty[(bitmap.bits[empty >> 3] >> (empty & 7)) & 1 == 1]
        return cls(indptr, bitmap, empty, bitmap.count() - len(empty))

    @property
    def bits(self) -> NDArray[np.uint8]:
        """Packed bits; empty where all rows are allowed."""
        return _NO_BITS if self.bitmap is None else self.bitmap.bits

    def all_rows(self) -> NDArray[np.int64]:
        """With tokens or without, ascending."""
        return np.arange(len(self.indptr) - 1) if self.bitmap is None else self.bitmap.rows()

    def rows(self) -> NDArray[np.int64]:
        """Those with tokens, ascending."""
        rows = self.all_rows()
        return rows[self.indptr[rows + 1] > self.indptr[rows]]


def find_candidates(
    codec: ResidualCodec,
    files: PlaidFiles,
    lanes: NDArray[np.float32],
    n_tokens: int,
    allowed: Allowed,
    *,
    nprobe: int,
    count: int,
    foresee: Callable[[NDArray[np.int64]], None] | None = None,
) -> NDArray[np.int64]:
    """The rows that are likely to have the best MaxSim; fewer only where fewer are allowed.

    Args:
        lanes: the query's vectors as ``retrieval.maxsim.pack`` gives them.
        n_tokens: how many they are, at least 1.
        nprobe: lists read for each token of the query.
        count: how many rows are wanted.
        foresee: called once a part of the lists has been read, with most of the rows that will be returned and others,
            unless the answer is there before; see ``EARLY_PROBES``.
    """
    if allowed.count <= count:
        return allowed.rows()
    similarities = _similarities(codec, lanes)
    rows = _probed(files, similarities, n_tokens, allowed, nprobe, count, foresee)
    if rows is None or len(rows) < count:
        # all lists are wanted, or a filter hides the neighbourhood, or few lists are read for so many rows
        rows = allowed.rows()
    if len(rows) > count:
        rows = _interacting(files, allowed.indptr, similarities, n_tokens, rows, count)
    return rows


def _similarities(codec: ResidualCodec, lanes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, L') inner products of all centroids with the tokens of the query, as ``VectorTable`` estimates them."""
    n, width = len(codec.centroids), lanes.shape[0] * lanes.shape[2]
    out = _scratch.take("similarities", n * width, np.float32).reshape(n, width)
    codec.centroid_table.products(lanes, out)
    return out


def _probed(
    files: PlaidFiles,
    similarities: NDArray[np.float32],
    n_tokens: int,
    allowed: Allowed,
    nprobe: int,
    count: int,
    foresee: Callable[[NDArray[np.int64]], None] | None,
) -> NDArray[np.int64] | None:
    """The best rows of the nearest centroids' lists; None where that is all lists, and so every row."""
    from indexing.plaid.search_kernels import nearest_centroids
    from retrieval.kernels import frozen

    if nprobe >= len(similarities):
        return None
    size = min(len(similarities), _COLLECTED * nprobe) + 1
    found = np.empty((n_tokens, size), dtype=np.int32)
    values = np.empty((n_tokens, size), dtype=np.float32)
    nearest_centroids(frozen(similarities), n_tokens, found, values, nprobe)
    if foresee is not None:
        foresee(_listed(files, found, values, allowed, -(-nprobe // EARLY_PROBES), EARLY_ROWS * count))
    return _listed(files, found, values, allowed, nprobe, NARROWING * count)


def _listed(
    files: PlaidFiles,
    found: NDArray[np.int32],
    values: NDArray[np.float32],
    allowed: Allowed,
    nprobe: int,
    count: int,
) -> NDArray[np.int64]:
    """The best rows of the lists of each token's first nprobe centroids, which come the nearest first."""
    from indexing.plaid.search_kernels import collect, probe
    from retrieval.kernels import frozen

    n = len(allowed.indptr) - 1
    marks, touched = _scratch.take("marks", n, np.int32), _scratch.take("touched", n, np.int64)
    gains = _scratch.take("gains", n, np.float32)
    lists = (frozen(files.starts), frozen(files.gaps), frozen(allowed.bits))
    rows = touched[: probe(found, values, nprobe, *lists, marks, gains, touched)]
    gained = np.empty(len(rows), dtype=np.float32)
    collect(rows, marks, gains, gained)
    best = top_k(gained[None, :], min(count, len(rows)), rows[None, :])
    return best.rows[0]


def _interacting(
    files: PlaidFiles,
    indptr: NDArray[np.int64],
    similarities: NDArray[np.float32],
    n_tokens: int,
    rows: NDArray[np.int64],
    count: int,
) -> NDArray[np.int64]:
    """The best of some rows by centroid interaction."""
    from indexing.plaid.search_kernels import interact
    from retrieval.kernels import frozen

    scores = np.empty(len(rows), dtype=np.float32)
    table, starts, codes = frozen(similarities), frozen(indptr), frozen(files.codes)
    chosen = frozen(rows)

    def share(part: slice) -> None:
        interact(table, n_tokens, starts, codes, chosen[part], scores[part])

    parallel(share, len(rows), grain=_ROWS_GRAIN)
    return top_k(scores[None, :], count, rows[None, :]).rows[0]
