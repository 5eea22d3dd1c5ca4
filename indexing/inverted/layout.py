"""The stored arrays of an inverted index, and the sizes its kernels are written for.

The compiled loops hold these sizes as constants, and numba's cache does not notice when another file changes: whoever
changes one here removes the cached kernels beside search_kernels.py and building_kernels.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import CorruptError
from retrieval.values import Sparse
from retrieval.values.storage import map_array

BLOCK_BITS = 4
BLOCK = 1 << BLOCK_BITS
"""Neighbouring documents that share a bound: at 32 five times as many blocks pass the bound, at 8 all bounds double."""
WINDOW_BITS = 16
"""Documents whose accumulators fit a core's cache: a posting holds its place in a window in so many bits."""
BUCKETS = 256
"""Parts into which the terms of a block are divided, of about nine postings each; 512 are no faster."""
LEVELS = 15
"""Steps of a bound, so that two fit a byte; 1.5 times the blocks of exact bounds pass, at half the memory to read."""


class InvertedFiles(NamedTuple):
    """What is stored, one .npy each. A *place* is a row's number after reordering.

    Attributes:
        rows: (N,) int32, the row at each place.
        indptr: (V + 1,) int64 into the postings of each term.
        windows: (V * (W + 1),) int64, where the postings of each term start in each window, and where they end.
        postings: (P,) uint32, ``place in its window << 8 | impact``, by term, then place.
        peaks: (V,) uint8, the largest impact of each term.
        bounded: (V,) int32, the line of a term in bounds; -1 where its postings are fewer than a line is long.
        bounds: (D * H,) uint8: for each block the largest impact in steps of ``ceil(peak / 15)``, rounded up. The
            low half of byte j is block j, the high half block H + j.
        buckets: (V,) uint16 and slots: (V,) uint32: the bucket of each term, its number in there.
        starts: (B + 1,) int64 into forward, by block.
        directory: (B * (BUCKETS + 1),) uint16 or uint32, where each bucket of a block starts, from its own start.
        forward: (P,) uint32, ``slot << 12 | document in the block << 8 | impact``, by block, then bucket.
    """

    rows: NDArray[np.int32]
    indptr: NDArray[np.int64]
    windows: NDArray[np.int64]
    postings: NDArray[np.uint32]
    peaks: NDArray[np.uint8]
    bounded: NDArray[np.int32]
    bounds: NDArray[np.uint8]
    buckets: NDArray[np.uint16]
    slots: NDArray[np.uint32]
    starts: NDArray[np.int64]
    directory: NDArray[Any]
    forward: NDArray[np.uint32]

    @classmethod
    def map(cls, folder: Path, vectors: Sparse) -> Self:
        """Map the files of the index over some rows.

        Raises:
            CorruptError: a file is missing or cut short, or belongs to other rows.
        """
        files = cls(*(np.asarray(map_array(folder / f"{name}.npy")) for name in cls._fields))
        n, n_terms = len(vectors), vectors.dim
        if len(files.rows) != n:
            raise CorruptError(folder, f"is about {len(files.rows)} rows, not {n}")
        if len(files.indptr) != n_terms + 1 or len(files.windows) != n_terms * (n_windows(n) + 1):
            raise CorruptError(folder, f"indexes another vocabulary than the {n_terms} terms of its rows")
        n_postings = int(files.indptr[-1])
        if len(files.postings) != n_postings or len(files.forward) != n_postings:
            raise CorruptError(folder, f"holds {len(files.postings)} postings, expected {n_postings}")
        n_lines, half = int((files.bounded >= 0).sum()), (n_blocks(n) + 1) // 2
        expected = {
            "peaks": n_terms,
            "bounded": n_terms,
            "buckets": n_terms,
            "slots": n_terms,
            "bounds": n_lines * half,
            "starts": n_blocks(n) + 1,
            "directory": n_blocks(n) * (BUCKETS + 1),
        }
        for name, size in expected.items():
            if len(getattr(files, name)) != size:
                raise CorruptError(
                    folder / f"{name}.npy", f"holds {len(getattr(files, name))} values, expected {size}"
                )
        return files


def n_windows(n: int) -> int:
    """Windows of n places."""
    return (n + (1 << WINDOW_BITS) - 1) >> WINDOW_BITS


def n_blocks(n: int) -> int:
    """Blocks of n places."""
    return (n + BLOCK - 1) >> BLOCK_BITS
