"""Narrower token vectors: a projection fitted on the vectors of a sample of the corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.token_pooling import unit_rows
from retrieval.errors import CorruptError
from retrieval.values.storage import load_arrays, save_arrays, whole

PRIOR = 10
"""Vectors for each dimension that whitening takes for granted; of 240 tokens a document they are as 16 documents."""

_KIND = "token-projection"


@dataclass(frozen=True, eq=False)
class TokenProjection:
    """A linear map, and unit length again behind it.

    Attributes:
        matrix: (D, dim) float32.
    """

    matrix: NDArray[np.float32]

    def __post_init__(self) -> None:
        matrix = self.matrix
        if matrix.ndim != 2 or matrix.dtype != np.float32 or matrix.shape[1] > matrix.shape[0]:
            raise ValueError(
                f"a projection is (D, dim) float32 with dim <= D, got {matrix.dtype} {matrix.shape}"
            )
        if not np.isfinite(matrix).all():
            raise ValueError("the projection is not finite")

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(T, D) vectors to (T, dim) unit vectors."""
        return unit_rows(values @ self.matrix)

    @cached_property
    def digest(self) -> str:
        """sha256 hex of the numbers."""
        return hashlib.sha256(self.matrix.tobytes()).hexdigest()

    @classmethod
    def fit(cls, batches: Iterable[NDArray[np.float32]], width: int, dim: int, whiten: bool) -> Self:
        """The ``dim`` strongest directions of the vectors: a truncated SVD without centring.

        Holds one batch and a (D, D) matrix at a time.

        Args:
            batches: (T, D) vectors each.
            width: D.
            dim: at most D.
            whiten: scale the directions to be alike strong (Su et al., arXiv:2103.15316), since the token vectors of
                a model that was not trained on them crowd around a few directions that say little. For this,
                ``PRIOR`` more vectors for each dimension, alike in all directions, are taken for granted, so that
                a small sample does not pass for the whole.
        """
        moments, n_vectors = np.zeros((width, width), dtype=np.float64), 0
        for values in batches:
            moments += values.T @ values
            n_vectors += len(values)
        moments += np.eye(width) * (PRIOR * np.trace(moments) / n_vectors if n_vectors else 1)
        strengths, directions = np.linalg.eigh(moments)  # ascending
        strengths, directions = strengths[::-1][:dim], directions[:, ::-1][:, :dim]
        signs = np.sign(
            directions[np.abs(directions).argmax(axis=0), np.arange(dim)]
        )  # eigh leaves them open
        scales = np.sqrt(strengths[0] / strengths) if whiten else 1.0
        return cls((directions * signs * scales).astype(np.float32))

    def save(self, folder: Path) -> None:
        """Write matrix.npy and value.json into an existing folder."""
        save_arrays(folder, _KIND, {}, matrix=self.matrix)

    @classmethod
    def load(cls, folder: Path, width: int, dim: int) -> Self:
        """Read what ``save`` wrote.

        Raises:
            CorruptError: a file is missing or damaged, or the projection is of other widths.
        """
        with whole(folder):
            found = cls(np.array(load_arrays(folder, _KIND)[1]["matrix"]))
        if found.matrix.shape != (width, dim):
            raise CorruptError(
                folder / "matrix.npy",
                f"it is of shape {found.matrix.shape}; the encoder needs {(width, dim)}",
            )
        return found
