"""The graph of neighbouring documents that a walk by a query's network follows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexing.hnsw.graph import building
from indexing.hnsw.graph.codes import code_width, lengths, levelled_codes
from retrieval.errors import CorruptError
from retrieval.values import Dense
from retrieval.values.storage import map_array

FILE = "neighbours.npy"
_EF = 200  # candidates kept while a row's neighbours are looked for


def memory_needed(n: int, dim: int, neighbours: int) -> int:
    """Bytes a build holds: codes of the vectors, and the graph."""
    return building.memory_needed(n, code_width(dim + 1), neighbours // 2)


def write_neighbours(vectors: Dense, folder: Path, neighbours: int, progress: Callable[[int], None]) -> int:
    """Write (N, neighbours) int32, the nearest first and -1 behind the last.

    They are the ground level of Tercet's own small-world graph (``indexing.hnsw.graph``): near neighbours by Euclidean
    distance, in different directions. The paper's are the exact nearest, among which there are cliques that a walk
    cannot leave.

    Returns:
        A row from which every other can be reached.
    """
    codes = levelled_codes(vectors, lengths(vectors))
    graph = building.build_graph(codes, neighbours // 2, _EF, None, progress)
    np.save(folder / FILE, graph.links, allow_pickle=False)
    return graph.entry


def map_neighbours(folder: Path, n: int, neighbours: int) -> NDArray[np.int32]:
    """Map what ``write_neighbours`` wrote.

    Raises:
        CorruptError: it is missing, cut short or of another shape.
    """
    links = np.asarray(map_array(folder / FILE))
    if links.shape != (n, neighbours) or links.dtype != np.int32:
        raise CorruptError(
            folder / FILE, f"holds {links.dtype} of shape {links.shape}, expected int32 of {(n, neighbours)}"
        )
    return links
