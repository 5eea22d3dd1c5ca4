"""The compiled loops that write the lists of documents by centroid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.compiled import kernel


@kernel
def count_gaps(
    indptr: NDArray[np.int64],
    codes: NDArray[Any],
    first: int,
    last: int,
    previous: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> None:
    """How many bytes the gaps of documents first .. last-1 take at each centroid.

    Args:
        indptr: (N + 1,) into the tokens.
        codes: the centroids of these documents' tokens.
        previous: (C,) the last document seen at each centroid, -1 for none; written.
        sizes: (C,) added to.
    """
    for row in range(first, last):
        for token in range(indptr[row], indptr[row + 1]):
            code = codes[token - indptr[first]]
            gap = row - previous[code]
            if gap > 0:
                previous[code] = row
                while gap > 0:
                    sizes[code] += 1
                    gap >>= 7


@kernel
def write_gaps(
    indptr: NDArray[np.int64],
    codes: NDArray[Any],
    low: int,
    high: int,
    starts: NDArray[np.int64],
    gaps: NDArray[np.uint8],
) -> None:
    """The gaps of all documents at centroids low .. high-1.

    Args:
        indptr: (N + 1,) into the tokens.
        codes: (T,) centroids.
        starts: (C + 1,) where each centroid's gaps begin.
        gaps: those of these centroids, written.
    """
    cursors = starts[low:high] - starts[low]
    previous = np.full(high - low, -1, dtype=np.int64)
    for row in range(len(indptr) - 1):
        for token in range(indptr[row], indptr[row + 1]):
            code = np.int64(codes[token]) - low
            if code < 0 or code >= high - low:
                continue
            gap = row - previous[code]
            if gap > 0:
                previous[code] = row
                while gap > 127:
                    gaps[cursors[code]] = np.uint8(128 | (gap & 127))
                    cursors[code] += 1
                    gap >>= 7
                gaps[cursors[code]] = np.uint8(gap)
                cursors[code] += 1
