"""Tercet's own graph: built and walked over byte codes or the stored vectors, every file of it memory-mapped."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexing.hnsw.candidates import Walk
from indexing.hnsw.graph import building
from indexing.hnsw.graph.codes import code_scale, code_width, lengths, levelled_codes, write_codes
from indexing.hnsw.graph.layout import ARRAYS, Graph
from indexing.scratch import Scratch
from retrieval.bitmap import Bitmap
from retrieval.compute import parallel
from retrieval.errors import CorruptError
from retrieval.values import Dense, Hits
from retrieval.values.storage import map_array

CODES = ("sq8", "none")
"""What a walk compares: one byte a component, or the stored vectors."""

_CODES = "codes.npy"
_GRAIN = 4  # queries worth a thread: 0.2 ms
_NARROW = 0.25
"""Share of allowed rows below which a walk keeps more candidates, by the root of how far below: links to allowed rows
get rare. On 45,000 of MiniLM's vectors 64 candidates found 0.98 of the best 10 without a filter, 0.95 with 3% allowed
at random and 0.88 with 1%; 256 found 0.97 then."""
_COMPARED = 30
"""Allowed rows a candidate up to which each is compared. An estimate: 20 to 30 ns a row against 0.6 to 0.9 us."""
_UNSORTED = 768
"""Candidates, at least, where all allowed rows are compared by code. What a filter leaves may all be far from a query,
where many rows score so nearly the same that codes do not tell them apart."""
_EVEN = 0.98
"""Vectors are of one length where the shortest has at least this share of the longest's, as rounded unit vectors do."""
_EVERY = np.empty(0, dtype=np.uint8)
_EVERY.flags.writeable = False  # as bitmaps are passed, so that both share one compiled version

_scratch = Scratch()


def files(parameters: Mapping[str, Any]) -> list[str]:
    """The names of what ``build_graph`` writes."""
    arrays = [f"{name}.npy" for name in ARRAYS]
    return [*arrays, _CODES] if parameters["codes"] == "sq8" else arrays


def memory_needed(n: int, dim: int, m: int, half: bool) -> int:
    """Bytes while building; the precision of the vectors changes nothing, since their codes are compared."""
    return building.memory_needed(n, code_width(dim + 1), m)


def build_graph(
    vectors: Dense, folder: Path, parameters: Mapping[str, Any], progress: Callable[[int], None]
) -> dict[str, Any]:
    """Write codes and links; the graph is that of the codes, whatever a walk compares.

    Vectors of different lengths are linked by distance (see ``levelled_codes``) and walked by inner product.

    Returns:
        Where walks start.
    """
    from indexing.hnsw.insertion_order import insertion_order

    write_codes(folder / _CODES, vectors, code_scale(vectors), lambda rows: None)
    codes, norms = np.asarray(map_array(folder / _CODES)), lengths(vectors)
    if norms.min() < _EVEN * norms.max():
        codes = levelled_codes(vectors, norms)
    order = insertion_order(vectors, parameters["order"])
    graph = building.build_graph(codes, parameters["m"], parameters["ef_construction"], order, progress)
    graph.save(folder)
    if parameters["codes"] != "sq8":
        (folder / _CODES).unlink()
    return {"entry": graph.entry, "top": graph.top}


class _Opened(NamedTuple):
    graph: Graph
    compared: NDArray[Any]
    values: NDArray[Any]


class TercetGraph:
    """The mapped graph, checked at the first search; searching changes nothing in it."""

    def __init__(
        self,
        folder: Path,
        vectors: Dense,
        parameters: Mapping[str, Any],
        facts: Mapping[str, Any],
        check: Callable[[], None],
    ) -> None:
        self._folder, self._vectors, self._m = folder, vectors, int(parameters["m"])
        self._over_codes = parameters["codes"] == "sq8"
        self._facts, self._check = facts, check
        self._lock = threading.Lock()
        self._opened: _Opened | None = None

    def best(self, queries: NDArray[np.float32], k: int, walk: Walk, allowed: Bitmap | None) -> Hits:
        """See ``indexing.hnsw.candidates.Graph``; what is not allowed is stepped over on the way."""
        from indexing.hnsw.graph.search_kernels import WITNESSES, search
        from retrieval.kernels import frozen

        graph, compared, values = self._opened or self._open()
        dim, n = self._vectors.dim, len(self._vectors)
        prefix = dim if walk.prefix is None else min(walk.prefix, dim)
        width = code_width(prefix) if self._over_codes else prefix
        bits, few, against, ef, kept = _EVERY, False, 0, walk.ef, walk.ef
        if allowed is not None:
            bits, count = frozen(allowed.bits), allowed.count()
            ef = math.ceil(ef * max(1.0, math.sqrt(_NARROW * n / count)))
            kept = max(ef, _UNSORTED, 4 * k)
            few = count <= _COMPARED * ef
            against = 2 + math.ceil(4 * WITNESSES * k / count)
        queries = frozen(queries)
        hits = Hits.none(len(queries), k)

        def share(part: slice) -> None:
            search(
                *graph, compared, prefix, width, values, queries[part], bits, few, against,
                min(ef, n), walk.rescored,
                _scratch.take("line", compared.shape[1], np.int8),
                _scratch.take("seen", (n + 7) // 8, np.uint8),
                _scratch.take("met", n, np.int32),
                _scratch.take("pool", min(kept, n), np.int64),
                hits.rows[part], hits.scores[part],
            )  # fmt: skip

        if len(queries) < 2 * _GRAIN:
            share(slice(None))
        else:
            parallel(share, len(queries), grain=_GRAIN)
        return hits

    def _open(self) -> _Opened:
        from retrieval.kernels import frozen

        with self._lock:
            if self._opened is None:
                self._check()
                graph = self._mapped()
                values = frozen(self._vectors.values)
                compared = self._codes() if self._over_codes else values
                graph = Graph(
                    frozen(graph.links),
                    frozen(graph.upper_start),
                    frozen(graph.upper_links),
                    graph.entry,
                    graph.top,
                )
                self._opened = _Opened(graph, compared, values)
            return self._opened

    def _mapped(self) -> Graph:
        n = len(self._vectors)
        try:
            entry, top = int(self._facts["entry"]), int(self._facts["top"])
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError(
                self._folder / "hnsw.json", f"does not say where to start ({error!r})"
            ) from error
        graph = Graph.map(self._folder, n, self._m, entry, top)
        start = int(graph.upper_start[entry]) if 0 <= entry < n else n
        if top < 0 or not 0 <= entry < n or (top and not 0 <= start <= len(graph.upper_links) - top):
            raise CorruptError(
                self._folder / "hnsw.json", f"entry {entry} on level {top} is no node of the graph"
            )
        return graph

    def _codes(self) -> NDArray[Any]:
        from retrieval.kernels import frozen

        codes = np.asarray(map_array(self._folder / _CODES))
        shape = (len(self._vectors), code_width(self._vectors.dim))
        if codes.shape != shape or codes.dtype != np.int8:
            raise CorruptError(
                self._folder / _CODES,
                f"holds {codes.dtype} of shape {codes.shape}, expected int8 of shape {shape}",
            )
        return frozen(codes)


def open_graph(
    folder: Path,
    vectors: Dense,
    parameters: Mapping[str, Any],
    facts: Mapping[str, Any],
    check: Callable[[], None],
) -> TercetGraph:
    """The graph of these vectors; ``check`` raises CorruptError when a file changed, and runs once."""
    return TercetGraph(folder, vectors, parameters, facts, check)
