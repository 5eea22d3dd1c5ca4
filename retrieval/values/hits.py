"""What a search returns: rows and scores, bound to the snapshot the rows belong to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Hits:
    """The best rows of each of Q queries.

    Attributes:
        rows: (Q, K) int64; -1 pads a query that has fewer than K hits.
        scores: (Q, K) float32, descending, equal scores by ascending row; -inf pads.
        snapshot: the token of the snapshot the rows belong to; "" for the rows of a single index.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    snapshot: str = ""

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape != self.scores.shape:
            raise ValueError(f"rows {self.rows.shape} and scores {self.scores.shape} must be equal (Q, K)")
        if self.rows.dtype != np.int64 or self.scores.dtype != np.float32:
            raise ValueError(f"rows are int64 and scores float32, got {self.rows.dtype}, {self.scores.dtype}")

    @classmethod
    def none(cls, n_queries: int, k: int, snapshot: str = "") -> Hits:
        """Only padding."""
        return cls(
            np.full((n_queries, k), -1, dtype=np.int64),
            np.full((n_queries, k), -np.inf, dtype=np.float32),
            snapshot,
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def k(self) -> int:
        """The number of columns."""
        return self.rows.shape[1]

    def __getitem__(self, queries: slice) -> Hits:
        return Hits(self.rows[queries], self.scores[queries], self.snapshot)

    def cut(self, k: int) -> Hits:
        """The first k columns, padded when there are fewer."""
        if k <= self.k:
            return Hits(self.rows[:, :k], self.scores[:, :k], self.snapshot)
        wide = Hits.none(len(self), k, self.snapshot)
        wide.rows[:, : self.k] = self.rows
        wide.scores[:, : self.k] = self.scores
        return wide

    @classmethod
    def concat(cls, parts: list[Hits]) -> Hits:
        """The queries of all parts, one part after another; all have the same K and snapshot."""
        if len({part.snapshot for part in parts}) > 1:
            raise ValueError("hits of different snapshots cannot be joined")
        return cls(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.scores for part in parts]),
            parts[0].snapshot,
        )
