"""Effectiveness of every family beside the published figures: ``python benchmarks/quality.py [--quick] [--json]``.

Evaluates BM25, the default dense, sparse and late encoders and their hybrids on the data sets under ``$TERCET_DATA``
(or ``--data-dir``) as ``tercet eval`` does, with whole documents and with chunks (``--chunk 150/30``), each compared
with BM25 and with the dense encoder over whole documents by a paired randomisation test over queries. Zero-shot: no
model has seen any of the collections.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eval.beir import open_dataset
from eval.collection_cache import cached_collection, open_retrievers
from eval.evaluate import Conditions, Evaluation, evaluate, with_p_values
from eval.metrics import DEFAULT_METRICS, parse_metrics
from eval.report import versions
from indexing.chunking import Chunking
from indexing.collection import Collection
from indexing.progress import Progress, progress_bars
from retrieval.compute import threads
from retrieval.errors import TercetError
from retrieval.values import Sparse

DATASETS = ("scifact", "nfcorpus", "cranfield", "cisi")
USING = ("bm25", "dense", "sparse", "late", "bm25+dense", "sparse+late", "bm25+dense+late")
STATIC = "sparse, queries without a model"
CHUNKS = "{}, in chunks"
CACHE = Path(".bench/collections")

PUBLISHED = {
    ("scifact", "bm25"): {"source": "Anserini, BEIR flat", "nDCG@10": 0.6789, "Recall@100": 0.9253},
    ("nfcorpus", "bm25"): {"source": "Anserini, BEIR flat", "nDCG@10": 0.3218, "Recall@100": 0.2457},
    ("scifact", "dense"): {"source": "MTEB, all-MiniLM-L6-v2", "nDCG@10": 0.6451},
    ("nfcorpus", "dense"): {"source": "MTEB, all-MiniLM-L6-v2", "nDCG@10": 0.3159},
}


@dataclass(frozen=True)
class Line:
    """What one retriever reached on one data set.

    Attributes:
        found: compared with BM25.
        against_dense: p of nDCG@10 compared with the dense encoder; None for that itself.
        build_s: seconds the collection took to build, 0 when it was there.
        sizes: terms of documents and of queries and FLOPS, of sparse retrievers.
    """

    found: Evaluation
    against_dense: float | None
    build_s: float
    sizes: Mapping[str, float]


def measure(name: str, data_dir: str | None, timed: int, progress: Progress) -> list[Line]:
    """Every retriever on one data set."""
    dataset = open_dataset(name, data_dir=data_dir, progress=progress)
    started = time.perf_counter()
    path = cached_collection(dataset, USING, progress=progress, cache=CACHE)
    build_s = time.perf_counter() - started
    split = cached_collection(dataset, USING, progress=progress, cache=CACHE, chunking=Chunking.default())
    conditions = Conditions(metrics=parse_metrics(DEFAULT_METRICS), timed_queries=timed)
    snapshot = Collection.open(path).snapshot()
    retrievers = open_retrievers(path, USING)
    encoders = {"sparse": snapshot.encoder("sparse")}
    encoders[STATIC] = encoders["sparse"].with_queries("static")
    place = USING.index("sparse")
    static = snapshot.searcher("sparse", encoders={"sparse": encoders[STATIC]})
    retrievers.insert(place + 1, replace(retrievers[place], name=STATIC, searcher=static))
    retrievers += [replace(one, name=CHUNKS.format(one.name)) for one in open_retrievers(split, USING)]
    found = evaluate(dataset, retrievers, conditions, progress)
    dense = next(one for one in found if one.retriever == "dense")
    others = with_p_values([dense, *(one for one in found if one is not dense)])
    against = {one.retriever: one.p_values["nDCG@10"] for one in others[1:]}
    texts = [query.text for query in dataset.queries()]
    documents = snapshot.store("sparse").take(np.arange(snapshot.n_rows))
    return [
        Line(
            one,
            against.get(one.retriever),
            build_s,
            sizes(encoders[one.retriever].encode_queries(texts), documents)
            if one.retriever in encoders
            else {},
        )
        for one in with_p_values(found)
    ]


def sizes(queries: Sparse, documents: Sparse) -> dict[str, float]:
    """Mean terms, and FLOPS: terms that a query and a document share on average (Formal et al., arXiv:2107.05720)."""
    shares = [np.bincount(rows.indices, minlength=rows.dim) / len(rows) for rows in (queries, documents)]
    return {
        "document_terms": len(documents.indices) / len(documents),
        "query_terms": len(queries.indices) / len(queries),
        "flops": float(shares[0] @ shares[1]),
    }


def as_object(line: Line) -> dict:
    """The common line of every benchmark, with the published figure beside ours."""
    one = line.found
    published = PUBLISHED.get((one.dataset, one.retriever), {})
    return {
        "bench": "quality",
        "data": one.dataset,
        "engine": "tercet",
        "setting": one.retriever,
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
        "p_ndcg10_against_dense": line.against_dense,
        "document_terms": line.sizes.get("document_terms"),
        "query_terms": line.sizes.get("query_terms"),
        "flops": line.sizes.get("flops"),
        "index_bytes": one.index_bytes,
        "build_s": line.build_s,
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
        "| data | documents | queries | retriever | nDCG@10 | published | p to BM25 | p to dense | Recall@100 "
        "| published | MRR@10 | ms p50 | ms p95 | terms | FLOPS |",
        "|---|---:|---:|---|" + "---:|" * 11,
    ]
    for line in lines:
        cells = [line["data"], f"{line['n_docs']:,}", str(line["n_queries"]), line["setting"]]
        cells += [figure(line["ndcg10"]), figure(line["published_ndcg10"])]
        cells += [figure(line["p_ndcg10_against_bm25"]), figure(line["p_ndcg10_against_dense"])]
        cells += [figure(line["recall100"]), figure(line["published_recall100"]), figure(line["mrr10"])]
        cells += ["" if line[key] is None else f"{line[key]:.2f}" for key in ("ms_p50", "ms_p95")]
        cells += ["" if line[key] is None else f"{line[key]:.1f}" for key in ("document_terms", "flops")]
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
                for line in measure(name, arguments.data_dir, timed, progress):
                    lines.append(as_object(line))
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
