"""Sparse token vectors checked and fused to one vector a text on disk, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexing.growing import GrowingArray
from indexing.slim.fusing import fused_documents
from retrieval.errors import CorruptError, FormatError
from retrieval.values import MultiSparse, Sparse
from retrieval.values.storage import map_array, release_pages

_BYTES = 64  # that fusing takes for each weight of a token
_FUSED = ("fused_indptr", "fused_indices", "fused_values")
_FREQUENCIES = "frequencies"


def check_weights(vectors: MultiSparse, memory_bytes: int) -> None:
    """Refuse what cannot be indexed.

    Raises:
        FormatError: a weight is negative or no number, or a term lies outside the vocabulary; names the row.
    """
    for start, part in _runs(vectors, memory_bytes):
        _check(start, part)


def write_fused(vectors: MultiSparse, folder: Path, memory_bytes: int) -> None:
    """Write the fused vectors of the rows, and in how many of them each term is, into an existing folder.

    Raises:
        FormatError: as ``check_weights``.
    """
    frequencies = np.zeros(vectors.dim, dtype=np.int64)
    with ExitStack() as files:
        indptr, indices, values = (
            files.enter_context(GrowingArray(folder / f"{name}.npy", dtype))
            for name, dtype in zip(_FUSED, (np.int64, np.int32, np.float32), strict=True)
        )
        indptr.append(np.zeros(1, dtype=np.int64))
        for start, part in _runs(vectors, memory_bytes):
            _check(start, part)
            fused = fused_documents(part)
            indptr.append(fused.indptr[1:] + indices.rows)
            indices.append(fused.indices)
            values.append(fused.values)
            frequencies += np.bincount(fused.indices, minlength=vectors.dim)
    np.save(folder / f"{_FREQUENCIES}.npy", frequencies, allow_pickle=False)
    release_pages(vectors.tokens.indices, vectors.tokens.values)


def map_fused(folder: Path, dim: int) -> tuple[Sparse, NDArray[np.int64]]:
    """What ``write_fused`` wrote: the fused vectors over ``dim`` terms, and the (V,) document frequencies.

    Raises:
        CorruptError: a file is missing or cut short, or they do not belong together.
    """
    arrays = [map_array(folder / f"{name}.npy") for name in _FUSED]
    path = folder / f"{_FREQUENCIES}.npy"
    frequencies = np.asarray(map_array(path))
    if frequencies.shape != (dim,):
        raise CorruptError(path, f"is about {len(frequencies)} terms, not {dim}")
    try:
        return Sparse(arrays[0], arrays[1], arrays[2], dim), frequencies
    except ValueError as error:
        raise CorruptError(folder / f"{_FUSED[0]}.npy", str(error)) from error


def _runs(vectors: MultiSparse, memory_bytes: int) -> Iterator[tuple[int, MultiSparse]]:
    """Rows one after another, at least one and as many as memory allows to be fused at a time; with the first's."""
    ends = vectors.tokens.indptr[vectors.indptr]
    start = 0
    while start < len(vectors):
        limit = int(ends[start]) + memory_bytes // _BYTES
        stop = max(start + 1, int(np.searchsorted(ends, limit, side="right")) - 1)
        yield start, vectors[start:stop]
        start = stop


def _check(start: int, part: MultiSparse) -> None:
    tokens = part.tokens
    wrong = ~(tokens.values >= 0) | (tokens.values == np.inf)
    outside = (tokens.indices < 0) | (tokens.indices >= tokens.dim)
    if not (wrong.any() or outside.any()):
        return
    at = int(np.flatnonzero(wrong | outside)[0])
    token = int(np.searchsorted(tokens.indptr, at, side="right")) - 1
    row = int(np.searchsorted(part.indptr, token, side="right")) - 1
    place = f"token {token - int(part.indptr[row])} of row {start + row}"
    if wrong[at]:
        raise FormatError(
            f"{place} has a weight that is negative or no number: {tokens.values[at]} (term {tokens.indices[at]})"
        )
    raise FormatError(f"{place} has term {tokens.indices[at]}, outside the vocabulary of {tokens.dim}")
