"""Data sets of the dense benchmarks: vectors, queries and the exact answer, kept under .bench/dense/."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import dense_generated, dense_texts
from benchmarks.dense_texts import BLOCK, CACHE, all_cores, save_array
from indexing.dense.scan import largest_norm, scan
from retrieval.values import Dense

Vectors = NDArray[np.float32]

K = 10
_SAME = 1e-6  # scores of float32 products closer than this count as equal


@dataclass(frozen=True)
class DenseData:
    """Documents and queries as vectors of length 1.

    Attributes:
        name: for people.
        folder: where the arrays lie and indexes go; its name changes with the content.
        n_real: how many rows, the first, are real.
    """

    name: str
    folder: Path
    n_real: int

    @functools.cached_property
    def documents(self) -> Vectors:
        """(N, D), memory-mapped."""
        return np.load(self.vectors_file, mmap_mode="r")

    @functools.cached_property
    def queries(self) -> Vectors:
        """(Q, D)."""
        return np.load(self.folder / "queries.npy")

    @property
    def vectors_file(self) -> Path:
        """The documents as a .npy file."""
        return self.folder / "documents.npy"

    @functools.cached_property
    def tenth_scores(self) -> Vectors:
        """(Q,) the score of each query's K-th best document."""
        path = self.folder / f"scores-{len(self.queries)}.npy"
        if not path.exists():
            documents = Dense(np.asarray(self.documents))
            with all_cores():
                hits = scan(documents, largest_norm(documents), Dense(self.queries), K)
            save_array(path, hits.scores[:, min(K, len(documents)) - 1])
        return np.load(path)

    def recall(self, rows: NDArray[np.int64], floors: Vectors | None = None) -> float:
        """Share of the exact top K among (Q, K) rows, by score: an equally good row counts, a repeated one once.

        Args:
            rows: found ones, -1 for none.
            floors: (Q,) what a row has to score; ``tenth_scores`` where None.
        """
        floors = self.tenth_scores if floors is None else floors
        good = 0
        for query, found, floor in zip(self.queries, rows, floors, strict=True):
            found = np.unique(found[found >= 0])
            good += min(K, int((self.documents[found] @ query >= floor - _SAME).sum()))
        return good / (len(rows) * min(K, len(self.documents)))


def real_set(name: str, n_queries: int) -> DenseData:
    """A collection, every document as a whole, with queries of its own."""
    label = name.partition("/")[2]
    vectors = dense_texts.document_vectors(dense_texts.documents(name), label)
    asked = dense_texts.query_vectors(dense_texts.drawn(dense_texts.queries(name), n_queries), label)
    return _stored(label, vectors, asked, len(vectors))


def window_set(limit: int, n_queries: int) -> DenseData:
    """Real windows of all collections, with queries of all of them."""
    vectors, asked = dense_texts.window_vectors(limit), _pooled(n_queries)
    return _stored(f"windows-{len(vectors)}", vectors, asked, len(vectors))


def generated_set(n: int, n_queries: int) -> DenseData:
    """n vectors, at most two fifths of them real, the rest drawn around these (``dense_generated``)."""
    real = dense_texts.window_vectors(-(-2 * n // (5 * BLOCK)) * BLOCK)[: 2 * n // 5]
    recipe = Path(dense_generated.__file__).read_bytes()
    label = f"generated-{n}"
    folder = CACHE / f"{label}-{_digest(recipe, real, _pooled(n_queries))}"
    if not (folder / "queries.npy").exists():
        with all_cores():
            vectors = dense_generated.resampled(real, n)
            asked = dense_generated.answered(_pooled(n_queries), vectors)
        save_array(folder / "documents.npy", vectors)
        save_array(folder / "queries.npy", asked)
    return DenseData(label, folder, len(real))


def _pooled(n: int) -> Vectors:
    return dense_texts.query_vectors(dense_texts.pooled_queries(n), "pooled")


def _stored(label: str, documents: Vectors, queries: Vectors, n_real: int) -> DenseData:
    folder = CACHE / f"{label}-{_digest(documents, queries)}"
    if not (folder / "queries.npy").exists():
        save_array(folder / "documents.npy", documents)
        save_array(folder / "queries.npy", queries)
    return DenseData(label, folder, n_real)


def _digest(*parts: bytes | Vectors) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:12]
