"""Why a row scores what it does for a query's network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from retrieval.protocols import Explanation
from retrieval.query_networks import score_rows
from retrieval.values import Dense, QueryNetwork


def explain_networks(
    vectors: Dense,
    queries: QueryNetwork,
    rows: NDArray[np.integer],
    facts: Mapping[str, float | int | str] | None = None,
) -> list[Explanation]:
    """The output of the first query's network for each row, with its size and further facts.

    A network's sum has no parts that mean anything: its last layer weighs hidden numbers.
    """
    chosen = np.asarray(rows, dtype=np.int64)
    scores = score_rows(queries[:1], vectors, chosen[None, :])[0]
    size = {
        "dim": vectors.dim,
        "hidden layers": len(queries.biases),
        "numbers": sum(array[0].size for array in queries.arrays),
    }
    return [
        Explanation("output of the query's network", float(score), facts={**size, **(facts or {})})
        for score in scores
    ]
