"""Effectiveness beside the published figures: ``python benchmarks/quality.py [--quick] [--json]``.

Evaluates BM25, the default dense encoder and their hybrid on the data sets under ``$TERCET_DATA`` (or
``--data-dir``) as ``tercet eval`` does, the hybrid with 100 and with 1,000 candidates from each part.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

from eval.beir import open_dataset
from eval.collection_cache import cached_collection, open_retrievers
from eval.evaluate import Conditions, Evaluation, evaluate, with_p_values
from eval.metrics import DEFAULT_METRICS, parse_metrics
from eval.report import versions
from indexing.progress import progress_bars
from retrieval.compute import threads
from retrieval.errors import TercetError

DATASETS = ("scifact", "nfcorpus", "cranfield", "cisi")
USING = ("bm25", "dense", "hybrid")
DEPTHS = (100, 1000)

PUBLISHED = {
    ("scifact", "bm25"): {"source": "Anserini, BEIR flat", "nDCG@10": 0.6789, "Recall@100": 0.9253},
    ("nfcorpus", "bm25"): {"source": "Anserini, BEIR flat", "nDCG@10": 0.3218, "Recall@100": 0.2457},
    ("scifact", "dense"): {"source": "MTEB, all-MiniLM-L6-v2", "nDCG@10": 0.6451},
    ("nfcorpus", "dense"): {"source": "MTEB, all-MiniLM-L6-v2", "nDCG@10": 0.3159},
}


def measure(name: str, data_dir: str | None, timed: int, progress) -> list[tuple[Evaluation, float]]:
    """Every retriever on one data set, with the seconds its collection took to build (0 when it was there)."""
    dataset = open_dataset(name, data_dir=data_dir, progress=progress)
    started = time.perf_counter()
    path = cached_collection(dataset, USING, progress=progress, cache=Path(".bench/collections"))
    build_s = time.perf_counter() - started
    conditions = Conditions(metrics=parse_metrics(DEFAULT_METRICS), timed_queries=timed)
    retrievers = open_retrievers(path, USING)
    found = evaluate(dataset, retrievers, conditions, progress)
    hybrid = [one for one in retrievers if one.name == "hybrid"]
    for depth in DEPTHS:
        if depth != conditions.depth:
            found += evaluate(dataset, hybrid, replace(conditions, depth=depth), progress)
    return [(one, build_s) for one in with_p_values(found)]


def as_object(one: Evaluation, build_s: float) -> dict:
    """The common line of every benchmark, with the published figure beside ours."""
    published = PUBLISHED.get((one.dataset, one.retriever), {})
    return {
        "bench": "quality",
        "data": one.dataset,
        "engine": "tercet",
        "setting": one.retriever if one.retriever != "hybrid" else f"hybrid depth {one.depth}",
        "k": one.k,
        "threads": threads(),
        "qps": one.queries_per_second,
        "ms_p50": one.latency.percentile(50) if one.latency else None,
        "ms_p95": one.latency.percentile(95) if one.latency else None,
        "recall": None,
        "ndcg10": one.metrics["nDCG@10"],
        "recall100": one.metrics["Recall@100"],
        "mrr10": one.metrics["MRR@10"],
        "published_ndcg10": published.get("nDCG@10"),
        "published_recall100": published.get("Recall@100"),
        "published_source": published.get("source"),
        "p_ndcg10_against_bm25": one.p_values.get("nDCG@10"),
        "index_bytes": one.index_bytes,
        "build_s": build_s,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "n_docs": one.n_docs,
        "n_queries": one.n_queries,
        "versions": versions(),
    }


def table(lines: list[dict]) -> str:
    """Markdown."""

    def figure(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    rows = [
        "| data | documents | queries | retriever | nDCG@10 | published | Recall@100 | published | MRR@10 "
        "| ms p50 | ms p95 |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for line in lines:
        cells = [line["data"], f"{line['n_docs']:,}", str(line["n_queries"]), line["setting"]]
        cells += [figure(line["ndcg10"]), figure(line["published_ndcg10"])]
        cells += [figure(line["recall100"]), figure(line["published_recall100"]), figure(line["mrr10"])]
        cells += ["" if line[key] is None else f"{line[key]:.2f}" for key in ("ms_p50", "ms_p95")]
        rows.append("| " + " | ".join(cells) + " |")
    rows += [
        "",
        "Published: BM25 from Anserini's regressions (flat), dense from MTEB's results for all-MiniLM-L6-v2. "
        "Rankings of 1,000; ms: one query at a time, text to the first 10 hits, encoding included, "
        f"{lines[0]['threads'] if lines else 0} threads.",
    ]
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="SciFact and NFCorpus only, 50 timed queries")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    parser.add_argument("--data-dir", help="where the data sets lie, by name")
    arguments = parser.parse_args()
    names, timed = (DATASETS[:2], 50) if arguments.quick else (DATASETS, 300)
    lines = []
    try:
        with progress_bars() as progress:
            for name in names:
                for one, build_s in measure(name, arguments.data_dir, timed, progress):
                    lines.append(as_object(one, build_s))
                    if arguments.json:
                        print(json.dumps(lines[-1]), flush=True)
    except TercetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not arguments.json:
        print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
