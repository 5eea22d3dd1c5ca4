"""Product quantisation of encodings: a byte for every 8 dimensions, which names one of 256 centroids.

Jégou, Douze & Schmid, "Product quantization for nearest neighbor search", TPAMI 2011; MUVERA's PQ-256-8. A query is not
quantised: its products with all centroids stand in tables, from which the product with a document is added up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from indexing.fde.files import map_shaped
from retrieval.compute import apply_threads, parallel
from retrieval.errors import FormatError

GROUP = 8
"""Dimensions that share a byte."""
CENTROIDS = 256
SAMPLE = 1 << 15
"""Encodings trained on, fewer than MUVERA's 100,000: of a new one the squared part that is lost is 0.305 with 5,000 of
them, 0.297 with 20,000 and 0.295 with 40,000 (generated texts, 256 of 4,096 dimensions)."""

_ROUNDS = 6  # of k-means; four more take off 0.001 of what is lost
_SLAB = 32  # groups trained one after the other: 33 MB of a full sample
_FAST = 16_384  # points from which on FAISS takes an eighth of the time each; smaller samples are repeated
_FEW = 2_048  # but not so small ones
_NAME = "codebooks.npy"


class Tables(NamedTuple):
    """A query's products with centroids, rounded to bytes.

    The product of the query with a document is about ``base`` and ``step`` times the sum of its entries, to half a step
    for each group.

    Attributes:
        groups: (A,) int64, ascending: where the query is not zero.
        entries: (A * 256,) uint8, by group and centroid.
        base: what the entries leave out, the sum of each group's smallest product.
        step: what an entry of 1 stands for.
    """

    groups: NDArray[np.int64]
    entries: NDArray[np.uint8]
    base: float
    step: float


@dataclass(frozen=True, eq=False)
class Codebooks:
    """The centroids of every group of dimensions.

    Attributes:
        centroids: (M, 8, C) float32, C of them a group: 256, or as many as there are texts, one at least.
        dim: of encodings, at most 8 M; missing dimensions count as zero.
    """

    centroids: NDArray[np.float32]
    dim: int

    @classmethod
    def train(cls, sample: NDArray[np.float32]) -> Self:
        """Centroids by FAISS's k-means, the same for the same sample whatever the number of threads.

        Args:
            sample: (n, dim) encodings.

        Raises:
            FormatError: one holds NaN or infinity.
        """
        n, dim = sample.shape
        groups = _groups(dim)
        centroids = np.zeros((groups, GROUP, _count(n)), dtype=np.float32)
        if not np.isfinite(sample).all():
            raise FormatError("an encoding holds NaN or infinity; look for token vectors that do")

        def share(part: slice) -> None:
            apply_threads()
            for start in range(part.start * _SLAB, min(part.stop * _SLAB, groups), _SLAB):
                stop = min(start + _SLAB, groups)
                trained = _kmeans(_padded(sample[:, start * GROUP : stop * GROUP], stop - start))
                centroids[start:stop] = trained.transpose(0, 2, 1)[:, :, : centroids.shape[2]]

        if n:
            parallel(share, -(-groups // _SLAB))
        return cls(centroids, dim)

    def save(self, folder: Path) -> None:
        """Write codebooks.npy into an existing folder."""
        np.save(folder / _NAME, self.centroids, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path, shape: tuple[int, int]) -> Self:
        """Read what was trained on ``shape`` encodings (n, dim).

        Raises:
            CorruptError: the file is missing, cut short or of another shape.
        """
        n, dim = shape
        wanted = (_groups(dim), GROUP, _count(n))
        return cls(np.array(map_shaped(folder / _NAME, wanted, np.float32)), dim)

    @property
    def groups(self) -> int:
        """Bytes of a document."""
        return len(self.centroids)

    def coder(self) -> Callable[[NDArray[np.float32]], NDArray[np.uint8]]:
        """What turns (n, dim) encodings into the (n, M) numbers of their nearest centroids."""
        count = self.centroids.shape[2]
        quantizer = _quantizer(self.groups)
        _faiss().copy_array_to_vector(
            _repeated(self.centroids.transpose(0, 2, 1), CENTROIDS, axis=1).ravel(), quantizer.centroids
        )

        def code(encodings: NDArray[np.float32]) -> NDArray[np.uint8]:
            apply_threads()
            found: NDArray[np.uint8] = quantizer.compute_codes(_padded(encodings, self.groups))
            return found if count == CENTROIDS else found % np.uint8(count)

        return code

    def tables(self, query: NDArray[np.float32]) -> Tables:
        """The tables of a query's encoding, (dim,)."""
        from indexing.fde.code_kernels import products_with_centroids, round_products
        from retrieval.kernels import frozen

        products = np.empty((self.groups, CENTROIDS), dtype=np.float32)
        ranges = np.empty((self.groups, 2), dtype=np.float32)
        padded = _padded(query[None, :], self.groups)[0]
        products_with_centroids(frozen(padded), frozen(self.centroids), products, ranges)
        spread = ranges[:, 1] - ranges[:, 0]
        groups = np.flatnonzero(spread > 0)
        step = float(spread.max(initial=0)) / 255
        entries = np.zeros(len(groups) * CENTROIDS, dtype=np.uint8)
        round_products(products, ranges, groups, step, self.centroids.shape[2], entries)
        return Tables(groups, entries, float(ranges[:, 0].sum(dtype=np.float64)), step)


def _groups(dim: int) -> int:
    return -(-dim // GROUP)


def _count(n: int) -> int:
    """Centroids of n texts."""
    return max(1, min(CENTROIDS, n))


def _padded(encodings: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
    """(n, 8 * groups) C-contiguous, with zeros for what is missing."""
    missing = groups * GROUP - encodings.shape[1]
    return np.ascontiguousarray(np.pad(encodings, ((0, 0), (0, missing))) if missing else encodings)


def _kmeans(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """(groups, 256, 8) centroids of (n, 8 * groups), those of fewer rows repeated."""
    n, width = sample.shape
    quantizer = _quantizer(width // GROUP)
    quantizer.train(_repeated(sample, max(n, _FAST if n > _FEW else CENTROIDS), axis=0))
    trained = _faiss().vector_to_array(quantizer.centroids)
    return np.asarray(trained.reshape(width // GROUP, CENTROIDS, GROUP))


def _repeated(array: NDArray[np.float32], size: int, axis: int) -> NDArray[np.float32]:
    """So many entries along an axis, from the first on again after the last."""
    n = array.shape[axis]
    return array if n == size else array.take(np.arange(size) % n, axis=axis)


def _quantizer(groups: int) -> Any:
    quantizer = _faiss().ProductQuantizer(groups * GROUP, groups, 8)
    quantizer.cp.niter = _ROUNDS
    quantizer.cp.min_points_per_centroid = 1  # which says when to warn
    quantizer.cp.max_points_per_centroid = SAMPLE  # no further sampling
    return quantizer


def _faiss() -> Any:
    import faiss

    return faiss
