"""The residual codec: what it was trained to, on disk and in use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from indexing.residual.nearest import NearestCentroid
from retrieval.compute import parallel
from retrieval.errors import CorruptError
from retrieval.values.storage import map_array
from retrieval.vector_table import VectorTable

BITS = (1, 2, 4, 8)
_FILES = ("centroids", "cutoffs", "weights")
_GRAIN = 1024  # vectors worth a thread


@dataclass(frozen=True, eq=False)
class ResidualCodec:
    """Vectors of unit length as a centroid and a bucket a dimension (Santhanam et al., "ColBERTv2", NAACL 2022).

    A component of a vector minus its centroid falls into one of 2 ** bits buckets. Buckets hold equal shares of the
    residuals seen in training, of all dimensions together; a bucket stands for its median. Decoded vectors are scaled
    to length 1.

    Attributes:
        centroids: (C, D) float16.
        cutoffs: (2 ** bits - 1,) float32, ascending: where one bucket ends and the next begins.
        weights: (2 ** bits,) float32: what a bucket stands for.
    """

    centroids: NDArray[np.float16]
    cutoffs: NDArray[np.float32]
    weights: NDArray[np.float32]

    @property
    def dim(self) -> int:
        """The width D of a vector."""
        return int(self.centroids.shape[1])

    @property
    def bits(self) -> int:
        """Bits of a component's bucket."""
        return len(self.weights).bit_length() - 1

    @property
    def width(self) -> int:
        """Bytes P of a vector's buckets."""
        return -(-self.dim * self.bits // 8)

    @property
    def code_type(self) -> np.dtype[Any]:
        """What a centroid's number is stored as."""
        return np.dtype(np.uint16 if len(self.centroids) <= 1 << 16 else np.uint32)

    @cached_property
    def centroid_table(self) -> VectorTable:
        """The centroids, as queries are compared with them."""
        return VectorTable(self.centroids)

    def nearest(self) -> NearestCentroid:
        """What finds the centroids of vectors; worth keeping for many."""
        return NearestCentroid.over(self.centroids.astype(np.float32))

    def encode(
        self, values: NDArray[Any], nearest: NearestCentroid
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Compress vectors.

        Args:
            values: (N, D) of unit length, finite.
            nearest: what ``nearest`` returned.

        Returns:
            (N,) centroids in ``code_type`` and (N, P) packed buckets.
        """
        from indexing.residual.kernels import quantise
        from retrieval.kernels import frozen

        codes = nearest(values)
        packed = np.empty((len(values), self.width), dtype=np.uint8)
        centroids, cutoffs = frozen(self.centroids), frozen(self.cutoffs)

        def share(part: slice) -> None:
            wide = np.asarray(values[part], dtype=np.float32)
            quantise(wide, centroids, codes[part], cutoffs, self.bits, packed[part])

        parallel(share, len(values), grain=_GRAIN)
        return codes.astype(self.code_type), packed

    def decode(self, codes: NDArray[Any], packed: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, D) vectors of unit length from what ``encode`` made of them."""
        out = np.empty((len(codes), self.dim), dtype=np.float32)
        self.decode_rows(np.array([0, len(codes)]), np.zeros(1, dtype=np.int64), codes, packed, out)
        return out

    def decode_rows(
        self,
        indptr: NDArray[np.int64],
        rows: NDArray[np.int64],
        codes: NDArray[Any],
        packed: NDArray[np.uint8],
        out: NDArray[np.float32],
    ) -> None:
        """The vectors of some documents, one document after another; see ``indexing.residual.kernels.decode``."""
        from indexing.residual.kernels import decode
        from retrieval.kernels import frozen

        decode(
            frozen(indptr),
            frozen(rows),
            frozen(codes),
            frozen(packed),
            frozen(self.centroids),
            frozen(self.weights),
            out,
        )

    def save(self, folder: Path) -> None:
        """Write three .npy into an existing folder."""
        for name in _FILES:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map what ``save`` wrote.

        Raises:
            CorruptError: a file is missing, cut short or not of this codec.
        """
        arrays = {name: map_array(folder / f"{name}.npy") for name in _FILES}
        kinds = {"centroids": (np.float16, 2), "cutoffs": (np.float32, 1), "weights": (np.float32, 1)}
        for name, (dtype, ndim) in kinds.items():
            array = arrays[name]
            if array.dtype != dtype or array.ndim != ndim or not np.isfinite(array).all():
                raise CorruptError(
                    folder / f"{name}.npy", f"holds no finite {ndim}-dimensional {dtype.__name__}"
                )
        codec = cls(**arrays)
        if len(codec.cutoffs) != len(codec.weights) - 1 or codec.bits not in BITS or not len(codec.centroids):
            raise CorruptError(folder / "weights.npy", "weights, cutoffs and centroids are not of one codec")
        return codec
