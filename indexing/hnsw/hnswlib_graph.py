"""hnswlib's graph: loaded whole at the first search, vectors included (float32), since it cannot be mapped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.hnsw.candidates import Walk, rank_allowed
from retrieval.bitmap import Bitmap
from retrieval.compute import threads
from retrieval.errors import CorruptError
from retrieval.values import Dense, Hits

_CHUNK = 8192  # rows added at a time

_FILE = "graph.hnswlib"


def files(parameters: Mapping[str, Any]) -> list[str]:
    """The names of what ``build_graph`` writes."""
    return [_FILE]


def memory_needed(n: int, dim: int, m: int, half: bool) -> int:
    """Bytes while building: float32 vectors, 2m links of 4 bytes, labels with their table, locks."""
    return n * (dim * 4 + int(8.5 * m) + 160)


def build_graph(
    vectors: Dense, folder: Path, parameters: Mapping[str, Any], progress: Callable[[int], None]
) -> dict[str, Any]:
    """Build the graph in memory and write it."""
    import hnswlib

    index = hnswlib.Index(space="ip", dim=vectors.dim)
    m, ef_construction = parameters["m"], parameters["ef_construction"]
    index.init_index(max_elements=len(vectors), M=m, ef_construction=ef_construction, random_seed=100)
    for start in range(0, len(vectors), _CHUNK):
        chunk = np.ascontiguousarray(vectors.values[start : start + _CHUNK], dtype=np.float32)
        index.add_items(chunk, np.arange(start, start + len(chunk)), num_threads=threads())
        progress(len(chunk))
    index.save_index(str(folder / _FILE))
    return {}


class HnswlibGraph:
    """The loaded graph, with searches of one ``ef`` at a time because hnswlib keeps it as state."""

    def __init__(self, path: Path, vectors: Dense, check: Callable[[], None]) -> None:
        self._path, self._vectors, self._check = path, vectors, check
        self._turn = threading.Condition()
        self._index: Any = None
        self._ef = 0
        self._searching = 0

    def best(self, queries: NDArray[np.float32], k: int, walk: Walk, allowed: Bitmap | None) -> Hits:
        """See ``indexing.hnsw.candidates.Graph``; the filter is applied to the candidates."""
        rows = self._nearest(queries, min(walk.ef, len(self._vectors)))
        return rank_allowed(self._vectors, queries, rows, k, allowed)

    def _nearest(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """(Q, count) rows near each query; only -1 where a walk met fewer than count."""
        with self._searching_with(count) as index:
            try:
                found, _ = index.knn_query(queries, k=count, num_threads=threads())
            except RuntimeError:  # hnswlib then answers none of the queries
                return np.full((len(queries), count), -1, dtype=np.int64)
        return np.asarray(found, dtype=np.int64)

    @contextmanager
    def _searching_with(self, ef: int) -> Iterator[Any]:
        with self._turn:
            if self._index is None:
                self._check()
                self._index = self._load()
            while self._searching and self._ef != ef:
                self._turn.wait()
            if self._ef != ef:
                self._index.set_ef(ef)
                self._ef = ef
            self._searching += 1
        try:
            yield self._index
        finally:
            with self._turn:
                self._searching -= 1
                self._turn.notify_all()

    def _load(self) -> Any:
        import hnswlib

        n, dim = self._vectors.values.shape
        index = hnswlib.Index(space="ip", dim=dim)
        try:
            index.load_index(str(self._path))
        except RuntimeError as error:
            raise CorruptError(self._path, f"not a graph that hnswlib reads ({error})") from error
        if index.get_current_count() != n:
            raise CorruptError(self._path, f"is over {index.get_current_count()} vectors, not {n}")
        return index


def open_graph(
    folder: Path,
    vectors: Dense,
    parameters: Mapping[str, Any],
    facts: Mapping[str, Any],
    check: Callable[[], None],
) -> HnswlibGraph:
    """The graph of these vectors; ``check`` raises CorruptError when the file changed, and runs once."""
    return HnswlibGraph(folder / _FILE, vectors, check)
