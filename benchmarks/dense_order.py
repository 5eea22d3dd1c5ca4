"""What the order of insertion does to the recall of a graph: ``python benchmarks/dense_order.py [--quick] [--json]``.

Elliott & Clark, "The Impacts of Data, Ordering, and Intrinsic Dimensionality on Recall in Hierarchical Navigable Small
Worlds", ICTIR 2024, arXiv:2405.17813, repeated on the default encoder's vectors of the collections under $TERCET_DATA
or ../shared/data, and of all of them one after another ("all"), with their own queries. A row is one order in one
graph: `recall_10` to `recall_80` are recall@10 with that many candidates, means over 3 seeds where the order is drawn;
`points` is how far recall_10 lies from the random order's, in hundredths, and `spread` the largest less the smallest
recall_10 of one order's seeds. `dimension` is the data's intrinsic dimension (maximum likelihood, harmonic mean).

--quick takes NFCorpus and SciFact.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["TERCET_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # with more, two builds differ

import numpy as np

from benchmarks import dense_texts
from indexing.dense.intrinsic_dimension import global_dimension, local_dimensions
from indexing.dense.scan import largest_norm, scan
from indexing.hnsw.index import BACKENDS
from indexing.hnsw.insertion_order import ORDERS
from indexing.hnsw.order_report import OrderRecall, order_report
from retrieval.values import Dense

QUICK = ("eval/nfcorpus", "eval/scifact")
QUERIES = 500
EFS = (10, 20, 40, 80)
GRAPHS = [{"backend": backend, "m": m, "ef_construction": 128} for m in (16, 4) for backend in BACKENDS]
"""16 links are usual, 4 too few."""
DRAWN = ("random", "clustered")
SEEDS = 3

Row = dict[str, object]


def data_sets(quick: bool) -> Iterator[tuple[str, Dense, Dense]]:
    """Name, documents and queries."""
    names = [name for name in dense_texts.present() if not quick or name in QUICK]
    if not names:
        raise SystemExit(f"no collection under {dense_texts.source('')}; set TERCET_DATA")
    every = []
    for name in names:
        label = name.partition("/")[2]
        documents = dense_texts.document_vectors(dense_texts.documents(name), label)
        every.append(documents)
        asked = dense_texts.query_vectors(dense_texts.drawn(dense_texts.queries(name), QUERIES), label)
        yield label, Dense(documents), Dense(asked)
    if not quick:
        pooled = dense_texts.query_vectors(dense_texts.pooled_queries(QUERIES), "pooled")
        yield "all", Dense(np.concatenate(every)), Dense(pooled)


def rows_of(name: str, documents: Dense, queries: Dense) -> Iterator[Row]:
    """A row for each graph and order."""
    truth = scan(documents, largest_norm(documents), queries, 10).rows
    dimension = global_dimension(local_dimensions(documents)).harmonic
    for graph in GRAPHS:
        found: dict[str, list[OrderRecall]] = {order: [] for order in ORDERS}
        for seed in range(SEEDS):
            orders = ORDERS if seed == 0 else DRAWN
            for one in order_report(
                documents, queries, truth, orders=orders, efs=EFS, parameters=graph, seed=seed
            ):
                found[one.order].append(one)
        usual = _recall(found["random"], EFS[0])
        for order, measured in found.items():
            yield {
                "bench": "dense_order", "data": name, "engine": "tercet", "n_docs": len(documents),
                "dimension": round(dimension, 2), "setting": f"{graph['backend']} m={graph['m']}", "order": order,
                "k": 10, "threads": 1,
                **{f"recall_{ef}": round(_recall(measured, ef), 4) for ef in EFS},
                "points": round(100 * (_recall(measured, EFS[0]) - usual), 2),
                "spread": round(_spread(measured), 4) if order in DRAWN else None,
                "order_s": round(measured[0].order_s, 2), "build_s": round(measured[0].build_s, 2),
            }  # fmt: skip


def _recall(measured: list[OrderRecall], ef: int) -> float:
    return float(np.mean([one.recall for one in measured if one.ef == ef]))


def _spread(measured: list[OrderRecall]) -> float:
    narrow = [one.recall for one in measured if one.ef == EFS[0]]
    return max(narrow) - min(narrow)


def table(rows: list[Row]) -> str:
    """Markdown."""
    columns = [
        "data",
        "n_docs",
        "dimension",
        "setting",
        "order",
        *(f"recall_{ef}" for ef in EFS),
        "points",
        "spread",
    ]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += [
        "| " + " | ".join("" if row[name] is None else str(row[name]) for name in columns) + " |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="NFCorpus and SciFact, a few minutes")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    given = parser.parse_args()
    rows = []
    for name, documents, queries in data_sets(given.quick):
        for row in rows_of(name, documents, queries):
            rows.append(row)
            if given.json:
                print(json.dumps(row), flush=True)
    if not given.json:
        print(table(rows))


if __name__ == "__main__":
    main()
