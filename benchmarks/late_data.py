"""Token vectors of BEIR collections for the late-interaction benchmarks, encoded once and kept under .bench/late/."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.beir import open_dataset
from eval.metrics import Qrels, measure, parse_metrics
from indexing.corpora import open_corpus
from indexing.encoder_fitting import spread
from indexing.options import BATCH_ROWS, rows_together
from retrieval.encoders import open_encoder
from retrieval.encoders.token_projection import TokenProjection
from retrieval.values import Document, MultiVector

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".bench" / "late"
ENCODERS = ROOT / "retrieval" / "encoders"
NAMES = ("scifact", "nfcorpus")
CUT = {"window": 0}
"""Texts are cut at 256 tokens, which makes the 1.24 million of SciFact that peers are known to be measured with."""
K = 10

_STEP = 1 << 16  # vectors projected at a time


@dataclass(frozen=True)
class LateData:
    """A collection and its test queries as token vectors.

    Attributes:
        name: "scifact", or "scifact-500" for its first documents.
        folder: where its vectors lie and indexes go.
        documents: N rows, memory-mapped.
        queries: Q rows.
        ids: of documents.
        query_ids: of queries.
        qrels: of these queries.
        facts: documents and tokens encoded, the seconds it took, and whether that was in an earlier run.
    """

    name: str
    folder: Path
    documents: MultiVector
    queries: MultiVector
    ids: list[str]
    query_ids: list[str]
    qrels: Qrels
    facts: dict[str, Any]

    @property
    def whole(self) -> bool:
        """Whether all judged documents are there, so that nDCG says something."""
        return "-" not in self.name

    def ndcg(self, rows: np.ndarray) -> float | None:
        """nDCG@10 of (Q, K) rows, best first, -1 for padding; None for a slice."""
        if not self.whole:
            return None
        run = {
            query: [(self.ids[row], -float(rank)) for rank, row in enumerate(found) if row >= 0]
            for query, found in zip(self.query_ids, rows.tolist(), strict=True)
        }
        return round(measure(run, self.qrels, parse_metrics(["nDCG@10"]))["nDCG@10"], 4)


def late_data(
    name: str, limit: int | None = None, n_queries: int | None = None, raw: bool = False
) -> LateData | None:
    """A data set under $TERCET_DATA or ../shared/data; None where it is absent.

    Args:
        name: of its folder.
        limit: documents, all when None.
        n_queries: queries, all when None.
        raw: the model's own 384 dimensions instead of the default encoder's 128.
    """
    source = _source(name)
    if not (source / "corpus.jsonl").exists():
        return None
    dataset, documents = open_dataset(source), corpus(name, limit)
    asked = dataset.queries()[:n_queries]
    spec = {"family": "late", "options": CUT | ({"projection": "none"} if raw else {})}
    folder = CACHE / f"{name}-{'raw-' if raw else ''}{_key(spec, documents, [q.text for q in asked])}"
    cached = (folder / "encoded.json").exists()
    if not cached:
        _encode(spec, documents, [query.text for query in asked], folder)
    qrels = dataset.qrels()
    return LateData(
        name if limit is None else f"{name}-{limit}",
        folder,
        MultiVector.load(folder / "documents"),
        MultiVector.load(folder / "queries"),
        [document.id for document in documents],
        [query.id for query in asked],
        {query.id: qrels[query.id] for query in asked},
        json.loads((folder / "encoded.json").read_text("utf-8")) | {"cached": cached},
    )


def projected(data: LateData, documents: list[Document], dim: int) -> tuple[MultiVector, MultiVector]:
    """Documents and queries in fewer dimensions than the raw ones given, as the encoder of that option makes them."""
    if dim == data.documents.dim:
        return data.documents, data.queries
    folder = data.folder / f"projection-{dim}"
    if not (folder / "value.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        encoder = open_encoder({"family": "late", "options": CUT | {"dim": dim}})
        encoder.fit(_sample(documents)).save_state(folder)
    projection = TokenProjection.load(folder, data.documents.dim, dim)

    def narrowed(texts: MultiVector) -> MultiVector:
        values = np.empty((len(texts.values), dim), dtype=np.float16)
        for start in range(0, len(values), _STEP):
            part = slice(start, start + _STEP)
            values[part] = projection(texts.values[part].astype(np.float32))
        return MultiVector(texts.indptr, values)

    return narrowed(data.documents), narrowed(data.queries)


def _sample(documents: list[Document]) -> list[Document]:
    """What a collection of these documents fits its encoder on: the first batch of its build."""
    return spread(documents[: rows_together(BATCH_ROWS, [MultiVector])])


def corpus(name: str, limit: int | None = None) -> list[Document]:
    """The first documents of a data set, or all."""
    return [record.document for record in itertools.islice(open_corpus(_source(name)).read(), limit)]


def _source(name: str) -> Path:
    return Path(os.environ.get("TERCET_DATA") or ROOT.parent / "shared" / "data") / "eval" / name


def _encode(spec: dict[str, object], documents: list[Document], queries: list[str], folder: Path) -> None:
    """Write the vectors, and encoded.json at last."""
    shutil.rmtree(folder, ignore_errors=True)
    encoder = open_encoder(spec)
    start = time.perf_counter()
    if encoder.needs_fit:
        encoder = encoder.fit(_sample(documents))
    fitted = time.perf_counter()
    rows = encoder.encode_documents(documents)
    done = time.perf_counter()
    for part, value in (("documents", rows), ("queries", encoder.encode_queries(queries))):
        (folder / part).mkdir(parents=True)
        value.save(folder / part)
    facts = {
        "n_docs": len(rows),
        "n_tokens": len(rows.values),
        "fit_s": round(fitted - start, 2),
        "encode_s": round(done - fitted, 2),
    }
    (folder / "encoded.json").write_text(json.dumps(facts), encoding="utf-8")


def _key(spec: dict[str, object], documents: list[Document], queries: list[str]) -> str:
    """Changes with the model, the encoder's code, the documents, those it is fitted on and the queries."""
    digest = hashlib.sha256(open_encoder(spec).fingerprints.documents.encode())
    sources = [ENCODERS / "late.py", *ENCODERS.glob("token_*.py"), *(ENCODERS / "transformer").glob("*.py")]
    for source in sorted(sources):
        digest.update(source.read_bytes())
    digest.update(json.dumps([[d.id, d.contents()] for d in documents] + queries).encode())
    digest.update(json.dumps([d.id for d in _sample(documents)]).encode())
    return digest.hexdigest()[:12]
