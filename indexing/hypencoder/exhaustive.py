"""Exact search by queries' networks; nothing but the vectors themselves is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.hypencoder.explanation import explain_networks
from indexing.index_facts import no_parameters, read_facts, write_facts
from retrieval.bitmap import Bitmap
from retrieval.protocols import Explanation, SearchRequest
from retrieval.query_networks import best_rows
from retrieval.values import Dense, Hits, QueryNetwork

_FACTS = "hypencoder.json"


@dataclass(frozen=True, eq=False)
class HypencoderIndex:
    """Scores every allowed row by the query's network, one and all.

    A score depends on network and row alone (see ``retrieval.query_networks``), so rows and scores are the same in
    any segmentation and with any number of threads.

    Attributes:
        vectors: N rows, memory-mapped.
    """

    vectors: Dense

    kind: ClassVar[str] = "hypencoder"
    exact: ClassVar[bool] = True
    value: ClassVar[type] = Dense
    query_value: ClassVar[type] = QueryNetwork

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """There are none (ConfigError: one was given)."""
        return no_parameters(cls.kind, given)

    @classmethod
    def build(
        cls,
        vectors: Dense,
        folder: Path,
        parameters: Mapping[str, Any],
        *,
        memory_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        """Write hypencoder.json: the number of rows and the width."""
        write_facts(folder / _FACTS, {"n": len(vectors), "dim": vectors.dim})
        progress(len(vectors))

    @classmethod
    def load(cls, folder: Path, vectors: Dense, parameters: Mapping[str, Any]) -> Self:
        """Open what ``build`` wrote (CorruptError: hypencoder.json is missing, damaged or about other vectors)."""
        read_facts(folder / _FACTS, {"n": len(vectors), "dim": vectors.dim})
        return cls(vectors)

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: QueryNetwork, request: SearchRequest) -> Hits:
        """The k best allowed rows of each query, exactly.

        Raises:
            IncompatibleError: the networks score vectors of another width.
            ValueError: a network holds NaN or infinity, a score exceeds float32, or the bitmap is for another number
                of rows.
        """
        return best_rows(queries, self.vectors, chosen_rows(len(self), request.allowed), request.k)

    def explain(self, queries: QueryNetwork, rows: NDArray[np.integer]) -> list[Explanation]:
        """The output of the first query's network for each row."""
        return explain_networks(self.vectors, queries, rows)


def chosen_rows(n: int, allowed: Bitmap | None) -> NDArray[np.int64] | None:
    """The rows that may be returned, ascending; None for all.

    Raises:
        ValueError: the bitmap is for another number of rows.
    """
    if allowed is None:
        return None
    if allowed.n != n:
        raise ValueError(f"the bitmap is for {allowed.n} rows, the index has {n}")
    return None if allowed.count() == n else allowed.rows()
