"""The index kind ``binary``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.binary.codes import LANES, blocks, encode, encode_queries, words
from indexing.binary.rotation import Rotation
from indexing.dense.candidate_search import search_candidates
from indexing.dense.explanation import explain_inner_products
from indexing.dense.scan import largest_norm, scan
from indexing.index_facts import read_norm, with_defaults, write_facts
from retrieval.bitmap import Bitmap
from retrieval.compute import parallel, threads
from retrieval.errors import ConfigError, CorruptError, IncompatibleError, unknown_name
from retrieval.protocols import Explanation, SearchRequest
from retrieval.values import Dense, Hits
from retrieval.values.storage import map_array, release_pages

DEFAULTS: dict[str, Any] = {"rescored": None, "rotation": "itq"}
ROTATIONS = ("itq", "none")
_FACTS = "binary.json"
_CHUNK = 128 * LANES  # rows encoded at a time
_GRAIN = 32_768  # rows worth a thread of their own: about 0.2 ms
_LARGEST = 1_000_000
_WIDER = 8  # times the candidates, for queries whose estimates are not clear enough
_SCAN_COST = 0.08
"""Rows an exact scan compares in the time that the first pass takes for one, measured at width 384."""


@dataclass(frozen=True, eq=False)
class BinaryIndex:
    """Compares a query with one bit a dimension of every allowed row, and scores the best like ``FlatIndex`` does.

    See ``indexing.binary.codes`` for the bits. The first pass sees allowed rows only, so a filter costs no candidates.
    Where it leaves only rows far from the query, whose scores lie closer together than the estimates are good, more
    candidates are taken, and at last all (``search_candidates``). The result does not depend on threads or batches.

    Attributes:
        vectors: N rows, memory-mapped.
        norm: the largest norm of a row.
        rotation: of the whole collection.
        codes: (blocks, words, LANES) uint64, memory-mapped.
        factors: (blocks * LANES,) float32, memory-mapped.
        rescored: candidates scored for good; None for a number that suits k.
    """

    vectors: Dense
    norm: float
    rotation: Rotation
    codes: NDArray[np.uint64]
    factors: NDArray[np.float32]
    rescored: int | None

    kind: ClassVar[str] = "binary"
    exact: ClassVar[bool] = False
    value: ClassVar[type] = Dense

    def __post_init__(self) -> None:
        _check_rescored(self.rescored)

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """``rescored`` candidates a query, and ``rotation``: "itq", or "none" for vectors whose dimensions count alike.

        Raises:
            ConfigError: an unknown parameter, or an impossible value.
        """
        full = with_defaults(cls.kind, given, DEFAULTS)
        _check_rescored(full["rescored"])
        if full["rotation"] not in ROTATIONS:
            raise unknown_name("rotation of index kind 'binary'", str(full["rotation"]), ROTATIONS)
        return full

    @classmethod
    def train(
        cls,
        vectors: Dense,
        parameters: Mapping[str, Any],
        folder: Path,
        *,
        memory_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        """Learn mean and rotation from a sample; see ``Rotation.learn``."""
        Rotation.learn(vectors, parameters["rotation"], memory_bytes=memory_bytes).save(folder)
        progress(1)

    @classmethod
    def memory_needed(cls, n: int, dim: int, parameters: Mapping[str, Any], *, half: bool = False) -> int:
        """Bytes a build holds: the rotation and a chunk, whatever the number of rows."""
        return 8 * dim * dim + _CHUNK * (3 * 8 + 1) * dim

    @classmethod
    def build(
        cls,
        vectors: Dense,
        folder: Path,
        parameters: Mapping[str, Any],
        *,
        memory_bytes: int,
        progress: Callable[[int], None],
        shared: Path,
    ) -> None:
        """Write codes.npy, factors.npy and binary.json, chunk by chunk.

        Raises:
            IncompatibleError: the vectors have another width than those that were trained on.
            CorruptError: what ``train`` wrote is damaged.
        """
        rotation, n = Rotation.load(shared), len(vectors)
        if rotation.dim != vectors.dim:
            raise IncompatibleError(
                f"the vectors have width {vectors.dim}, the rotation {rotation.dim}; build the collection anew"
            )
        norm = largest_norm(vectors)
        shape = (blocks(n), words(vectors.dim), LANES)
        if n:
            codes = np.lib.format.open_memmap(folder / "codes.npy", "w+", np.uint64, shape)
        else:
            np.save(folder / "codes.npy", np.empty(shape, np.uint64))
        factors = np.zeros(blocks(n) * LANES, dtype=np.float32)
        for start in range(0, n, _CHUNK):
            chunk = np.asarray(vectors.values[start : start + _CHUNK], dtype=np.float32)
            made, factor = encode(chunk, rotation)
            codes[start // LANES : start // LANES + len(made)] = made
            factors[start : start + len(factor)] = factor
            release_pages(vectors.values)
            progress(len(chunk))
        if n:
            codes.flush()
        np.save(folder / "factors.npy", factors)
        write_facts(folder / _FACTS, {"n": n, "dim": vectors.dim, "norm": norm})

    @classmethod
    def load(cls, folder: Path, vectors: Dense, parameters: Mapping[str, Any], *, shared: Path) -> Self:
        """Map what ``build`` and ``train`` wrote.

        Raises:
            CorruptError: a file is missing, damaged or cut short, or about other vectors.
        """
        norm, rotation = read_norm(folder / _FACTS, vectors), Rotation.load(shared)
        if rotation.dim != vectors.dim:
            raise CorruptError(shared, f"is about vectors of width {rotation.dim}, not {vectors.dim}")
        codes, factors = map_array(folder / "codes.npy"), map_array(folder / "factors.npy")
        n = len(vectors)
        for name, array, shape in (
            ("codes", codes, (blocks(n), words(vectors.dim), LANES)),
            ("factors", factors, (blocks(n) * LANES,)),
        ):
            if array.shape != shape:
                raise CorruptError(folder / f"{name}.npy", f"has shape {array.shape}, expected {shape}")
        return cls(vectors, norm, rotation, codes, factors, parameters["rescored"])

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Dense, request: SearchRequest) -> Hits:
        """The k best rows among the candidates, and never fewer than min(k, allowed rows).

        Raises:
            IncompatibleError: the queries have another width.
            ValueError: a query holds NaN or infinity, or the bitmap is for another number of rows.
        """
        count = self.candidates(request.k)

        def nearest(asked: NDArray[np.float32], allowed: Bitmap | None) -> NDArray[np.int64]:
            return self._nearest(asked, allowed, min(count, len(self)))

        def wider(asked: NDArray[np.float32], allowed: Bitmap | None) -> NDArray[np.int64]:
            return self._nearest(asked, allowed, min(_WIDER * count, len(self)))

        return search_candidates(self.vectors, self.norm, queries, request, nearest, wider)

    def exact_search(self, queries: Dense, request: SearchRequest) -> Hits:
        """The same question answered by comparing every allowed row."""
        return scan(self.vectors, self.norm, queries, request.k, request.allowed)

    def candidates(self, k: int) -> int:
        """How many rows a search scores for good for k results.

        Unless ``rescored`` says so it is k and 30 of its square roots, 100 at least.
        """
        if self.rescored is None:
            return max(100, k + math.ceil(30 * math.sqrt(k)))
        return max(self.rescored, k)

    def with_candidates(self, count: int) -> Self:
        """Itself: what a filter denies is no candidate, so none need make up for it."""
        return self

    def scan_equivalent(self, candidates: int) -> float:
        """How many rows an exact scan compares in the time of a search."""
        return _SCAN_COST * len(self) + candidates

    def explain(self, queries: Dense, rows: NDArray[np.integer]) -> list[Explanation]:
        """The inner product of the first query with each row, with norms and cosine."""
        return explain_inner_products(self.vectors, queries, rows)

    def _nearest(self, asked: NDArray[np.float32], allowed: Bitmap | None, count: int) -> NDArray[np.int64]:
        """(Q, count) the rows with the best estimates, -1 where fewer are allowed."""
        planes = encode_queries(asked, self.rotation)
        if len(asked) >= threads():
            return np.concatenate(
                parallel(
                    lambda part: self._best(planes[part], allowed, count, slice(0, len(self))), len(asked)
                )
            )
        n_blocks = blocks(len(self))

        def share(part: slice) -> NDArray[np.uint64]:
            rows = slice(part.start * LANES, min(part.stop * LANES, len(self)))
            return self._best_keys(planes, allowed, count, rows)

        shares = parallel(share, n_blocks, grain=_GRAIN // LANES)
        return _rows_of(np.concatenate(shares, axis=1), count)

    def _best(
        self, planes: NDArray[np.uint64], allowed: Bitmap | None, count: int, rows: slice
    ) -> NDArray[np.int64]:
        return _rows_of(self._best_keys(planes, allowed, count, rows), count)

    def _best_keys(
        self, planes: NDArray[np.uint64], allowed: Bitmap | None, count: int, rows: slice
    ) -> NDArray[np.uint64]:
        """(Q, count) keys of the best of a range of rows, 0 where there are fewer."""
        from indexing.binary.kernels import nearest
        from retrieval.kernels import frozen

        codes, factors = frozen(self.codes), frozen(self.factors)
        bits = frozen(np.empty(0, dtype=np.uint8) if allowed is None else allowed.bits)
        keys, room = np.zeros((len(planes), count), dtype=np.uint64), np.empty(4 * count, dtype=np.uint64)
        for query in range(len(planes)):
            found = nearest(
                codes, factors, frozen(planes[query]), bits, self.vectors.dim, rows.start, rows.stop, room
            )
            keys[query, :found] = room[:found]
        return keys


def _rows_of(keys: NDArray[np.uint64], count: int) -> NDArray[np.int64]:
    """The rows of the ``count`` largest keys of each query, largest first."""
    keys = np.sort(keys, axis=1)[:, ::-1][:, :count]
    return np.where(keys > 0, np.int64(0xFFFFFFFF) - (keys & np.uint64(0xFFFFFFFF)).astype(np.int64), -1)


def _check_rescored(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
        raise ConfigError(
            f"binary parameter rescored is {value!r}; it must be an integer from 1 to {_LARGEST}"
        )
