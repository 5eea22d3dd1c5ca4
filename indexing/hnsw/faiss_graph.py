"""FAISS's HNSW graph: links in a file of their own, vectors shared with the collection, both memory-mapped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.hnsw.candidates import Walk, rank_allowed
from retrieval.bitmap import Bitmap
from retrieval.compute import apply_threads
from retrieval.errors import CorruptError
from retrieval.values import Dense, Hits

_CHUNK = 8192  # rows added at a time


def _faiss() -> Any:
    """FAISS, imported on first use; untyped, since its stubs lack much of what is used here."""
    import faiss

    return faiss


_FILE = "graph.faiss"


def files(parameters: Mapping[str, Any]) -> list[str]:
    """The names of what ``build_graph`` writes."""
    return [_FILE]


def memory_needed(n: int, dim: int, m: int, half: bool) -> int:
    """Bytes while building: vectors, 2m links of 4 bytes, upper layers, levels, locks (measured at 120k x 384).

    Vectors of half precision take 3 bytes a number: FAISS holds them twice for a while.
    """
    return n * (dim * (3 if half else 4) + int(8.5 * m) + 32)


def build_graph(
    vectors: Dense, folder: Path, parameters: Mapping[str, Any], progress: Callable[[int], None]
) -> dict[str, Any]:
    """Build the graph in memory and write it without the vectors."""
    faiss = _faiss()
    apply_threads()
    m = parameters["m"]
    if vectors.values.dtype == np.float16:
        index = faiss.IndexHNSWSQ(vectors.dim, faiss.ScalarQuantizer.QT_fp16, m, faiss.METRIC_INNER_PRODUCT)
        index.is_trained = True  # half precision has nothing to learn
    else:
        index = faiss.IndexHNSWFlat(vectors.dim, m, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = parameters["ef_construction"]
    for start in range(0, len(vectors), _CHUNK):
        chunk = np.ascontiguousarray(vectors.values[start : start + _CHUNK], dtype=np.float32)
        index.add(chunk)
        progress(len(chunk))
    faiss.write_index(index, str(folder / _FILE), faiss.IO_FLAG_SKIP_STORAGE)
    return {}


class FaissGraph:
    """The graph on disk, opened at the first search; searching changes nothing in it."""

    def __init__(self, path: Path, vectors: Dense, check: Callable[[], None]) -> None:
        self._path, self._vectors, self._check = path, vectors, check
        self._lock = threading.Lock()
        self._index: Any = None
        self._kept_alive: tuple[Any, ...] = ()

    def best(self, queries: NDArray[np.float32], k: int, walk: Walk, allowed: Bitmap | None) -> Hits:
        """See ``indexing.hnsw.candidates.Graph``; the filter is applied to the candidates."""
        index, count = self._opened(), min(walk.ef, len(self._vectors))
        apply_threads()
        parameters = _faiss().SearchParametersHNSW(efSearch=count)
        rows = np.asarray(index.search(queries, count, params=parameters)[1], dtype=np.int64)
        return rank_allowed(self._vectors, queries, rows, k, allowed)

    def _opened(self) -> Any:
        with self._lock:
            if self._index is None:
                self._check()
                self._index = self._open()
            return self._index

    def _open(self) -> Any:
        faiss = _faiss()
        try:
            index = faiss.read_index(str(self._path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_SKIP_STORAGE)
        except RuntimeError as error:
            raise CorruptError(self._path, f"not a graph that FAISS reads ({error})") from error
        values = np.ascontiguousarray(self._vectors.values)
        if (index.ntotal, index.d) != values.shape:
            raise CorruptError(self._path, f"is over {index.ntotal} x {index.d} vectors, not {values.shape}")
        if values.dtype == np.float16:
            half = faiss.ScalarQuantizer.QT_fp16
            storage = faiss.IndexScalarQuantizer(index.d, half, faiss.METRIC_INNER_PRODUCT)
        else:
            storage = faiss.IndexFlatIP(index.d)
        # The vectors are attached where they are mapped. The empty index's owner stands for "not FAISS's".
        pointer = faiss.swig_ptr(values.reshape(-1).view(np.uint8))
        storage.codes = faiss.MaybeOwnedVectorUInt8.create_view(pointer, values.nbytes, storage.codes.owner)
        storage.ntotal = index.ntotal
        index.storage, index.own_fields = storage, False
        self._kept_alive = (values, storage)
        return index


def open_graph(
    folder: Path,
    vectors: Dense,
    parameters: Mapping[str, Any],
    facts: Mapping[str, Any],
    check: Callable[[], None],
) -> FaissGraph:
    """The graph of these vectors; ``check`` raises CorruptError when the file changed, and runs once."""
    return FaissGraph(folder / _FILE, vectors, check)
