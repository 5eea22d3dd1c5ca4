"""`tercet warm`: compile kernels and read files ahead of the first search."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

from indexing.kinds import KINDS, kind_class
from indexing.vectors import load_vectors, save_vectors
from retrieval.encoders import open_encoder
from retrieval.protocols import SearchRequest
from retrieval.values import Document, Terms

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
    encoder = open_encoder({"family": "terms" if made.value is Terms else "hashing"})
    with tempfile.TemporaryDirectory() as scratch:
        stored, built = Path(scratch, "vectors"), Path(scratch, "index")
        built.mkdir()
        save_vectors(
            stored, encoder.encode_documents([Document(str(n), text) for n, text in enumerate(_TEXTS)])
        )
        vectors = load_vectors(stored)
        parameters = made.parameters({})
        made.build(vectors, built, parameters, memory_bytes=10**8, progress=lambda amount: None)
        made.load(built, vectors, parameters).search(encoder.encode_queries([_TEXTS[0]]), SearchRequest(k=2))
