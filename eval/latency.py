"""How long one query takes, from its text to its hits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.protocols import Searcher, SearchRequest

WARM_UP = 5


@dataclass(frozen=True, eq=False)
class Latency:
    """Milliseconds of single calls.

    Attributes:
        milliseconds: (n,) one query each, text to hits, encoding included.
        k: hits asked for.
    """

    milliseconds: NDArray[np.float64]
    k: int

    @property
    def mean(self) -> float:
        """Milliseconds a query on average."""
        return float(self.milliseconds.mean())

    def percentile(self, q: float) -> float:
        """Milliseconds that q per cent of the queries stay within."""
        return float(np.percentile(self.milliseconds, q))

    @classmethod
    def joined(cls, parts: Sequence[Latency]) -> Latency | None:
        """All measurements together; None when there are none."""
        if not parts:
            return None
        return cls(np.concatenate([part.milliseconds for part in parts]), parts[0].k)


def time_single_queries(
    searcher: Searcher, texts: Sequence[str], request: SearchRequest, limit: int, seed: int = 0
) -> Latency | None:
    """Send queries one at a time and time each.

    Args:
        searcher: what is timed.
        texts: the queries; when there are more than ``limit``, that many are drawn.
        request: what is asked of each.
        limit: queries timed, after a few that are not; 0 for none.
        seed: of the draw.

    Returns:
        The times, or None when nothing was timed.
    """
    if not texts or limit < 1:
        return None
    chosen = np.random.default_rng(seed).permutation(len(texts))[:limit]
    for place in chosen[:WARM_UP]:
        searcher.search([texts[place]], request)
    times = np.empty(len(chosen))
    for number, place in enumerate(chosen):
        started = time.perf_counter()
        searcher.search([texts[place]], request)
        times[number] = (time.perf_counter() - started) * 1e3
    return Latency(times, request.k)
