"""Real vectors for the dense benchmarks: collections, their queries and windows of their texts, encoded once.

The default encoder makes all of them; what it made is kept under .bench/dense/ by encoder and texts. Windows are up to
40 words long and end with a sentence where one does (``indexing.chunking``); they come in one seeded order, in blocks
of 10,000, so that a short run encodes the beginning of what a long one does.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.chunking import Chunking
from indexing.corpora import open_corpus
from retrieval.compute import set_threads, threads
from retrieval.encoders import open_encoder
from retrieval.values import Document

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".bench" / "dense"
COLLECTIONS = (
    "eval/scifact", "eval/nfcorpus", "eval/cranfield", "eval/cisi",
    "train/medquad", "train/squad_v1.1_dev", "train/fever_evidence_sent", "train/covidqa_passages",
)  # fmt: skip
WINDOW_WORDS = 40
BLOCK = 10_000

Vectors = NDArray[np.float32]


def source(name: str) -> Path:
    """The folder of a collection, under $TERCET_DATA or ../shared/data."""
    return Path(os.environ.get("TERCET_DATA") or ROOT.parent / "shared" / "data") / name


def present() -> list[str]:
    """The collections that are there."""
    return [name for name in COLLECTIONS if (source(name) / "corpus.jsonl").exists()]


def documents(name: str) -> list[Document]:
    """All documents of a collection."""
    return [record.document for record in open_corpus(source(name)).read()]


def queries(name: str) -> list[str]:
    """All distinct queries of a collection, judged or not."""
    with (source(name) / "queries.jsonl").open(encoding="utf-8") as lines:
        return list(dict.fromkeys(json.loads(line)["text"] for line in lines))


@functools.cache
def windows() -> tuple[Document, ...]:
    """The distinct windows of all collections, in an order drawn once."""
    chunking = Chunking(WINDOW_WORDS)
    texts: dict[str, None] = {}
    for name in present():
        for document in documents(name):
            texts.update((document.text[a:b].strip(), None) for a, b in chunking.spans(document.text))
    texts.pop("", None)
    found = [Document(str(number), text) for number, text in enumerate(texts)]
    order = np.random.default_rng(0).permutation(len(found))
    return tuple(found[number] for number in order)


def window_vectors(limit: int) -> Vectors:
    """(N, D) vectors of the first windows: at most ``limit`` and at most all there are."""
    chosen = windows()[:limit]
    blocks = [chosen[start : start + BLOCK] for start in range(0, len(chosen), BLOCK)]
    return np.concatenate([document_vectors(block, "windows") for block in blocks])


def document_vectors(texts: Iterable[Document], label: str) -> Vectors:
    """(N, D) vectors of documents, from the cache where they are there."""
    texts = list(texts)
    return _kept(label, [text.contents() for text in texts], lambda: _encoder().encode_documents(texts))


def query_vectors(texts: list[str], label: str) -> Vectors:
    """(Q, D) vectors of queries, from the cache where they are there."""
    return _kept(f"{label}-queries", texts, lambda: _encoder().encode_queries(texts))


def pooled_queries(n: int) -> list[str]:
    """n queries drawn from those of all collections, no text twice."""
    texts = list(dict.fromkeys(text for name in present() for text in queries(name)))
    return drawn(texts, n)


def drawn(texts: list[str], n: int) -> list[str]:
    """n of the texts, or all in their order where there are no more; fewer are the first of more."""
    if len(texts) <= n:
        return texts
    return [texts[number] for number in np.random.default_rng(1).permutation(len(texts))[:n]]


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a .npy completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part.npy")
    np.save(temporary, array)
    temporary.rename(path)


@contextlib.contextmanager
def all_cores() -> Iterator[None]:
    """For what is prepared, not measured."""
    before = threads()
    set_threads(len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        set_threads(before)


def _kept(label: str, texts: list[str], encode: Any) -> Vectors:
    digest = hashlib.sha256(_encoder().fingerprints.documents.encode())
    digest.update(json.dumps(texts).encode())
    path = CACHE / "encoded" / f"{label.replace('/', '-')}-{digest.hexdigest()[:12]}.npy"
    if not path.exists():
        print(f"encoding {len(texts):,} texts of {label}", file=sys.stderr, flush=True)
        with all_cores():
            save_array(path, np.asarray(encode().values, dtype=np.float32))
    return np.load(path)


@functools.cache
def _encoder() -> Any:
    return open_encoder({"family": "dense", "model": "default"})
