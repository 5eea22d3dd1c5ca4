"""Exact late-interaction search: MaxSim with every allowed row; nothing but the token vectors is read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.dense.scan import largest_norm
from indexing.index_facts import no_parameters, read_norm, write_facts
from retrieval.bitmap import Bitmap
from retrieval.compute import choose_search_device
from retrieval.maxsim import best_rows, best_tokens, score_rows
from retrieval.protocols import Explanation, SearchRequest
from retrieval.values import Dense, Hits, MultiVector

if TYPE_CHECKING:
    from retrieval.maxsim_gpu import DeviceDocuments

_FACTS = "maxsim.json"
_ROWS = 512  # rows read between two reports of progress


class _DeviceCopies:
    """Token vectors on the devices that have searched them; views of one index share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, DeviceDocuments] = {}

    def on(self, device: str, vectors: MultiVector) -> DeviceDocuments:
        """The vectors of the index in half precision, brought there by the first caller."""
        import torch

        from retrieval.maxsim_gpu import DeviceDocuments

        with self._lock:
            if device not in self._made:
                self._made[device] = DeviceDocuments.stored(vectors, device, torch.float16)
            return self._made[device]


@dataclass(frozen=True, eq=False)
class MaxSimIndex:
    """Compares every token of every allowed row with every token of the query.

    The score is MaxSim of the stored vectors as they are, by ``retrieval.maxsim``: the sum over the query's tokens of
    the largest inner product with a token of the row. A row without tokens scores 0, as does every row for a query
    without any. Hits and scores are the same on every device.

    Attributes:
        vectors: N rows, memory-mapped.
        norm: the largest norm of a token vector, which bounds the rounding error of an estimate.
        device: where rows are estimated; on any but ``cpu`` the vectors stay in its memory after the first search.
    """

    vectors: MultiVector
    norm: float
    device: str = "cpu"
    _copies: _DeviceCopies = field(default_factory=_DeviceCopies, repr=False)

    kind: ClassVar[str] = "maxsim"
    exact: ClassVar[bool] = True
    value: ClassVar[type] = MultiVector

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
        vectors: MultiVector,
        folder: Path,
        parameters: Mapping[str, Any],
        *,
        memory_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        """Write maxsim.json: the number of rows, the width and the largest norm of a token vector."""
        norm = largest_token_norm(vectors, progress)
        write_facts(folder / _FACTS, {"n": len(vectors), "dim": vectors.dim, "norm": norm})

    @classmethod
    def load(cls, folder: Path, vectors: MultiVector, parameters: Mapping[str, Any]) -> Self:
        """Open what ``build`` wrote, to be searched on the CPU or the GPU that TERCET_DEVICE names.

        Raises:
            CorruptError: maxsim.json is missing, damaged or about other vectors.
            ConfigError: there is no such GPU.
        """
        return cls(vectors, read_norm(folder / _FACTS, vectors), choose_search_device())

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: MultiVector, request: SearchRequest) -> Hits:
        """The k best allowed rows of each query, exactly.

        Raises:
            IncompatibleError: the queries have another width.
            ValueError: a query holds NaN or infinity, or the bitmap is for another number of rows.
            ConfigError: the vectors do not fit into the device's memory, or are too wide for it.
            MissingExtraError: the device is a GPU and Triton is not installed.
        """
        rows = allowed_rows(len(self), request.allowed)
        if self.device != "cpu":
            from retrieval import maxsim_gpu

            copy = self._copies.on(self.device, self.vectors)
            return maxsim_gpu.best_rows(self.vectors, self.norm, copy, queries, rows, request.k)
        return best_rows(self.vectors, self.norm, queries, rows[None, :], request.k)

    def explain(self, queries: MultiVector, rows: NDArray[np.integer]) -> list[Explanation]:
        """What each token of the first query contributes; see ``explain_maxsim``."""
        return explain_maxsim(self.vectors, queries, rows)


def largest_token_norm(vectors: MultiVector, progress: Callable[[int], None] = lambda rows: None) -> float:
    """The largest Euclidean norm of a token vector, 0 without any; reads the vectors once in chunks."""
    largest = 0.0
    for start in range(0, len(vectors), _ROWS):
        part = vectors[start : start + _ROWS]
        largest = max(largest, largest_norm(Dense(part.values)))
        progress(len(part))
    return largest


def allowed_rows(n: int, allowed: Bitmap | None) -> NDArray[np.int64]:
    """The rows that may be returned, ascending.

    Raises:
        ValueError: the bitmap is for another number of rows.
    """
    if allowed is None:
        return np.arange(n)
    if allowed.n != n:
        raise ValueError(f"the bitmap is for {allowed.n} rows, the index has {n}")
    return allowed.rows()


def explain_maxsim(
    vectors: MultiVector, queries: MultiVector, rows: NDArray[np.integer]
) -> list[Explanation]:
    """MaxSim of the first query with each row, token by token.

    A part for every query token has its best inner product, and the place of the document token as the fact
    "position"; a row without tokens has no parts.
    """
    query, chosen = queries[:1], np.asarray(rows, dtype=np.int64)
    explained = []
    for row, score in zip(chosen, score_rows(vectors, query, chosen[None, :])[0], strict=True):
        positions, products = best_tokens(vectors, query, int(row))
        parts = tuple(
            Explanation(f"token {number}", float(product), facts={"position": int(position)})
            for number, (position, product) in enumerate(zip(positions, products, strict=True))
        )
        explained.append(Explanation("MaxSim", float(score), parts))
    return explained
