"""The stored vectors of a representation by the rows of a snapshot, whatever segments they lie in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.segment import Segment
from indexing.vectors import Vectors
from retrieval.errors import ConfigError
from retrieval.values import Terms


@dataclass(frozen=True, eq=False)
class RowStore:
    """See ``retrieval.protocols.Store``.

    Attributes:
        segments: at least one.
        name: the representation.
    """

    segments: Sequence[Segment]
    name: str

    def __len__(self) -> int:
        return sum(segment.n_rows for segment in self.segments)

    def take(self, rows: NDArray[np.integer]) -> Vectors:
        """The vectors of the rows, in that order.

        Raises:
            ConfigError: they are term counts of several segments, which number their terms differently.
            IndexError: there is no such row.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            raise IndexError(
                f"rows {rows.min()} to {rows.max()} are not all in a collection of {len(self)} rows"
            )
        parts: list[Any] = []
        places = []
        for segment in self.segments:
            inside = np.flatnonzero((rows >= segment.base) & (rows < segment.base + segment.n_rows))
            if len(inside) or not parts:
                parts.append(segment.vectors(self.name).take(rows[inside] - segment.base))
                places.append(inside)
        if len(parts) == 1:
            return parts[0]
        if isinstance(parts[0], Terms):
            raise ConfigError(f"{self.name!r} holds term counts, whose numbers differ between segments")
        return type(parts[0]).concat(parts).take(np.argsort(np.concatenate(places)))
