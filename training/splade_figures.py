"""How well an encoder finds the documents of held-out queries, and how sparse its vectors are."""

from __future__ import annotations

from typing import Any

import torch

from eval.metrics import measure, parse_metrics
from indexing.progress import Progress
from retrieval.values import Hits
from training.splade_encoder import sparse_vectors
from training.triplets import TrainingSet

METRICS = parse_metrics(("nDCG@10", "MRR@10", "Recall@100"))
"""What is measured of a ranking."""

DEPTH = 100
"""Documents of a ranking that are measured."""


def effectiveness(data: TrainingSet, hits: Hits) -> dict[str, float]:
    """The metrics of each query's hits, whose rows count the documents; those that score 0 are not found."""
    ids = list(data.documents)
    found = {
        query: [(ids[row], score) for row, score in zip(rows, scores, strict=True) if row >= 0 and score > 0]
        for query, rows, scores in zip(data.queries, hits.rows.tolist(), hits.scores.tolist(), strict=True)
    }
    return measure(found, data.qrels, METRICS)


def splade_figures(encoder: Any, data: TrainingSet, progress: Progress) -> dict[str, float]:
    """Effectiveness of the encoder, the mean number of terms and how large their weights are."""
    progress.start("measuring", len(data.queries) + len(data.documents), "texts")
    queries = sparse_vectors(encoder, list(data.queries.values()), progress)
    documents = sparse_vectors(encoder, list(data.documents.values()), progress)
    scores = torch.sparse.mm(documents, queries.to_dense().T).T
    best, rows = scores.topk(min(DEPTH, len(data.documents)), dim=1)
    weights = documents.values()
    return effectiveness(data, Hits(rows.numpy(), best.numpy())) | {
        "query_terms": queries.values().numel() / len(data.queries),
        "document_terms": weights.numel() / len(data.documents),
        "mean_weight": float(weights.mean()) if len(weights) else 0.0,
        "max_weight": float(weights.max()) if len(weights) else 0.0,
    }
