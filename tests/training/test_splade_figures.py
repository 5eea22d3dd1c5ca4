"""What is measured of a ranking of held-out queries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from eval.metrics import measure
from retrieval.values import Hits
from training.splade_figures import METRICS, effectiveness
from training.triplets import bm25_hits, joined, read_training_set


def test_effectiveness_is_that_of_the_run(tmp_path: Path, write_set: Callable[..., Path]) -> None:
    data = joined([read_training_set(write_set(tmp_path / name)) for name in ("one", "two")])
    assert data.documents["two/d3"] == "delta delta gamma old"
    hits = bm25_hits(data, 5)
    ids = list(data.documents)
    by_hand = {
        query: [(ids[row], float(score)) for row, score in zip(*line, strict=True) if row >= 0]
        for query, line in zip(data.queries, zip(hits.rows.tolist(), hits.scores, strict=True), strict=True)
    }
    assert effectiveness(data, hits) == measure(by_hand, data.qrels, METRICS)
    assert effectiveness(data, Hits.none(len(data.queries), 3))["nDCG@10"] == 0.0
