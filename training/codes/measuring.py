"""How well a book of codes finds the documents of held-out queries: words alone, tables, and the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics import measure, parse_metrics
from indexing.progress import Progress
from retrieval.encoders.codes.book import CodeBook
from retrieval.encoders.codes.encoder import CodesEncoder
from retrieval.encoders.sparse_rows import row_offsets
from retrieval.exact import sparse_scores
from retrieval.topk import top_k
from retrieval.values import Document, Sparse
from training.examples.training_set import TrainingSet
from training.run.dev import METRICS, qrels_of, run_of

_DEPTH = 100

BEFORE, STATIC, AFTER = "words alone", "static queries", "after"


def measured(
    folder: Path, held: TrainingSet, metric: str, max_length: int, progress: Progress
) -> dict[str, dict[str, float]]:
    """Metrics, terms of a document and terms of a query, by the kind of queries.

    Args:
        folder: of the book.
        held: queries, and the documents they are searched in by exact search.
        metric: beside the usual ones.
        max_length: tokens of a text.
        progress: advances by one for each text.
    """
    texts, queries = held.documents["text"].to_list(), held.queries["text"].to_list()
    documents = [Document(str(row), text) for row, text in enumerate(texts)]
    progress.start("measuring", len(texts) + 2 * len(queries), "texts")
    encoder = CodesEncoder.open(str(folder), {"max_length": max_length, "window": 0}).fit(documents)
    static = encoder.with_queries("static")
    stored = encoder.encode_documents(documents)
    progress.advance(len(texts))
    asked: dict[str, Sparse] = {}
    for name, one in ((STATIC, static), (AFTER, encoder)):
        asked[name] = one.encode_queries(queries)
        progress.advance(len(queries))
    asked = {BEFORE: _words(asked[AFTER], CodeBook.load(folder).first_code), **asked}
    return {name: _figures(rows, stored, held, metric) for name, rows in asked.items()}


def _figures(asked: Sparse, stored: Sparse, held: TrainingSet, metric: str) -> dict[str, float]:
    wanted: Any = parse_metrics(dict.fromkeys((metric, *METRICS)))
    scores = sparse_scores(asked, stored)
    hits = top_k(np.where(scores > 0, scores, -np.inf), min(_DEPTH, len(stored)))
    terms = {
        "query_terms": len(asked.indices) / max(1, len(asked)),
        "document_terms": len(stored.indices) / max(1, len(stored)),
    }
    return measure(run_of(hits, held), qrels_of(held), wanted) | terms


def _words(rows: Sparse, first_code: int) -> Sparse:
    """The rows without codes and features."""
    kept = rows.indices < first_code
    of_row = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))[kept]
    indptr = row_offsets(np.bincount(of_row, minlength=len(rows)))
    return Sparse(indptr, rows.indices[kept], rows.values[kept], rows.dim)
