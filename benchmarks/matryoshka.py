"""nDCG@10 of dense vectors cut short: ``python benchmarks/matryoshka.py MODEL [--data-dir DIRECTORY] [--json]``.

MODEL is what ``tercet train matryoshka-dense -o MODEL`` made. Beside it stand the default model, cut as it is; in
the principal axes of documents of the training sets; and with the damped whitening that the recipe's head starts as.
Prefixes are brought to unit length and compared exactly, as ``truncate_dim`` of the dense encoder does. Zero-shot: no
model has seen any of the collections.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.beir import BeirDataset, open_dataset
from eval.collection_cache import cached_collection
from eval.metrics import measure, parse_metric
from indexing.collection import Collection
from indexing.progress import Progress, progress_bars
from retrieval.encoders.token_pooling import unit_rows
from retrieval.exact import dense_scores
from retrieval.topk import top_k
from retrieval.values import Dense
from training.families.dense import DENSE
from training.recipe.reading import read_recipe
from training.run.preparing import read_data, sample_texts

Vectors = NDArray[np.float32]

DATASETS = ("scifact", "nfcorpus", "cranfield", "cisi")
WIDTHS = (384, 256, 128, 64, 32)
K = 10
METRIC = parse_metric(f"nDCG@{K}")


def start(train_dir: Path, progress: Progress) -> Vectors:
    """(384, 384) what the recipe's head starts as; a column is a principal axis, shortened as whitening wants it."""
    recipe = read_recipe("matryoshka-dense")
    with tempfile.TemporaryDirectory() as folder:
        *sets, _ = read_data(recipe, train_dir, Path(folder), progress)
        model = DENSE.open(recipe.model, recipe.seed, sample_texts(sets, recipe.seed), progress)
    (weight,) = (value for name, value in model.state_dict().items() if name.endswith(".linear.weight"))
    whitened: Vectors = weight.numpy().T
    return whitened


def encoded(dataset: BeirDataset, model: str, progress: Progress) -> tuple[Vectors, Vectors, list[str]]:
    """Vectors of queries and of documents, and the documents' ids."""
    path = cached_collection(
        dataset, ["dense"], {"dense": model}, progress=progress, cache=Path(".bench/collections")
    )
    snapshot = Collection.open(path).snapshot()
    rows = np.arange(snapshot.n_rows)
    documents = snapshot.store("dense").take(rows)
    assert isinstance(documents, Dense)
    queries = snapshot.encoder("dense").encode_queries([query.text for query in dataset.queries()])
    return queries.values, documents.values.astype(np.float32), snapshot.ids(rows[None, :])[0]


def by_width(
    dataset: BeirDataset, queries: Vectors, documents: Vectors, ids: list[str]
) -> Iterator[tuple[int, float]]:
    """Each width and nDCG@10 of prefixes so wide."""
    names = [query.id for query in dataset.queries()]
    for width in WIDTHS:
        cut = (Dense(unit_rows(vectors[:, :width])) for vectors in (queries, documents))
        hits = top_k(dense_scores(*cut), K)
        run = {
            name: [(ids[row], score) for row, score in zip(rows, scores, strict=True)]
            for name, rows, scores in zip(names, hits.rows.tolist(), hits.scores.tolist(), strict=True)
        }
        yield width, measure(run, dataset.qrels(), [METRIC])[str(METRIC)]


def main() -> None:
    """Print a row for each data set, model and width."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data-dir", default=os.environ.get("TERCET_DATA"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with progress_bars() as progress:
        whitened = start(Path(given.data_dir) / "train", progress)
        axes = whitened / np.linalg.norm(whitened, axis=0)
        for name in DATASETS:
            dataset = open_dataset(name, data_dir=given.data_dir, progress=progress)
            queries, documents, ids = encoded(dataset, "default", progress)
            sides = {
                "cut": (queries, documents, ids),
                "principal axes": (queries @ axes, documents @ axes, ids),
                "whitened": (queries @ whitened, documents @ whitened, ids),
                "trained": encoded(dataset, given.model, progress),
            }
            for kind, vectors in sides.items():
                for width, ndcg in by_width(dataset, *vectors):
                    row = {"data": name, "vectors": kind, "width": width, "nDCG@10": round(ndcg, 4)}
                    print(json.dumps(row) if given.json else "\t".join(map(str, row.values())), flush=True)


if __name__ == "__main__":
    main()
