"""Published figures on real data sets: slow, skipped where the data is not at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eval.beir import open_dataset
from eval.collection_cache import cached_collection, open_retrievers
from eval.evaluate import Conditions, evaluate

pytestmark = pytest.mark.slow

DATA = Path(os.environ.get("TERCET_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
USING = ("bm25", "dense", "hybrid")

# BM25: Anserini's regressions (flat). Dense: MTEB, all-MiniLM-L6-v2. Hybrid: what equal weights after min-max gave.
EXPECTED = [
    ("scifact", "bm25", "nDCG@10", 0.6789, 0.001),
    ("scifact", "bm25", "Recall@100", 0.9253, 0.001),
    ("nfcorpus", "bm25", "nDCG@10", 0.3218, 0.002),
    ("scifact", "dense", "nDCG@10", 0.6451, 0.003),
    ("nfcorpus", "dense", "nDCG@10", 0.3159, 0.003),
]
AT_LEAST = [("scifact", 0.725), ("nfcorpus", 0.357)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Data set -> retriever -> metrics, each data set evaluated once."""
    cache, known = tmp_path_factory.mktemp("collections"), {}

    def of(name):
        if name not in known:
            folder = next((path for path in (DATA / "eval" / name, DATA / name) if path.is_dir()), None)
            if folder is None:
                pytest.skip(f"{name} is not under {DATA}")
            dataset = open_dataset(folder)
            path = cached_collection(dataset, USING, cache=cache)
            found = evaluate(dataset, open_retrievers(path, USING), Conditions(timed_queries=0))
            known[name] = {one.retriever: one.metrics for one in found}
        return known[name]

    return of


@pytest.mark.parametrize(("dataset", "retriever", "metric", "value", "tolerance"), EXPECTED)
def test_published_figures_are_reached(measured, dataset, retriever, metric, value, tolerance):
    assert measured(dataset)[retriever][metric] == pytest.approx(value, abs=tolerance)


@pytest.mark.parametrize(("dataset", "least"), AT_LEAST)
def test_the_hybrid_beats_both_its_parts(measured, dataset, least):
    metrics = measured(dataset)
    assert metrics["hybrid"]["nDCG@10"] >= least
    assert metrics["hybrid"]["nDCG@10"] > max(metrics["bm25"]["nDCG@10"], metrics["dense"]["nDCG@10"])
