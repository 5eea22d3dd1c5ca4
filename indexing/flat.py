"""Exact search over dense vectors; nothing but the vectors themselves is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.dense_explanation import explain_inner_products
from indexing.dense_scan import largest_norm, scan
from indexing.index_facts import no_parameters, read_norm, write_facts
from retrieval.protocols import Explanation, SearchRequest
from retrieval.values import Dense, Hits

_FACTS = "flat.json"


@dataclass(frozen=True, eq=False)
class FlatIndex:
    """Compares every allowed row with the query.

    The score is the inner product of the stored vectors as they are: a cosine where the encoder normalises,
    and not otherwise. float16 vectors are widened on the way; their scores are those of the rounded vectors.

    Attributes:
        vectors: N rows, memory-mapped.
        norm: the largest norm of a row, which bounds the rounding error of a scan.
    """

    vectors: Dense
    norm: float

    kind: ClassVar[str] = "flat"
    exact: ClassVar[bool] = True
    value: ClassVar[type] = Dense

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """There are none.

        Raises:
            ConfigError: one was given.
        """
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
        """Write flat.json: the number of rows, the width and the largest norm."""
        write_facts(
            folder / _FACTS,
            {"n": len(vectors), "dim": vectors.dim, "norm": largest_norm(vectors, progress)},
        )

    @classmethod
    def load(cls, folder: Path, vectors: Dense, parameters: Mapping[str, Any]) -> Self:
        """Open what ``build`` wrote.

        Raises:
            CorruptError: flat.json is missing, damaged or about other vectors.
        """
        return cls(vectors, read_norm(folder / _FACTS, vectors))

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Dense, request: SearchRequest) -> Hits:
        """The k best allowed rows of each query, exactly; see ``indexing.dense_scan.scan``."""
        return scan(self.vectors, self.norm, queries, request.k, request.allowed)

    def explain(self, queries: Dense, rows: NDArray[np.integer]) -> list[Explanation]:
        """The inner product of the first query with each row, with norms and cosine."""
        return explain_inner_products(self.vectors, queries, rows)
