"""Hubs, and what a query bank does to them: ``python benchmarks/hubness.py [--quick] [--json]``.

SciFact and NFCorpus under $TERCET_DATA, the default encoder, exact search; the bank holds the queries of the train
split, none of the test split. A row is plain search or QB-Norm (``retrieval.query_bank``) at one beta: the paper's 20,
and the one that does best on half of the train queries with the other half as the bank; no test judgement chooses
anything. `p_ndcg10` is that of the difference from plain search. Hubness is that of the first 10 hits of the test
queries: `skewness` of the 10-occurrences, the share of documents that are `hubs` and of hits that these take, the share
that are `anti_hubs`, and the Robin Hood index.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.dense_texts import source
from eval.beir import BeirDataset, open_dataset
from eval.collection_cache import cached_collection, open_retrievers
from eval.evaluate import Conditions, Evaluation, Retriever, evaluate, make_run
from eval.metrics import DEFAULT_METRICS, mean, parse_metrics, per_query
from indexing.collection import Collection
from indexing.progress import progress_bars
from indexing.query_banks import store_query_bank
from retrieval.compute import threads
from retrieval.errors import TercetError
from retrieval.hubness import Hubness, hubness, occurrences
from retrieval.protocols import SearchRequest
from retrieval.query_bank import BETA

DATASETS = ("scifact", "nfcorpus")
BETAS = (1, 2, 5, 10, 20, 50)
QUICK_BETAS = (2, 20)
METRICS = parse_metrics(DEFAULT_METRICS)

Row = dict[str, object]


def rows_of(name: str, betas: tuple[int, ...], data_dir: str, progress) -> Iterator[Row]:
    """Plain search, the paper's beta and the chosen one on the test split."""
    test = open_dataset(name, data_dir=data_dir, progress=progress)
    train = replace(test, split="train")
    kept = cached_collection(test, ["dense"], progress=progress, cache=Path(".bench/collections"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copytree(kept, Path(folder) / "collection"))
        chosen = _best_beta(path, train, betas)
        bank = sorted({query.text for query in train.queries()} - {query.text for query in test.queries()})
        for beta in dict.fromkeys((None, BETA, chosen)):
            if beta is not None:
                store_query_bank(path, "dense", bank, {"beta": beta})
            retrievers = open_retrievers(path, ["dense"], query_bank=beta is not None)
            last = evaluate(test, retrievers, Conditions(metrics=METRICS))[
                -1
            ]  # compared with the first, plain search
            setting = (
                "plain" if beta is None else f"beta {beta:g}" + (" (train's best)" if beta == chosen else "")
            )
            yield _row(last, setting, len(bank), _hubness(path, retrievers[-1], test))


def _best_beta(path: Path, train: BeirDataset, betas: tuple[int, ...]) -> float:
    """By nDCG@10 of every other train query, with those between as the bank."""
    queries, qrels = train.queries(), train.qrels()
    asked = queries[1::2]
    judged = {query.id: qrels[query.id] for query in asked}
    conditions = Conditions(metrics=METRICS, k=10)
    found: dict[float, float] = {}
    for beta in betas:
        store_query_bank(path, "dense", [query.text for query in queries[::2]], {"beta": beta})
        plain, banked = (
            mean(per_query(make_run(one, asked, conditions)[0], judged, METRICS), METRICS)["nDCG@10"]
            for one in open_retrievers(path, ["dense"], query_bank=True)
        )
        found[beta] = banked
        print(f"  {train.name} train, beta {beta}: nDCG@10 {banked:.4f}, plain {plain:.4f}", file=sys.stderr)
    return max(found, key=lambda beta: found[beta])


def _hubness(path: Path, retriever: Retriever, dataset: BeirDataset) -> Hubness:
    hits = retriever.searcher.search([query.text for query in dataset.queries()], SearchRequest(k=10))
    return hubness(occurrences(hits.rows, Collection.open(path).snapshot().n_rows), 10)


def _row(one: Evaluation, setting: str, bank: int, judged: Hubness) -> Row:
    return {
        "bench": "hubness", "data": one.dataset, "engine": "tercet", "setting": setting,
        "queries": one.n_queries, "bank": bank if setting != "plain" else None, "k": 10, "threads": threads(),
        "ms_p50": one.latency and one.latency.percentile(50), "ms_p95": one.latency and one.latency.percentile(95),
        "ndcg10": one.metrics["nDCG@10"], "recall100": one.metrics["Recall@100"], "mrr10": one.metrics["MRR@10"],
        "p_ndcg10": one.p_values.get("nDCG@10"), "index_bytes": one.index_bytes,
        **{name: getattr(judged, name) for name in ("skewness", "hubs", "hub_hits", "anti_hubs", "robin_hood")},
    }  # fmt: skip


def table(rows: list[Row]) -> str:
    """Markdown."""

    def cell(value: object) -> str:
        return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    columns = [name for name in rows[0] if name not in ("bench", "engine", "k", "threads", "index_bytes")]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row[name]) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer betas")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    given = parser.parse_args()
    rows = []
    try:
        with progress_bars(quiet=True) as progress:
            for name in DATASETS:
                for row in rows_of(name, QUICK_BETAS if given.quick else BETAS, str(source("")), progress):
                    rows.append(row)
                    if given.json:
                        print(json.dumps(row), flush=True)
    except TercetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not given.json:
        print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
