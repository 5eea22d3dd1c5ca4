"""`tercet warm`: compile kernels and read files ahead of the first search."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from indexing.kinds import KINDS, kind_class
from indexing.vectors import Vectors, load_vectors, save_vectors
from retrieval.encoders import open_encoder
from retrieval.errors import MissingExtraError
from retrieval.fusion import weighted_sum
from retrieval.protocols import SearchRequest
from retrieval.values import Dense, Document, Sparse, Terms

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
    if made.value is Sparse:
        sample = _sparse_sample()
        _search_twice(made, sample, [sample[:1], sample])
        return
    encoder = open_encoder({"family": "terms" if made.value is Terms else "hashing"})
    encoded = encoder.encode_documents([Document(str(n), text) for n, text in enumerate(_TEXTS)])
    queries = [encoder.encode_queries(texts) for texts in (_TEXTS[:1], _TEXTS * 8)]
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


def _search_twice(made: Any, value: Vectors, queries: list[Any]) -> None:
    """One query and a batch, which take different kernels."""
    with tempfile.TemporaryDirectory() as scratch:
        stored, built = Path(scratch, "vectors"), Path(scratch, "index")
        built.mkdir()
        save_vectors(stored, value)
        vectors = load_vectors(stored)
        parameters = made.parameters({})
        made.build(vectors, built, parameters, memory_bytes=10**8, progress=lambda amount: None)
        index = made.load(built, vectors, parameters)
        for asked in queries:
            hits = index.search(asked, SearchRequest(k=2))
            weighted_sum([hits, hits])
