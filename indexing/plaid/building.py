"""Token vectors turned into the stored arrays of a PLAID index, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexing.growing import GrowingArray
from indexing.residual.codec import ResidualCodec
from indexing.residual.training import check_unit
from retrieval.values import MultiVector
from retrieval.values.storage import map_array, release_pages

_CHUNK = 1 << 17  # tokens compressed at a time, more only where one document has more


def build_files(
    vectors: MultiVector,
    codec: ResidualCodec,
    folder: Path,
    *,
    memory_bytes: int,
    progress: Callable[[int], None],
) -> None:
    """Write the arrays of ``PlaidFiles``.

    Args:
        vectors: the documents, memory-mapped.
        memory_bytes: what vectors in work and lists in the making may take.
        progress: called with numbers of rows, N in all.

    Raises:
        FormatError: a token vector is not of unit length.
    """
    sizes = _compress(vectors, codec, folder, max(1, min(_CHUNK, memory_bytes // (16 * codec.dim))), progress)
    starts = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=starts[1:])
    np.save(folder / "starts.npy", starts, allow_pickle=False)
    _list_documents(vectors.indptr, starts, folder, memory_bytes)


def _compress(
    vectors: MultiVector, codec: ResidualCodec, folder: Path, chunk: int, progress: Callable[[int], None]
) -> NDArray[np.int64]:
    """Write codes and buckets; returns how many bytes the list of each centroid takes."""
    from indexing.plaid.building_kernels import count_gaps
    from retrieval.kernels import frozen

    indptr, nearest = np.asarray(vectors.indptr), codec.nearest()
    previous = np.full(len(codec.centroids), -1, dtype=np.int64)
    sizes = np.zeros(len(codec.centroids), dtype=np.int64)
    with (
        GrowingArray(folder / "codes.npy", codec.code_type) as codes,
        GrowingArray(folder / "buckets.npy", np.uint8, (codec.width,)) as buckets,
    ):
        row = 0
        while row < len(vectors):
            stop = int(np.searchsorted(indptr, indptr[row] + chunk, side="right")) - 1
            stop = min(len(vectors), max(row + 1, stop))
            tokens = np.arange(indptr[row], indptr[stop])
            values = vectors.values[indptr[row] : indptr[stop]]
            check_unit(values, tokens, indptr)
            found, packed = codec.encode(values, nearest)
            count_gaps(frozen(indptr), frozen(found), row, stop, previous, sizes)
            codes.append(found)
            buckets.append(packed)
            release_pages(vectors.values)
            progress(stop - row)
            row = stop
    return sizes


def _list_documents(
    indptr: NDArray[np.int64], starts: NDArray[np.int64], folder: Path, memory_bytes: int
) -> None:
    """Write gaps, so many centroids at a time as memory holds the lists of."""
    from indexing.plaid.building_kernels import write_gaps
    from retrieval.kernels import frozen

    codes = map_array(folder / "codes.npy")
    with GrowingArray(folder / "gaps.npy", np.uint8) as gaps:
        low = 0
        while low < len(starts) - 1:
            high = int(np.searchsorted(starts, starts[low] + memory_bytes, side="right")) - 1
            high = min(len(starts) - 1, max(low + 1, high))
            part = np.empty(int(starts[high] - starts[low]), dtype=np.uint8)
            write_gaps(frozen(indptr), frozen(codes), low, high, frozen(starts), part)
            gaps.append(part)
            release_pages(codes)
            low = high
