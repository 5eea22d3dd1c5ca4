"""Tercet's side of the dense benchmarks: indexes of a collection, searched through a snapshot as a service does.

The collection holds a line of text for each row and the vectors, brought in as stored vectors; every variant is this
collection, its files linked, with one index more. A search takes encoded queries and goes the way of any other:
planner, segments, exact scores from the stored vectors.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dense_data import DenseData
from benchmarks.dense_peers import EFS, LINKS, Knobs, Rows, Variant, Vectors, coarse_lists, folder_name
from indexing.adding import add_representation
from indexing.assembly import index_spec
from indexing.builder import build_collection
from indexing.chunking import Chunking
from indexing.collection import Collection, CollectionSnapshot
from indexing.corpora import open_corpus, read_vectors
from indexing.kinds import kind_class
from indexing.options import BuildOptions, RepresentationOptions, representation_options
from indexing.searching import RepresentationSearcher
from retrieval.errors import ConfigError
from retrieval.protocols import SearchRequest
from retrieval.values import Dense

MEMORY = 8 * 10**9
RESCORED = (20, 50, 100, 200, 500, 1000, 2000)


class StoredQueries:
    """Stands for the encoder where queries are vectors already."""

    value = Dense


def make_collection(data: DenseData) -> None:
    """The collection that variants are made of, once."""
    target = data.folder / "collection"
    if (target / "collection.json").exists():
        return
    shutil.rmtree(target, ignore_errors=True)
    lines = data.folder / "corpus.jsonl"
    with lines.open("w", encoding="utf-8") as stream:
        for row in range(len(data.documents)):
            stream.write(json.dumps({"_id": f"row-{row}", "text": f"Row {row}."}) + "\n")
    made = BuildOptions((representation_options("bm25"),), Chunking.none())
    build_collection(open_corpus(lines), target, made)
    dense = representation_options("dense:flat")
    add_representation(target, dense, vectors=read_vectors(data.vectors_file), memory_bytes=MEMORY)
    lines.unlink()


def tercet_variants(n: int, links: Sequence[int] = LINKS) -> Iterator[Variant]:
    """Every kind over dense vectors, at the parameters worth trying for n rows."""
    lists = coarse_lists(n)
    efs = [{"ef": ef} for ef in EFS]
    probes = [
        {"nprobe": probe, "rescored": count}
        for count in RESCORED[:4]
        for probe in (4, 8, 16, 32, 64, 128, 256)
        if probe <= lists
    ]
    wanted: list[tuple[str, str, Knobs, Sequence[Knobs]]] = [
        *((f"hnsw, M {m}", "hnsw", {"backend": "tercet", "m": m}, efs) for m in links),
        ("hnsw faiss, M 16", "hnsw", {"backend": "faiss", "m": 16}, efs),
        ("hnsw hnswlib, M 16", "hnsw", {"backend": "hnswlib", "m": 16}, efs),
        *(
            (f"ivf {factory}", "ivf", {"factory": factory}, probes)
            for factory in (f"IVF{lists},PQ96x4fs", f"IVF{lists},PQ192x4fs")
        ),
        ("binary", "binary", {}, [{"rescored": count} for count in RESCORED]),
        ("flat", "flat", {}, [{}]),
    ]
    for name, kind, parameters, ladder in wanted:
        yield tercet_variant(name, kind, parameters, ladder)


def possible(variants: Iterable[Variant]) -> Iterator[Variant]:
    """Those whose kind and parameters this Tercet has; the others are named."""
    for variant in variants:
        try:
            kind_class(variant.kind).parameters({**variant.parameters, **variant.ladder[0]})
        except ConfigError as error:
            print(f"tercet {variant.name} is left out: {error}", file=sys.stderr)
        else:
            yield variant


def tercet_variant(name: str, kind: str, parameters: Knobs, ladder: Sequence[Knobs]) -> Variant:
    """An index kind with its parameters."""
    return Variant(
        "tercet",
        name,
        folder_name("tercet", "", name),
        partial(_build, kind=kind, parameters=parameters),
        partial(_open, kind=kind),
        tuple(ladder),
        kind,
        parameters,
        partial(_warm, kind=kind, parameters=parameters),
    )


def bare(variant: Variant) -> Variant:
    """The same index without the collection around it."""
    return replace(variant, name=f"bare {variant.name}", open=partial(_open_bare, kind=variant.kind))


def snapshot_of(folder: Path) -> CollectionSnapshot:
    """The collection of a variant, opened."""
    return Collection.open(folder / "collection").snapshot()


def searcher(snapshot: CollectionSnapshot, kind: str, knobs: Knobs) -> RepresentationSearcher:
    """What ``snapshot.searcher`` gives, for queries that are encoded already."""
    return RepresentationSearcher(snapshot, "dense", kind, StoredQueries(), knobs)  # type: ignore[arg-type]


def read_bytes(folder: Path, kind: str) -> int:
    """Bytes on disk that a search of a variant may read: the index, what it was trained to, and the vectors."""
    collection = folder / "collection"
    parts = [
        *collection.glob(f"segments/*/indexes/dense-{kind}-*"),
        *collection.glob("segments/*/vectors/dense"),
        *collection.glob(f"shared/dense-{kind}"),
    ]
    return sum(file.stat().st_size for part in parts for file in part.rglob("*") if file.is_file())


def _build(vectors: Vectors, folder: Path, *, kind: str, parameters: Knobs) -> None:
    collection = folder / "collection"
    shutil.copytree(folder.parent / "collection", collection, copy_function=os.link)
    if kind != "flat":
        spec = index_spec(kind, parameters)
        add_representation(collection, RepresentationOptions("dense", {}, (spec,)), memory_bytes=MEMORY)


def _warm(vectors: Vectors, folder: Path, *, kind: str, parameters: Knobs) -> None:
    made = kind_class(kind)
    if hasattr(made, "train"):  # by libraries that are compiled already
        return
    folder.mkdir()
    few = Dense(np.array(vectors[:300]))
    made.build(few, folder, made.parameters(parameters), memory_bytes=MEMORY, progress=lambda rows: None)
    shutil.rmtree(folder)


def _open(folder: Path, *, kind: str) -> Callable[[Vectors, int, Knobs], Rows]:
    snapshot = snapshot_of(folder)

    def search(queries: Vectors, k: int, knobs: Knobs) -> Rows:
        return searcher(snapshot, kind, knobs).search_encoded(Dense(queries), SearchRequest(k=k)).rows

    return search


def _open_bare(folder: Path, *, kind: str) -> Callable[[Vectors, int, Knobs], Rows]:
    index: Any = snapshot_of(folder).segments[0].index("dense", kind)

    def search(queries: Vectors, k: int, knobs: Knobs) -> Rows:
        view = replace(index, **knobs) if knobs else index
        return view.search(Dense(queries), SearchRequest(k=k)).rows

    return search
