"""How the encodings of documents are stored and which of them lie near a query's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.fde.code_scan import CodeScan
from indexing.fde.codebooks import CENTROIDS, SAMPLE
from indexing.fde.files import map_shaped
from indexing.growing import GrowingArray
from indexing.kinds import kind_class
from retrieval.bitmap import Bitmap
from retrieval.compute import parallel
from retrieval.errors import ConfigError, FormatError, unknown_name
from retrieval.protocols import SearchRequest
from retrieval.topk import top_k
from retrieval.values import Dense, Hits
from retrieval.values.storage import map_array

STORAGES = ("int8", "pq", "float16")
FIRST_STAGES = ("flat", "hnsw")
"""Kinds of indexes over Dense vectors; over codes, int8 or pq, there is only a scan."""

_GRAIN = 4096  # rows worth a thread: about 0.4 ms
_VALUES = "encodings.npy"
_SCALES = "scales.npy"


def check_storage(storage: str, first_stage: str) -> None:
    """Refuse what there is no first stage for.

    Raises:
        ConfigError: an unknown name, or a graph over codes.
    """
    if storage not in STORAGES:
        raise unknown_name("storage of index kind 'fde'", str(storage), STORAGES)
    if first_stage not in FIRST_STAGES:
        raise unknown_name("first stage of index kind 'fde'", str(first_stage), FIRST_STAGES)
    if storage != "float16" and first_stage != "flat":
        raise ConfigError(f"fde first_stage={first_stage!r} needs storage='float16', got {storage!r}")


def build_first_stage(
    encoded: Iterable[NDArray[np.float32]],
    sample: Callable[[int], NDArray[np.float32]],
    dim: int,
    folder: Path,
    parameters: Mapping[str, Any],
    *,
    memory_bytes: int,
) -> None:
    """Write encodings and what is needed to search them.

    Args:
        encoded: all of them, in parts of (n, dim).
        sample: gives so many of them, or all where there are no more.
        dim: their width.
        folder: where to.
        parameters: of the index.
        memory_bytes: what a sample or a graph may take.

    Raises:
        ConfigError: a graph needs more memory than it may take.
        FormatError: an encoding is too large for float16.
    """
    if parameters["storage"] == "int8":
        ByteScan.build(encoded, dim, folder)
        return
    if parameters["storage"] == "pq":
        affordable = memory_bytes // (8 * dim)  # as it is encoded, and in columns
        CodeScan.build(encoded, sample(max(CENTROIDS, min(SAMPLE, affordable))), folder)
        return
    with GrowingArray(folder / _VALUES, np.float16, (dim,)) as target:
        for part in encoded:
            if len(part) and float(np.abs(part).max()) > float(np.finfo(np.float16).max):
                raise FormatError(
                    "an encoding exceeds float16; normalise the token vectors or use storage='int8'"
                )
            target.append(part)
    kind = kind_class(parameters["first_stage"])
    vectors = Dense(map_array(folder / _VALUES))
    kind.build(vectors, folder, kind.parameters({}), memory_bytes=memory_bytes, progress=_no_progress)


def open_first_stage(folder: Path, shape: tuple[int, int], parameters: Mapping[str, Any]) -> Any:
    """The index over encodings (N, dim) of ``shape``.

    Raises:
        CorruptError: a file is missing, damaged or about other vectors.
    """
    if parameters["storage"] == "int8":
        return ByteScan.load(folder, shape)
    if parameters["storage"] == "pq":
        return CodeScan.load(folder, shape)
    values = map_shaped(folder / _VALUES, shape, np.float16)
    kind = kind_class(parameters["first_stage"])
    return kind.load(folder, Dense(values), kind.parameters({}))


@dataclass(frozen=True, eq=False)
class ByteScan:
    """Compares a query with every allowed row of vectors rounded to 8 bits.

    Attributes:
        codes: (N, dim) int8, memory-mapped.
        scales: (N,) float32, what a code of 1 stands for.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]

    kind: ClassVar[str] = "byte scan"
    exact: ClassVar[bool] = True

    @classmethod
    def build(cls, parts: Iterable[NDArray[np.float32]], dim: int, folder: Path) -> None:
        """Write codes and scales."""
        from indexing.fde.kernels import to_bytes

        with (
            GrowingArray(folder / _VALUES, np.int8, (dim,)) as codes,
            GrowingArray(folder / _SCALES, np.float32) as scales,
        ):
            for part in parts:
                rounded, scale = np.empty(part.shape, dtype=np.int8), np.empty(len(part), dtype=np.float32)
                to_bytes(part, rounded, scale)
                codes.append(rounded)
                scales.append(scale)

    @classmethod
    def load(cls, folder: Path, shape: tuple[int, int]) -> Self:
        """Map what ``build`` wrote.

        Raises:
            CorruptError: a file is missing, cut short or of another shape.
        """
        return cls(
            map_shaped(folder / _VALUES, shape, np.int8),
            map_shaped(folder / _SCALES, shape[:1], np.float32),
        )

    def __len__(self) -> int:
        return len(self.codes)

    def search(self, queries: Dense, request: SearchRequest) -> Hits:
        """The k best allowed rows of each query."""
        from indexing.fde.kernels import byte_products
        from retrieval.kernels import frozen

        rows = frozen(_rows(len(self), request.allowed))
        codes, scales = frozen(self.codes), frozen(self.scales)
        scores = np.empty(len(rows), dtype=np.float32)
        parts = [Hits.none(0, request.k)]
        for query in frozen(queries.values):

            def share(part: slice, query: NDArray[np.float32] = query) -> None:
                byte_products(query, codes, scales, rows[part], scores[part])

            parallel(share, len(rows), grain=_GRAIN)
            parts.append(top_k(scores[None, :], request.k, rows[None, :]))
        return Hits.concat(parts)


def _rows(n: int, allowed: Bitmap | None) -> NDArray[np.int64]:
    return np.arange(n) if allowed is None else allowed.rows()


def _no_progress(rows: int) -> None:
    """Encoding was reported already."""
