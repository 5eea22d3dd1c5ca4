"""The four kinds of vectors: dense, sparse, and one dense or one sparse vector a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.values.storage import load_arrays, ragged_rows, save_arrays, take_ragged, whole

FLOATS = (np.dtype(np.float32), np.dtype(np.float16))


def _row_range(rows: slice, n: int) -> tuple[int, int]:
    start, stop, step = rows.indices(n)
    if step != 1:
        raise ValueError("slices of values have step 1")
    return start, max(start, stop)


@dataclass(frozen=True, eq=False)
class Dense:
    """N vectors of width D.

    Attributes:
        values: (N, D) float32 or float16.
    """

    values: NDArray[Any]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype not in FLOATS:
            raise ValueError(
                f"dense vectors are (N, D) float32 or float16, got {self.values.dtype} {self.values.shape}"
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dim(self) -> int:
        """The width D."""
        return int(self.values.shape[1])

    def __getitem__(self, rows: slice) -> Dense:
        return Dense(self.values[rows])

    def take(self, rows: NDArray[np.integer]) -> Dense:
        """The chosen rows, copied."""
        return Dense(np.asarray(self.values[rows]))

    @classmethod
    def concat(cls, parts: Sequence[Dense]) -> Dense:
        """One after another."""
        return cls(np.concatenate([part.values for part in parts]))

    def save(self, folder: Path) -> None:
        """Write values.npy and value.json into an existing folder."""
        save_arrays(folder, "dense", {}, values=self.values)

    @classmethod
    def load(cls, folder: Path) -> Dense:
        """Map what ``save`` wrote (CorruptError when damaged)."""
        with whole(folder):
            return cls(load_arrays(folder, "dense")[1]["values"])


@dataclass(frozen=True, eq=False)
class Sparse:
    """N vectors over a vocabulary of ``dim`` terms, in compressed rows.

    Attributes:
        indptr: (N+1,) int64.
        indices: (nnz,) int32, ascending and unique within a row, below dim.
        values: (nnz,) float32, finite.
        dim: vocabulary size V.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    dim: int

    def __post_init__(self) -> None:
        if self.indptr.dtype != np.int64 or self.indices.dtype != np.int32 or self.values.dtype != np.float32:
            raise ValueError("sparse vectors are int64 indptr, int32 indices, float32 values")
        if len(self.indices) != len(self.values) or int(self.indptr[-1]) != len(self.indices):
            raise ValueError("indptr, indices and values disagree")

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, rows: slice) -> Sparse:
        start, stop = _row_range(rows, len(self))
        indptr, low, high = ragged_rows(self.indptr, start, stop)
        return Sparse(indptr, self.indices[low:high], self.values[low:high], self.dim)

    def take(self, rows: NDArray[np.integer]) -> Sparse:
        """The chosen rows, copied."""
        indptr, positions = take_ragged(self.indptr, rows)
        return Sparse(indptr, self.indices[positions], self.values[positions], self.dim)

    @classmethod
    def concat(cls, parts: Sequence[Sparse]) -> Sparse:
        """One after another; all have the same dim."""
        if len({part.dim for part in parts}) != 1:
            raise ValueError("sparse vectors of different vocabularies cannot be joined")
        return cls(
            _concat_indptr([part.indptr for part in parts]),
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.values for part in parts]),
            parts[0].dim,
        )

    def save(self, folder: Path) -> None:
        """Write .npy arrays and value.json into an existing folder."""
        save_arrays(
            folder,
            "sparse",
            {"dim": self.dim},
            indptr=self.indptr,
            indices=self.indices,
            values=self.values,
        )

    @classmethod
    def load(cls, folder: Path) -> Sparse:
        """Map what ``save`` wrote (CorruptError when damaged)."""
        with whole(folder):
            facts, arrays = load_arrays(folder, "sparse")
            return cls(arrays["indptr"], arrays["indices"], arrays["values"], int(facts["dim"]))


@dataclass(frozen=True, eq=False)
class MultiVector:
    """One vector a token for N texts; ragged, never padded.

    Attributes:
        indptr: (N+1,) int64 into values.
        values: (tokens, D) float32 or float16.
    """

    indptr: NDArray[np.int64]
    values: NDArray[Any]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype not in FLOATS:
            raise ValueError(
                "token vectors are (tokens, D) float32 or float16, "
                f"got {self.values.dtype} {self.values.shape}"
            )
        if self.indptr.dtype != np.int64 or int(self.indptr[-1]) != len(self.values):
            raise ValueError("indptr and values disagree")

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def dim(self) -> int:
        """The width D."""
        return int(self.values.shape[1])

    def __getitem__(self, rows: slice) -> MultiVector:
        start, stop = _row_range(rows, len(self))
        indptr, low, high = ragged_rows(self.indptr, start, stop)
        return MultiVector(indptr, self.values[low:high])

    def take(self, rows: NDArray[np.integer]) -> MultiVector:
        """The chosen rows, copied."""
        indptr, positions = take_ragged(self.indptr, rows)
        return MultiVector(indptr, self.values[positions])

    @classmethod
    def concat(cls, parts: Sequence[MultiVector]) -> MultiVector:
        """One after another."""
        return cls(
            _concat_indptr([part.indptr for part in parts]),
            np.concatenate([part.values for part in parts]),
        )

    def save(self, folder: Path) -> None:
        """Write .npy arrays and value.json into an existing folder."""
        save_arrays(folder, "multivector", {}, indptr=self.indptr, values=self.values)

    @classmethod
    def load(cls, folder: Path) -> MultiVector:
        """Map what ``save`` wrote (CorruptError when damaged)."""
        with whole(folder):
            arrays = load_arrays(folder, "multivector")[1]
            return cls(arrays["indptr"], arrays["values"])


@dataclass(frozen=True, eq=False)
class MultiSparse:
    """Several sparse vectors, such as one a token, for N texts; ragged, never padded.

    Attributes:
        indptr: (N+1,) int64 into the rows of tokens.
        tokens: the vectors of all texts, one after another.
    """

    indptr: NDArray[np.int64]
    tokens: Sparse

    def __post_init__(self) -> None:
        if self.indptr.dtype != np.int64 or int(self.indptr[-1]) != len(self.tokens):
            raise ValueError("indptr and tokens disagree")

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def dim(self) -> int:
        """The vocabulary size V."""
        return self.tokens.dim

    def __getitem__(self, rows: slice) -> MultiSparse:
        start, stop = _row_range(rows, len(self))
        indptr, low, high = ragged_rows(self.indptr, start, stop)
        return MultiSparse(indptr, self.tokens[low:high])

    def take(self, rows: NDArray[np.integer]) -> MultiSparse:
        """The chosen rows, copied."""
        indptr, positions = take_ragged(self.indptr, rows)
        return MultiSparse(indptr, self.tokens.take(positions))

    @classmethod
    def concat(cls, parts: Sequence[MultiSparse]) -> MultiSparse:
        """One after another; all have the same dim."""
        return cls(
            _concat_indptr([part.indptr for part in parts]), Sparse.concat([part.tokens for part in parts])
        )

    def save(self, folder: Path) -> None:
        """Write .npy arrays and value.json into an existing folder."""
        save_arrays(
            folder,
            "multisparse",
            {"dim": self.dim},
            indptr=self.indptr,
            token_indptr=self.tokens.indptr,
            indices=self.tokens.indices,
            values=self.tokens.values,
        )

    @classmethod
    def load(cls, folder: Path) -> MultiSparse:
        """Map what ``save`` wrote (CorruptError when damaged)."""
        with whole(folder):
            facts, arrays = load_arrays(folder, "multisparse")
            parts = (arrays["token_indptr"], arrays["indices"], arrays["values"])
            return cls(arrays["indptr"], Sparse(*parts, int(facts["dim"])))


def _concat_indptr(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    counts = np.concatenate([np.diff(part) for part in parts])
    indptr = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=indptr[1:])
    return indptr
