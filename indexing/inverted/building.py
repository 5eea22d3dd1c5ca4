"""Sparse vectors turned into the stored arrays of an inverted index, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.growing import GrowingArray
from indexing.inverted.layout import BLOCK, BUCKETS, n_blocks, n_windows
from indexing.inverted.ordering import order_rows
from retrieval.errors import FormatError
from retrieval.values import Sparse
from retrieval.values.storage import release_pages

_RUN = 1 << 17  # rows read between two reports of progress
_SHARE_BOUNDED = 32  # a term with a posting for so many blocks has a line of bounds


def largest_weight(vectors: Sparse) -> float:
    """The largest weight of any row; 0 without any.

    Raises:
        FormatError: a weight is negative or no number, or a term lies outside the vocabulary.
    """
    largest = 0.0
    for start in range(0, len(vectors), _RUN):
        part = vectors[start : start + _RUN]
        if not len(part.values):
            continue
        wrong = ~(part.values >= 0) | (part.values == np.inf)
        outside = (part.indices < 0) | (part.indices >= vectors.dim)
        for flags, what in ((wrong, "has a weight that is negative or no number"), (outside, "has a term")):
            if flags.any():
                at = int(np.flatnonzero(flags)[0])
                row = start + int(np.searchsorted(part.indptr, at, side="right")) - 1
                value = part.values[at] if flags is wrong else f"outside the vocabulary of {vectors.dim}"
                term = part.indices[at]
                raise FormatError(f"sparse vector of row {row} {what}: {value} (term {term})")
        largest = max(largest, float(part.values.max()))
    return largest


def build_files(
    vectors: Sparse,
    folder: Path,
    scale: float,
    *,
    reorder: bool,
    memory_bytes: int,
    progress: Callable[[int], None],
) -> int:
    """Write the arrays of ``InvertedFiles``.

    Args:
        scale: weight that an impact of 1 stands for.
        reorder: whether similar documents are brought together.
        memory_bytes: what postings in the making may take.
        progress: called with numbers of rows, N in all.

    Returns:
        How many weights were above 255 steps and are counted as 255.
    """
    from indexing.inverted.building_kernels import count_terms

    n, dim = len(vectors), vectors.dim
    counts, peaks = np.zeros(dim, dtype=np.int64), np.zeros(dim, dtype=np.uint8)
    arrays = (vectors.indptr, vectors.indices, vectors.values)
    above = 0
    for start in range(0, n, _RUN):
        above += count_terms(*arrays, scale, start, min(n, start + _RUN), counts, peaks)
    rows = order_rows(vectors, counts, progress) if reorder else np.arange(n, dtype=np.int32)
    if not reorder:
        progress(n)
    indptr = np.zeros(dim + 1, dtype=np.int64)
    np.cumsum(counts, out=indptr[1:])
    _save(folder, rows=rows, indptr=indptr, peaks=peaks)
    _invert(vectors, scale, rows, indptr, peaks, folder, memory_bytes)
    _write_forward(vectors, scale, rows, counts, folder, memory_bytes)
    release_pages(vectors.indices, vectors.values)
    return above


def _save(folder: Path, **arrays: NDArray[Any]) -> None:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _invert(
    vectors: Sparse,
    scale: float,
    rows: NDArray[np.int32],
    indptr: NDArray[np.int64],
    peaks: NDArray[np.uint8],
    folder: Path,
    memory_bytes: int,
) -> None:
    """Postings, windows and bounds, so many terms at a time as memory holds the postings of."""
    from indexing.inverted.building_kernels import bound_line, invert_terms

    n_terms, width = vectors.dim, n_windows(len(rows))
    windows = np.zeros(n_terms * (width + 1), dtype=np.int64)
    blocks = n_blocks(len(rows))
    half = (blocks + 1) // 2
    has_line = (np.diff(indptr) * _SHARE_BOUNDED >= blocks) & (peaks > 0)
    bounded = np.where(has_line, np.cumsum(has_line) - 1, -1).astype(np.int32)
    largest, line = np.zeros(2 * half, dtype=np.uint8), np.zeros(half, dtype=np.uint8)
    cursors = indptr[:-1].copy()
    with (
        GrowingArray(folder / "postings.npy", np.uint32) as stored,
        GrowingArray(folder / "bounds.npy", np.uint8) as lines,
    ):
        first = 0
        while first < n_terms:
            base = int(indptr[first])
            last = int(np.searchsorted(indptr, base + max(1, memory_bytes // 4), side="right")) - 1
            last = min(n_terms, max(first + 1, last))
            postings = np.empty(int(indptr[last]) - base, dtype=np.uint32)
            invert_terms(
                *(vectors.indptr, vectors.indices, vectors.values, scale, rows),
                *(first, last, base, width, cursors, windows, postings),
            )
            stored.append(postings)
            for term in np.flatnonzero(bounded[first:last] >= 0) + first:
                bound_line(postings, windows, int(term), width, base, int(peaks[term]), largest, line)
                lines.append(line)
            first = last
    _save(folder, windows=windows, bounded=bounded)


def _write_forward(
    vectors: Sparse,
    scale: float,
    rows: NDArray[np.int32],
    counts: NDArray[np.int64],
    folder: Path,
    memory_bytes: int,
) -> None:
    """The block-wise copy and its directory, so many blocks at a time as memory holds."""
    from indexing.inverted.building_kernels import block_sizes, share_out, write_blocks, write_large_blocks

    blocks = n_blocks(len(rows))
    buckets, slots = np.zeros(vectors.dim, dtype=np.uint16), np.zeros(vectors.dim, dtype=np.uint32)
    order = np.argsort(-counts, kind="stable").astype(np.int32)
    share_out(counts, order, BUCKETS, buckets, slots)
    arrays = (vectors.indptr, vectors.indices, vectors.values)
    sizes = np.zeros(blocks, dtype=np.int64)
    block_sizes(*arrays, rows, 0, blocks, sizes)
    starts = np.zeros(blocks + 1, dtype=np.int64)
    np.cumsum(sizes, out=starts[1:])
    wide = bool(sizes.max(initial=0) >= 1 << 16)
    write, kind = (write_large_blocks, np.uint32) if wide else (write_blocks, np.uint16)
    with (
        GrowingArray(folder / "forward.npy", np.uint32) as forward,
        GrowingArray(folder / "directory.npy", kind) as directory,
    ):
        first = 0
        while first < blocks:
            last = int(np.searchsorted(starts, starts[first] + max(1, memory_bytes // 8), side="right")) - 1
            last = min(blocks, max(first + 1, last), first + max(1, _RUN // BLOCK))
            lines = np.empty((last - first) * (BUCKETS + 1), dtype=kind)
            part = np.empty(int(starts[last] - starts[first]), dtype=np.uint32)
            write(*arrays, scale, rows, buckets, slots, BUCKETS, first, last, lines, part)
            forward.append(part)
            directory.append(lines)
            first = last
    _save(folder, buckets=buckets, slots=slots, starts=starts)
