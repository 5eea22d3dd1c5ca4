"""QB-Norm: hubs held back by what a bank of sample queries thinks of them.

Bogolin, Croitoru, Jin, Liu & Albanie, "Cross Modal Retrieval with Querybank Normalisation", CVPR 2022,
arXiv:2112.12777.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import parallel
from retrieval.errors import ConfigError, FormatError, IncompatibleError
from retrieval.protocols import Explanation, Searcher, SearchRequest, Store
from retrieval.rerank import ordered
from retrieval.values import Dense, Hits

BETA = 20.0
"""The paper's inverse temperature, for cosines; larger looks at the nearest queries of the bank alone."""

ACTIVATING = 1
"""Hits of a bank query that are taken for hubs, as in the paper."""

_LARGEST = float(np.finfo(np.float32).max)
_PRODUCTS = 1 << 18  # scores of rows with the bank that a thread holds at a time: 7 MB
_TOGETHER = 256  # bank queries searched together
_GRAIN = 4  # rows worth a thread: 0.4 ms with a bank of 1,000 queries at width 384


@dataclass(frozen=True, eq=False)
class QueryBank:
    """Vectors of sample queries, none of them one that is to be judged by.

    Attributes:
        vectors: B queries, finite.
        beta: what similarities are multiplied by before the softmax.
        k: hits of a bank query that are taken for hubs.
    """

    vectors: Dense
    beta: float = BETA
    k: int = ACTIVATING

    def __post_init__(self) -> None:
        if not len(self.vectors):
            raise ConfigError("a query bank holds at least one query; give a file with queries")
        if not np.isfinite(self.vectors.values).all():
            raise FormatError("a vector of the query bank holds NaN or infinity")
        if (
            not isinstance(self.beta, int | float)
            or isinstance(self.beta, bool)
            or not 0 < self.beta < np.inf
        ):
            raise ConfigError(
                f"beta of a query bank is {self.beta!r}; it is a positive number, such as {BETA:g}"
            )
        if not isinstance(self.k, int) or isinstance(self.k, bool) or self.k < 1:
            raise ConfigError(f"k of a query bank is {self.k!r}; it is an integer of at least 1")

    def log_sums(self, rows: Dense) -> NDArray[np.float64]:
        """The log of the sum over bank queries of exp(beta x inner product), for every row.

        The largest exponent is taken out of the sum, so that no product overflows. Inner products are those of the
        search, and a row's sum depends on the row and the bank alone.

        Args:
            rows: C vectors of the same width.

        Returns:
            (C,).

        Raises:
            IncompatibleError: the widths differ.
        """
        if rows.dim != self.vectors.dim:
            raise IncompatibleError(
                f"the query bank has vectors of width {self.vectors.dim}, the rows {rows.dim}; store the bank again"
            )
        from retrieval.kernels import frozen, inner_products

        asked, bank = frozen(np.asarray(rows.values, dtype=np.float32)), frozen(self.vectors.values)
        step = max(1, _PRODUCTS // len(bank))
        everyone = frozen(np.broadcast_to(np.arange(len(bank)), (min(step, len(rows)), len(bank))))
        sums = np.empty(len(rows))

        def share(part: slice) -> None:
            for start in range(part.start, part.stop, step):
                own = slice(start, min(start + step, part.stop))
                scores = np.empty((own.stop - own.start, len(bank)), dtype=np.float32)
                inner_products(asked[own], bank, everyone[: len(scores)], scores)
                exponents = self.beta * scores.astype(np.float64)
                largest = exponents.max(axis=1)
                sums[own] = largest + np.log(np.exp(exponents - largest[:, None]).sum(axis=1))

        parallel(share, len(rows), grain=_GRAIN)
        return sums


class EncodedSearcher(Searcher, Protocol):
    """A searcher that also takes queries that are encoded already, as those of a bank are."""

    def search_encoded(self, queries: Any, request: SearchRequest) -> Hits:
        """The best documents of each query, each by its best row."""
        ...


class HubCorrection:
    """What a bank says about the rows of one snapshot, found when it is first asked for and then kept.

    Which rows are hubs takes one plain search for every query of the bank; the log sum of a row, an inner product with
    every one of them. Neither depends on the query that is being answered.
    """

    def __init__(self, bank: QueryBank, n_rows: int) -> None:
        """Learn nothing yet about so many rows."""
        self.bank = bank
        self._lock = threading.Lock()
        self._hubs: NDArray[np.bool_] | None = None
        self._sums = np.full(n_rows, np.nan)

    def is_hub(self, rows: NDArray[np.int64], first: EncodedSearcher) -> NDArray[np.bool_]:
        """Whether each row (of any shape) is among the best of a bank query; -1 is not."""
        with self._lock:
            if self._hubs is None:
                hubs = np.zeros(len(self._sums) + 1, dtype=np.bool_)  # the last stands for -1
                queries, request = self.bank.vectors, SearchRequest(k=self.bank.k)
                for start in range(0, len(queries), _TOGETHER):
                    found = first.search_encoded(queries[start : start + _TOGETHER], request).rows
                    hubs[found[found >= 0]] = True
                self._hubs = hubs
        return self._hubs[rows]

    def log_sums(self, rows: NDArray[np.int64], store: Store[Dense]) -> NDArray[np.float64]:
        """``QueryBank.log_sums`` of rows (of any shape), each computed once; no -1."""
        missing = np.unique(rows[np.isnan(self._sums[rows])])
        if len(missing):
            self._sums[missing] = self.bank.log_sums(
                store.take(missing)
            )  # two threads may, and write the same
        return self._sums[rows]


@dataclass(frozen=True, eq=False)
class QueryBankNormalised:
    """A searcher with hubs held back: of the best candidates, those come first that the bank wanted less.

    A query whose best row is a hub, that is among the best of any bank query, has its candidates scored by the log of
    the inverted softmax; the scores of other queries stay as they are. So a score says something about the other hits
    of its query only: one query's may be cosines and the next one's logarithms. Fusion judges every list by itself,
    so it takes both.

    A filter decides which row is the best one, and does not change what a hub is.

    Attributes:
        first: finds the candidates.
        correction: of the same snapshot.
        store: the vectors of its rows.
        depth: candidates a query, or k where that is more; fewer where the request's depth is less.
    """

    first: EncodedSearcher
    correction: HubCorrection
    store: Store[Dense]
    depth: int = 100

    def search(self, queries: Sequence[str], request: SearchRequest) -> Hits:
        """The k best candidates of each query."""
        candidates = max(request.k, min(self.depth, request.depth))
        hits = self.first.search(queries, replace(request, k=candidates))
        changed = self.correction.is_hub(hits.rows[:, :1], self.first) & (hits.rows >= 0)
        if not changed.any():
            return hits.cut(request.k)
        scores = hits.scores.copy()
        scores[changed] = self._corrected(hits.scores[changed], hits.rows[changed])
        return ordered(hits.rows, scores, hits.snapshot).cut(request.k)

    def _corrected(self, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The log of the inverted softmax: beta x score - the log sum of its row."""
        sums = self.correction.log_sums(rows, self.store)
        exact = self.correction.bank.beta * scores.astype(np.float64) - sums
        return np.clip(exact, -_LARGEST, _LARGEST).astype(np.float32)

    def explain(
        self, query: str, rows: NDArray[np.integer], request: SearchRequest | None = None
    ) -> list[Explanation]:
        """The corrected score of each row as beta x score less the row's log sum, or that it was not corrected."""
        asked = np.asarray(rows, dtype=np.int64)
        if not len(asked):
            return []
        below = self.first.explain(query, asked, request)
        best = self.first.search([query], replace(request or SearchRequest(), k=1)).rows[:, 0]
        if not self.correction.is_hub(best, self.first)[0]:
            label = "not corrected: the best row is no hub of the query bank"
            return [Explanation(label, part.value, (part,)) for part in below]
        scores = self._corrected(np.array([part.value for part in below], dtype=np.float32), asked)
        sums = self.correction.log_sums(asked, self.store)
        return [
            self._explanation(float(score), float(total), part)
            for score, total, part in zip(scores, sums, below, strict=True)
        ]

    def _explanation(self, score: float, log_sum: float, below: Explanation) -> Explanation:
        bank = self.correction.bank
        return Explanation(
            "corrected for hubs",
            score,
            (
                Explanation("beta x score", bank.beta * below.value, (below,), {"beta": bank.beta}),
                Explanation("what the query bank expects", -log_sum, facts={"queries": len(bank.vectors)}),
            ),
        )
