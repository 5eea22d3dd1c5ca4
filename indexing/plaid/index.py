"""The index kind ``plaid``: late interaction over compressed token vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.index_facts import read_facts, with_defaults, write_facts
from indexing.maxsim import explain_maxsim
from indexing.plaid.building import build_files
from indexing.plaid.candidates import Allowed, find_candidates
from indexing.plaid.disk_documents import DiskDocuments
from indexing.plaid.layout import PlaidFiles
from indexing.residual.codec import BITS, ResidualCodec
from indexing.residual.documents import CompressedDocuments
from indexing.residual.training import train_codec
from indexing.token_disk.row_reader import RowReader
from retrieval.compute import parallel, threads
from retrieval.errors import ConfigError, CorruptError, IncompatibleError
from retrieval.maxsim import checked
from retrieval.protocols import Explanation, SearchRequest
from retrieval.topk import top_k
from retrieval.values import Hits, MultiVector

DEFAULTS: dict[str, Any] = {"bits": 4, "centroids": None, "nprobe": 16, "ndocs": 96, "resident_bytes": None}
_FACTS = "plaid.json"
_LARGEST = 1e30  # component of a query


@dataclass(frozen=True, eq=False)
class PlaidIndex:
    """Token vectors as centroids and residuals; documents found by centroid, then scored from both.

    After PLAID (Santhanam, Khattab, Potts & Zaharia, CIKM 2022). The centroids nearest to each query token are probed;
    documents in their lists are ranked by the similarities of those centroids, four times as many as are wanted by
    MaxSim over all their tokens' centroids, and the best of these are decompressed and scored for good. What differs:
    the first ranking is made of the lists alone, with WARP's imputation for tokens that are in none (Scheerer, Zaharia,
    Potts, Alonso & Khattab, SIGIR 2025), and no centroid is pruned by a threshold.

    The score of a row is MaxSim over the decompressed vectors, which have length 1: the sum over the query's tokens of
    the largest inner product with a token of the row. It depends on query and row alone. A row without tokens scores
    0, as does every row for a query without any.

    With ``resident_bytes`` the packed residuals, by far the largest part, stay on disk (ESPN; see ``RowReader``): once
    a third of the lists has been read, the rows that lead are read ahead while the search for candidates goes on. The
    hits are the same. ``disk.statistics()`` tells how many rows were foreseen, what was read and how long searches
    waited for it.

    Attributes:
        vectors: the rows; only where their tokens begin is read.
        codec: centroids and buckets of the whole collection.
        nprobe: lists that are read for each token of a query.
        ndocs: documents that are decompressed, at least; more for a large k (see ``candidates``). With as many as
            there are rows, every row is scored and the hits are exactly the best.
        disk: reads the packed residuals under a budget; None where they are memory-mapped.
    """

    kind: ClassVar[str] = "plaid"
    exact: ClassVar[bool] = False
    value: ClassVar[type] = MultiVector

    vectors: MultiVector
    codec: ResidualCodec
    nprobe: int = DEFAULTS["nprobe"]
    ndocs: int = DEFAULTS["ndocs"]
    disk: RowReader | None = field(default=None, repr=False)
    _files: PlaidFiles = field(kw_only=True, repr=False)
    _empty: NDArray[np.int64] = field(kw_only=True, repr=False)

    # --- building and opening

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameters and fill in defaults.

        ``bits`` (1, 2, 4 or 8 a dimension) and ``centroids`` (None: the power of two below 16 square roots of the
        tokens) are for building, ``nprobe``, ``ndocs`` and ``resident_bytes`` for searching: the packed residuals that
        each segment keeps in memory, the rest being read from disk (None: all are memory-mapped).

        Raises:
            ConfigError: an unknown name or an impossible value.
        """
        values = with_defaults(cls.kind, given, DEFAULTS)
        if values["bits"] not in BITS or isinstance(values["bits"], bool):
            raise ConfigError(f"bits of plaid is {values['bits']!r}; it must be 1, 2, 4 or 8")
        for name in ("centroids", "nprobe", "ndocs", "resident_bytes"):
            value = values[name]
            if value is None and DEFAULTS[name] is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} of plaid is {value!r}; it must be a whole number of at least 1")
        return values

    @classmethod
    def train(
        cls,
        vectors: MultiVector,
        parameters: Mapping[str, Any],
        folder: Path,
        *,
        memory_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        """Learn centroids and buckets and write them into a folder; see ``train_codec``.

        Raises:
            FormatError: a token vector is not of length 1.
        """
        codec = train_codec(
            vectors,
            bits=parameters["bits"],
            centroids=parameters["centroids"],
            memory_bytes=memory_bytes,
            progress=progress,
        )
        codec.save(folder)

    @classmethod
    def build(
        cls,
        vectors: MultiVector,
        folder: Path,
        parameters: Mapping[str, Any],
        *,
        memory_bytes: int,
        progress: Callable[[int], None],
        shared: Path,
    ) -> None:
        """Compress the vectors of a segment and list its documents by centroid.

        Args:
            vectors: the rows, memory-mapped.
            folder: where to.
            parameters: what ``parameters`` returned.
            memory_bytes: how much may be in work at a time.
            progress: called with numbers of rows, N in all.
            shared: what ``train`` wrote.

        Raises:
            FormatError: a token vector is not of length 1.
            IncompatibleError: the vectors have another width than those that were trained on.
            CorruptError: what ``train`` wrote is damaged.
        """
        codec = ResidualCodec.load(shared)
        if vectors.dim != codec.dim:
            raise IncompatibleError(
                f"the token vectors have width {vectors.dim}, the codec {codec.dim}; build the collection anew"
            )
        build_files(vectors, codec, folder, memory_bytes=memory_bytes, progress=progress)
        write_facts(folder / _FACTS, _facts(vectors, codec))

    @classmethod
    def load(cls, folder: Path, vectors: MultiVector, parameters: Mapping[str, Any], *, shared: Path) -> Self:
        """Map what ``build`` and ``train`` wrote.

        Raises:
            CorruptError: a file is missing, damaged or cut short, or belongs to other rows or another codec.
        """
        codec = ResidualCodec.load(shared)
        read_facts(folder / _FACTS, _facts(vectors, codec))
        if vectors.dim != codec.dim:
            raise CorruptError(shared, f"is about vectors of width {codec.dim}, not {vectors.dim}")
        files = PlaidFiles.map(folder, len(vectors.values), codec)
        empty = np.flatnonzero(np.diff(vectors.indptr) == 0)
        budget, disk = parameters["resident_bytes"], None
        if budget is not None:
            disk = RowReader(folder / "buckets.npy", np.asarray(vectors.indptr), budget)
        return cls(
            vectors, codec, parameters["nprobe"], parameters["ndocs"], disk, _files=files, _empty=empty
        )

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def documents(self) -> CompressedDocuments | DiskDocuments:
        """The rows as they are stored."""
        indptr = np.asarray(self.vectors.indptr)
        if self.disk is not None:
            return DiskDocuments(self.codec, indptr, self._files.codes, self.disk)
        return CompressedDocuments(self.codec, indptr, self._files.codes, self._files.buckets)

    # --- search

    def search(self, queries: MultiVector, request: SearchRequest) -> Hits:
        """The best rows that were found for each query, min(k, allowed rows) of them, ties by ascending row.

        Raises:
            IncompatibleError: the queries have another width.
            ValueError: a query holds NaN, infinity or a number beyond 1e30, or the bitmap is for another number of
                rows.
            CorruptError: residuals on disk cannot be read.
        """
        return self._search(queries, request, self.candidates(request.k))

    def exact_search(self, queries: MultiVector, request: SearchRequest) -> Hits:
        """The same by scoring every allowed row."""
        return self._search(queries, request, max(1, len(self)))

    def candidates(self, k: int) -> int:
        """How many documents a search for k results decompresses, beside those without tokens.

        k and 16 of its square roots, as PLAID's 64 for 10 and 256 for 100; from 1,000 on, few more than are returned.
        """
        return max(self.ndocs, k + math.ceil(16 * math.sqrt(k)))

    def with_candidates(self, count: int) -> Self:
        """Itself: candidates are counted after the filter, which hides none of them."""
        return self

    def scan_equivalent(self, candidates: int) -> float:
        """How many rows are decompressed in the time of a search."""
        return float(self.ndocs)

    def _search(self, queries: MultiVector, request: SearchRequest, count: int) -> Hits:
        vectors = _checked(queries, self.codec.dim)
        documents, hits = self.documents, Hits.none(len(queries), request.k)
        allowed = Allowed.of(documents.indptr, self._empty, request.allowed)

        def share(part: slice) -> None:
            for query in range(part.start, part.stop):
                tokens = vectors[queries.indptr[query] : queries.indptr[query + 1]]
                best = self._search_one(documents, tokens, allowed, request.k, count)
                hits.rows[query], hits.scores[query] = best.rows[0], best.scores[0]

        if len(queries) < threads():  # then the threads share each query
            share(slice(0, len(queries)))
        else:
            parallel(share, len(queries))
        return hits

    def _search_one(
        self,
        documents: CompressedDocuments | DiskDocuments,
        tokens: NDArray[np.float32],
        allowed: Allowed,
        k: int,
        count: int,
    ) -> Hits:
        from retrieval.maxsim import pack

        if not len(tokens):
            rows = allowed.all_rows()[:k]
            return top_k(np.zeros((1, len(rows)), dtype=np.float32), k, rows[None, :])
        lanes = pack(tokens)
        rows = find_candidates(
            self.codec,
            self._files,
            lanes,
            len(tokens),
            allowed,
            nprobe=self.nprobe,
            count=count,
            foresee=None if self.disk is None else self.disk.prefetch,
        )
        rows = np.concatenate([rows, allowed.empty[:k]])
        return top_k(documents.maxsim(lanes, len(tokens), rows)[None, :], k, rows[None, :])

    # --- explanation

    def explain(self, queries: MultiVector, rows: NDArray[np.integer]) -> list[Explanation]:
        """What each token of the first query contributes; see ``indexing.maxsim.explain_maxsim``."""
        chosen = np.asarray(rows, dtype=np.int64)
        return explain_maxsim(self.documents.decode(chosen), queries, np.arange(len(chosen)))


def _facts(vectors: MultiVector, codec: ResidualCodec) -> dict[str, int]:
    return {"n": len(vectors), "tokens": len(vectors.values), "dim": codec.dim, "bits": codec.bits}


def _checked(queries: MultiVector, dim: int) -> NDArray[np.float32]:
    """The token vectors of all queries.

    Raises:
        IncompatibleError: their width is not the index's.
        ValueError: a query holds NaN, infinity or a number so large that scores could overflow.
    """
    values = np.ascontiguousarray(checked(queries, dim).values)
    small = (np.abs(values) <= _LARGEST).all(axis=1)
    if not small.all():
        query = int(np.searchsorted(queries.indptr, int(small.argmin()), side="right")) - 1
        raise ValueError(f"query {query} holds a number beyond {_LARGEST:g}")
    return values
