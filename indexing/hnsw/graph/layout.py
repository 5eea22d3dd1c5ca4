"""The arrays of a hierarchical small-world graph, in memory and on disk."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import CorruptError
from retrieval.values.storage import map_array


class Graph(NamedTuple):
    """Links of N nodes; a node's number is the row it stands for.

    Attributes:
        links: (N, 2m) int32, neighbours on the ground level, closest first; -1 fills up the end.
        upper_start: (N,) int32, the line in upper_links of the node's level 1, its levels 2, 3, ... in the lines
            after it; -1 for a node of the ground level only.
        upper_links: (U, m) int32, neighbours on upper levels; -1 fills up the end.
        entry: the node from which every walk starts; -1 without rows.
        top: the highest level of the entry, 0 for the ground level.
    """

    links: NDArray[np.int32]
    upper_start: NDArray[np.int32]
    upper_links: NDArray[np.int32]
    entry: int
    top: int

    def save(self, folder: Path) -> None:
        """Write one .npy an array; ``entry`` and ``top`` are facts that the caller keeps."""
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def map(cls, folder: Path, n: int, m: int, entry: int, top: int) -> Self:
        """Map what ``save`` wrote about n rows.

        Shapes and types are checked here, which reads nothing; that the content is what was written, and that
        ``entry`` and ``top`` belong to it, is for the caller to check.

        Raises:
            CorruptError: a file is missing or cut short, or the arrays are not those of such a graph.
        """
        arrays = {name: np.asarray(map_array(folder / f"{name}.npy")) for name in ARRAYS}
        n_upper = len(arrays["upper_links"]) if arrays["upper_links"].ndim == 2 else 0
        for name, shape in {"links": (n, 2 * m), "upper_start": (n,), "upper_links": (n_upper, m)}.items():
            array = arrays[name]
            if array.shape != shape or array.dtype != np.int32:
                raise CorruptError(
                    folder / f"{name}.npy",
                    f"holds {array.dtype} of shape {array.shape}, expected int32 of shape {shape}",
                )
        return cls(**arrays, entry=entry, top=top)


ARRAYS = ("links", "upper_start", "upper_links")
"""The fields of a graph that are files."""
