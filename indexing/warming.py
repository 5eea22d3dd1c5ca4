"""`tercet warm`: compile kernels and read files ahead of the first search."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from indexing.commit import IndexSpec
from indexing.fitting import fitted, shared_folder
from indexing.kinds import KINDS, kind_class
from indexing.progress import Silent
from indexing.vectors import Vectors, load_vectors, save_vectors
from retrieval.encoders import open_encoder, query_value
from retrieval.errors import MissingExtraError
from retrieval.fusion import weighted_sum
from retrieval.protocols import SearchRequest
from retrieval.values import Dense, Document, MultiSparse, MultiVector, QueryNetwork, Sparse, Terms

_MEMORY = 10**8
_TEXTS = ("one document warms the kernels", "another document warms them too", "and a third")


def warm(collection: Path | None = None) -> dict[str, float]:
    """Search every index kind once over a few rows, which compiles its kernels into the cache on disk.

    Args:
        collection: one to open and search as well.

    Returns:
        Seconds spent, by what was warmed.
    """
    seconds = {}
    for kind in KINDS:
        started = perf_counter()
        with contextlib.suppress(MissingExtraError):  # nothing to warm of a kind that cannot be used
            _warm_kind(kind)
            seconds[kind] = perf_counter() - started
    if collection is not None:
        from indexing.collection import Collection
        from indexing.searching import index_names

        started = perf_counter()
        snapshot = Collection.open(collection).snapshot()
        for name in index_names(snapshot.representations):
            snapshot.searcher(name).search([_TEXTS[0]], SearchRequest())
        seconds[str(collection)] = perf_counter() - started
    return seconds


def _warm_kind(kind: str) -> None:
    made = kind_class(kind)
    if made.value in _SAMPLES:
        sample = _SAMPLES[made.value]()
        _search_twice(made, sample, [sample[:1], sample])
        return
    encoder = open_encoder({"family": "terms" if made.value is Terms else "hashing"})
    encoded = encoder.encode_documents([Document(str(n), text) for n, text in enumerate(_TEXTS)])
    queries: list[Any] = [encoder.encode_queries(texts) for texts in (_TEXTS[:1], _TEXTS * 8)]
    if query_value(made) is QueryNetwork:
        queries = [_networks(part) for part in queries]
    halves = [Dense(encoded.values.astype("float16"))] if isinstance(encoded, Dense) else []
    for value in (encoded, *halves):  # kernels are compiled for each type of number
        _search_twice(made, value, queries)


def _sparse_sample() -> Sparse:
    """Rows enough that they are put in order before they are indexed, which has kernels of its own."""
    rng = np.random.default_rng(0)
    rows = [np.sort(rng.choice(64, 8, replace=False)) for _ in range(600)]
    values = rng.random(8 * len(rows), dtype=np.float32) + np.float32(0.1)
    indptr = np.arange(0, 8 * len(rows) + 1, 8, dtype=np.int64)
    return Sparse(indptr, np.concatenate(rows).astype(np.int32), values, 64)


def _token_sample() -> MultiVector:
    """Rows of four unit vectors each, in the precision that encoders give them."""
    values = np.random.default_rng(0).standard_normal((1200, 128))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return MultiVector(np.arange(0, 1201, 4, dtype=np.int64), values.astype(np.float16))


def _sparse_token_sample() -> MultiSparse:
    """Rows of four sparse vectors each."""
    return MultiSparse(np.arange(0, 601, 4, dtype=np.int64), _sparse_sample())


def _networks(queries: Dense) -> QueryNetwork:
    """Networks with one hidden layer, small but of the usual kind."""
    vectors = np.repeat(queries.values[:, None, :], 4, axis=1)
    ones = np.ones((len(queries), 1, 4), dtype=vectors.dtype)
    return QueryNetwork((vectors, ones), (ones[:, 0],))


_SAMPLES: dict[type, Callable[[], Any]] = {
    Sparse: _sparse_sample,
    MultiVector: _token_sample,
    MultiSparse: _sparse_token_sample,
}
"""What makes vectors to warm with, of types that no encoder without a model makes."""


def _search_twice(made: Any, value: Vectors, queries: list[Any]) -> None:
    """One query and a batch, which take different kernels."""
    with tempfile.TemporaryDirectory() as scratch:
        stored, built = Path(scratch, "vectors"), Path(scratch, "index")
        built.mkdir()
        save_vectors(stored, value)
        vectors = load_vectors(stored)
        (spec,) = fitted(
            Path(scratch),
            "warm",
            [IndexSpec(made.kind, made.parameters({}))],
            vectors,
            memory_bytes=_MEMORY,
            progress=Silent(),
        )
        shared = shared_folder(Path(scratch), "warm", spec)
        made.build(
            vectors, built, spec.parameters, memory_bytes=_MEMORY, progress=lambda amount: None, **shared
        )
        index = made.load(built, vectors, spec.parameters, **shared)
        for asked in queries:
            hits = index.search(asked, SearchRequest(k=2))
            weighted_sum([hits, hits])
