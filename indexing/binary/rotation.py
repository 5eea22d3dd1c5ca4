"""The mean and the rotation after which signs tell most about a vector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from retrieval.values import Dense
from retrieval.values.storage import load_arrays, release_pages, save_arrays, whole

_ITERATIONS = 15
_SAMPLE = 10_000
_SEED = 20
_STATE = "binary-rotation"


@dataclass(frozen=True, eq=False)
class Rotation:
    """Vectors are moved by the mean and turned; queries are turned alone, which shifts all their scores alike.

    Attributes:
        mean: (D,) float32.
        matrix: (D, D) float32, orthonormal.
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.matrix.shape != (*self.mean.shape, *self.mean.shape):
            raise ValueError(f"a mean of shape {self.mean.shape} and a rotation of shape {self.matrix.shape}")

    @classmethod
    def learn(cls, vectors: Dense, method: str, *, memory_bytes: int) -> Self:
        """The mean of a sample and a rotation.

        Args:
            vectors: N rows, memory-mapped; without any the mean is 0.
            method: "itq" (Gong & Lazebnik, "Iterative Quantization", CVPR 2011, from a random rotation and without
                its reduction to principal axes), or "none".
            memory_bytes: what the sample and its images may take.
        """
        n, dim = len(vectors), vectors.dim
        rng = np.random.default_rng(_SEED)
        size = max(1, min(_SAMPLE, memory_bytes // (24 * dim)))
        rows = np.arange(n) if n <= size else np.sort(rng.choice(n, size, replace=False))
        sample = np.asarray(vectors.values[rows], dtype=np.float32)
        release_pages(vectors.values)
        mean = sample.mean(axis=0, dtype=np.float64) if n else np.zeros(dim)
        if method == "none":
            return cls(mean.astype(np.float32), np.eye(dim, dtype=np.float32))
        start = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
        return cls(
            mean.astype(np.float32), _itq((sample - mean).astype(np.float32), start.astype(np.float32))
        )

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return len(self.mean)

    def save(self, folder: Path) -> None:
        """Write it into an existing folder."""
        save_arrays(folder, _STATE, {}, mean=self.mean, matrix=self.matrix)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            CorruptError: a file is missing or damaged.
        """
        _, arrays = load_arrays(folder, _STATE)
        with whole(folder):
            return cls(np.asarray(arrays["mean"]), np.asarray(arrays["matrix"]))


def _itq(sample: NDArray[np.float32], rotation: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn the sample until it lies as close to the corners of a cube as it gets (orthogonal Procrustes, repeated)."""
    for _ in range(_ITERATIONS):
        signs = np.where(sample @ rotation > 0, np.float32(1), np.float32(-1))
        left, _, right = np.linalg.svd(sample.T @ signs)
        rotation = np.ascontiguousarray(left @ right)
    return rotation
