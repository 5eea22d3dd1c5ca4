"""Exhaustive search of product-quantised encodings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.fde.codebooks import Codebooks
from indexing.fde.files import map_shaped
from indexing.growing import GrowingArray
from retrieval.bitmap import Bitmap
from retrieval.compute import parallel, threads
from retrieval.protocols import SearchRequest
from retrieval.topk import top_k
from retrieval.values import Dense, Hits

_BLOCK = 256  # documents whose codes lie side by side, see ``indexing.fde.table_lookup``
_GRAIN = 8  # blocks worth a thread: about 0.1 ms
_CODES = "codes.npy"


@dataclass(frozen=True, eq=False)
class CodeScan:
    """Compares a query with every allowed row of product-quantised vectors.

    Codebooks are trained on the rows of one segment: its candidates compete with each other alone, and what is handed
    out are scores of the vectors themselves, so segments need no codebooks in common, and merged segments get better
    ones.

    Attributes:
        codebooks: of these rows.
        codes: (B, M, 256) uint8, memory-mapped: in every block of 256 rows each group's codes side by side. The last
            block is filled up with zeros.
        n: rows.
    """

    codebooks: Codebooks
    codes: NDArray[np.uint8]
    n: int

    kind: ClassVar[str] = "code scan"
    exact: ClassVar[bool] = True

    @classmethod
    def build(cls, parts: Iterable[NDArray[np.float32]], sample: NDArray[np.float32], folder: Path) -> None:
        """Write codebooks and codes.

        Args:
            parts: the encodings, (n, dim) each.
            sample: (S, dim) of them to train on; all where there are fewer than 256.
            folder: where to.
        """
        codebooks = Codebooks.train(sample)
        codebooks.save(folder)
        with GrowingArray(folder / _CODES, np.uint8, (codebooks.groups, _BLOCK)) as target:
            for blocks in _blocks(map(codebooks.coder(), parts), codebooks.groups):
                target.append(blocks)

    @classmethod
    def load(cls, folder: Path, shape: tuple[int, int]) -> Self:
        """Map what ``build`` wrote.

        Raises:
            CorruptError: a file is missing, cut short or of another shape.
        """
        codebooks = Codebooks.load(folder, shape)
        blocks = -(-shape[0] // _BLOCK)
        codes = map_shaped(folder / _CODES, (blocks, codebooks.groups, _BLOCK), np.uint8)
        return cls(codebooks, codes, shape[0])

    def __len__(self) -> int:
        return self.n

    def search(self, queries: Dense, request: SearchRequest) -> Hits:
        """The k best allowed rows of each query, by products that are off by rounding and quantisation."""
        hits = Hits.none(len(queries), request.k)
        blocks, rows = _allowed(self.n, request.allowed)

        def share(part: slice) -> None:
            for query in range(part.start, part.stop):
                scores = self._products(queries.values[query], blocks).reshape(1, -1)
                best = top_k(scores, request.k, rows)
                hits.rows[query], hits.scores[query] = best.rows[0], best.scores[0]

        if len(queries) < threads():  # then the threads share each query
            share(slice(0, len(queries)))
        else:
            parallel(share, len(queries))
        return hits

    def _products(self, query: NDArray[np.float32], blocks: NDArray[np.int64]) -> NDArray[np.float32]:
        """(K, 256) of the rows of some blocks."""
        from indexing.fde.code_kernels import scan
        from retrieval.kernels import frozen

        tables, codes = self.codebooks.tables(query), frozen(self.codes).reshape(-1)
        groups, entries = frozen(tables.groups), frozen(tables.entries)
        blocks, out = frozen(blocks), np.empty((len(blocks), _BLOCK), dtype=np.float32)

        def share(part: slice) -> None:
            width = self.codebooks.groups
            scan(codes, width, blocks[part], groups, entries, tables.base, tables.step, out[part])

        parallel(share, len(blocks), grain=_GRAIN)
        return out


def _allowed(n: int, allowed: Bitmap | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(K,) blocks with allowed rows, and (1, K * 256) the rows in them, -1 for those that are not."""
    count = -(-n // _BLOCK)
    rows = np.arange(count * _BLOCK)
    rows[n:] = -1
    if allowed is None:
        return np.arange(count), rows[None, :]
    rows[:n][~allowed.mask()] = -1
    in_blocks = rows.reshape(count, _BLOCK)
    blocks = np.flatnonzero((in_blocks >= 0).any(axis=1))
    return blocks, in_blocks[blocks].reshape(1, -1)


def _blocks(parts: Iterable[NDArray[np.uint8]], groups: int) -> Iterator[NDArray[np.uint8]]:
    """(n, M) codes as (b, M, 256), the last block filled up with zeros."""
    left = np.zeros((0, groups), dtype=np.uint8)
    for part in parts:
        left = np.concatenate([left, part])
        whole = len(left) // _BLOCK * _BLOCK
        yield _in_blocks(left[:whole])
        left = left[whole:]
    if len(left):
        yield _in_blocks(np.pad(left, ((0, _BLOCK - len(left)), (0, 0))))


def _in_blocks(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return codes.reshape(-1, _BLOCK, codes.shape[1]).transpose(0, 2, 1)
