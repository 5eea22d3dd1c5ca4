"""The peers of the dense benchmarks: how each builds, opens and searches, and the settings it is tried with.

Everyone gets float32 vectors of length 1 and inner products, two threads to build and one to search, a batch of all
queries in one call. Each peer is tried with all variants that should be fast at some recall: links, its own compressed
vectors, its own re-scoring.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Knobs = dict[str, Any]

EF_CONSTRUCTION = 200
BUILD_THREADS = 2
EFS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
LINKS = (16, 32)


@dataclass(frozen=True)
class Variant:
    """One way to index.

    Attributes:
        engine: its package, "tercet" for ours.
        name: what distinguishes it among those of its engine.
        folder: the name of its folder, which changes with the engine's version.
        build: writes an index of vectors (N, D) into a folder.
        open: the folder's index as a function of queries (Q, D), k and knobs that gives (Q, k) rows.
        ladder: knobs to search with.
        kind: of a Tercet index.
        parameters: of a Tercet index.
        warm: compiles what ``build`` would compile, in a scratch folder.
    """

    engine: str
    name: str
    folder: str
    build: Callable[[Vectors, Path], None]
    open: Callable[[Path], Callable[[Vectors, int, Knobs], Rows]]
    ladder: Sequence[Knobs]
    kind: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    warm: Callable[[Vectors, Path], None] = lambda vectors, folder: None

    @property
    def group(self) -> str:
        """Among which variants the fastest is looked for: an engine's, one kind's of ours."""
        bare = "bare " if self.name.startswith("bare") else ""
        return f"{self.engine} {bare}{self.kind}".strip()


def folder_name(engine: str, release: str, name: str) -> str:
    """Of a variant, for all file systems."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", f"{engine}-{release}-{name}").replace("--", "-").strip("-")


def _peer(
    engine: str,
    name: str,
    build: Callable[[Vectors, Path], None],
    open_: Callable[[Path], Callable[[Vectors, int, Knobs], Rows]],
    ladder: Sequence[Knobs] = tuple({"ef": ef} for ef in EFS),
) -> Variant:
    return Variant(engine, name, folder_name(engine, version(PACKAGES[engine]), name), build, open_, ladder)


PACKAGES = {"hnswlib": "hnswlib", "faiss": "faiss-cpu", "usearch": "usearch", "kannolo": "kannolo"}
"""Engine -> its distribution."""


def peers(n: int, links: Sequence[int] = LINKS) -> Iterator[Variant]:
    """All variants for n rows."""
    for m in links:
        yield hnswlib_variant(m)
        yield faiss_variant(f"HNSW{m}")
        yield faiss_variant(f"HNSW{m}_SQ8")
        for dtype in ("f32", "f16", "i8"):
            yield usearch_variant(m, dtype)
        yield kannolo_plain(m)
        yield kannolo_rerank(m, "rabitq", {})
        yield kannolo_rerank(m, "rabitq-ext", {"rabitq_total_bits": 4})
        yield kannolo_rerank(m, "pq", {"pq_subspaces": 96})
    lists = coarse_lists(n)
    for subspaces in (96, 192):
        yield faiss_variant(f"IVF{lists},PQ{subspaces}x4fs,RFlat", ivf_ladder(lists))


def coarse_lists(n: int) -> int:
    """The power of two next to 4 sqrt(n), with at least 39 rows each to train on, as FAISS wants."""
    return 2 ** min(round(np.log2(4 * n**0.5)), int(np.log2(max(2, n // 39))))


def ivf_ladder(lists: int) -> tuple[Knobs, ...]:
    """Lists visited, and candidates re-scored for each result."""
    probes = [p for p in (2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256) if p <= lists]
    return tuple({"nprobe": probe, "refined": factor} for factor in (4, 10, 25) for probe in probes)


def hnswlib_variant(m: int) -> Variant:
    """Its only kind."""

    def build(vectors: Vectors, folder: Path) -> None:
        import hnswlib

        index = hnswlib.Index("ip", vectors.shape[1])
        index.init_index(len(vectors), M=m, ef_construction=EF_CONSTRUCTION, random_seed=100)
        index.add_items(vectors, num_threads=BUILD_THREADS)
        index.save_index(str(folder / "index"))

    def open_(folder: Path) -> Callable[[Vectors, int, Knobs], Rows]:
        import hnswlib

        index = hnswlib.Index("ip", 384)
        index.load_index(str(folder / "index"))

        def search(queries: Vectors, k: int, knobs: Knobs) -> Rows:
            index.set_ef(max(knobs["ef"], k))
            return index.knn_query(queries, k, num_threads=1)[0].astype(np.int64)

        return search

    return _peer("hnswlib", f"M {m}", build, open_)


def faiss_variant(factory: str, ladder: tuple[Knobs, ...] | None = None) -> Variant:
    """Any factory string."""

    def build(vectors: Vectors, folder: Path) -> None:
        import faiss

        faiss.omp_set_num_threads(BUILD_THREADS)
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if "HNSW" in factory:
            index.hnsw.efConstruction = EF_CONSTRUCTION
        index.train(vectors)
        index.add(vectors)
        faiss.write_index(index, str(folder / "index"))

    def open_(folder: Path) -> Callable[[Vectors, int, Knobs], Rows]:
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.read_index(str(folder / "index"))

        def parameters(k: int, knobs: Knobs) -> Any:
            if "ef" in knobs:
                return faiss.SearchParametersHNSW(efSearch=max(knobs["ef"], k))
            return faiss.IndexRefineSearchParameters(
                k_factor=float(knobs["refined"]),
                base_index_params=faiss.SearchParametersIVF(nprobe=knobs["nprobe"]),
            )

        def search(queries: Vectors, k: int, knobs: Knobs) -> Rows:
            return index.search(queries, k, params=parameters(k, knobs))[1]

        return search

    return _peer("faiss", factory, build, open_, *([ladder] if ladder else []))


def usearch_variant(m: int, dtype: str) -> Variant:
    """One of its scalar types; its files are mapped, as it offers for searching."""

    def build(vectors: Vectors, folder: Path) -> None:
        from usearch.index import Index

        index = Index(
            ndim=vectors.shape[1], metric="ip", dtype=dtype, connectivity=m, expansion_add=EF_CONSTRUCTION
        )
        index.add(np.arange(len(vectors)), vectors, threads=BUILD_THREADS)
        index.save(str(folder / "index"))

    def open_(folder: Path) -> Callable[[Vectors, int, Knobs], Rows]:
        from usearch.index import Index

        index = Index.restore(str(folder / "index"), view=True)

        def search(queries: Vectors, k: int, knobs: Knobs) -> Rows:
            index.expansion_search = max(knobs["ef"], k)
            return np.atleast_2d(index.search(queries, k, threads=1).keys).astype(np.int64)

        return search

    return _peer("usearch", f"{dtype}, M {m}", build, open_)


_KANNOLO = {"metric": "dotproduct", "graph_type": "compressed"}


def kannolo_plain(m: int) -> Variant:
    """Full vectors, and the graph type it calls smaller and faster."""

    def build(vectors: Vectors, folder: Path) -> None:
        import kannolo

        index = kannolo.DensePlainHNSW.build_from_array(
            vectors.ravel(), vectors.shape[1], m=m, ef_construction=EF_CONSTRUCTION, **_KANNOLO
        )
        index.save(str(folder / "index"))

    def open_(folder: Path) -> Callable[[Vectors, int, Knobs], Rows]:
        import kannolo

        index = kannolo.DensePlainHNSW.load(str(folder / "index"), **_KANNOLO)

        def search(queries: Vectors, k: int, knobs: Knobs) -> Rows:
            found = index.batch_search(queries.ravel(), k, ef_search=max(knobs["ef"], k), num_threads=1)
            return np.asarray(found[1]).reshape(-1, k)

        return search

    return _peer("kannolo", f"plain, M {m}", build, open_)


def kannolo_rerank(m: int, encoder: str, options: Knobs) -> Variant:
    """A walk over compressed vectors, candidates re-scored in float16."""
    fixed = _KANNOLO | {"encoder": encoder}
    opened = fixed | {name: value for name, value in options.items() if name == "pq_subspaces"}

    def build(vectors: Vectors, folder: Path) -> None:
        import kannolo

        index = kannolo.DenseRerankHNSW.build_from_array(
            vectors.ravel(), vectors.shape[1], m=m, ef_construction=EF_CONSTRUCTION, **fixed, **options
        )
        index.save(str(folder / "index"))

    def open_(folder: Path) -> Callable[[Vectors, int, Knobs], Rows]:
        import kannolo

        index = kannolo.DenseRerankHNSW.load(str(folder / "index"), **opened)

        def search(queries: Vectors, k: int, knobs: Knobs) -> Rows:
            found = index.batch_search(
                queries.ravel(), k, k_candidates=knobs["reranked"], ef_search=knobs["ef"], num_threads=1
            )
            return np.asarray(found[1]).reshape(-1, k)

        return search

    ladder = tuple({"ef": ef, "reranked": count} for count in (20, 40, 80, 160) for ef in EFS if count <= ef)
    return _peer("kannolo", f"{encoder}, M {m}", build, open_, ladder)
