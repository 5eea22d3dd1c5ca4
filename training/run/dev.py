"""How well a model finds the documents of held-out queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sentence_transformers.base.evaluation import BaseEvaluator

from eval.metrics import Metric, Qrels, measure, parse_metrics
from indexing.progress import Progress
from retrieval.values import Hits, Run
from training.examples.training_set import TrainingSet
from training.families.family import Family

METRICS = ("nDCG@10", "MRR@10", "Recall@100")
"""What is measured in any case."""

_DEPTH = 100  # documents of a ranking, at least


class Dev(BaseEvaluator):  # type: ignore[misc]
    """Measures a model on one set by exact search over all its documents.

    Attributes:
        family: of the model.
        data: held-out queries and the documents they are searched in.
        metrics: what is measured.
        progress: hears of every text.
    """

    def __init__(self, family: Family, data: TrainingSet, metric: str, progress: Progress) -> None:
        """Prepare to measure ``METRICS`` and one more.

        Raises:
            ConfigError: there is no such metric.
        """
        super().__init__()
        self.family = family
        self.data = data
        self.metrics: Sequence[Metric] = parse_metrics(dict.fromkeys((metric, *METRICS)))
        self.progress = progress

    def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        """The metrics by name, then figures of the vectors."""
        queries, documents = self.data.queries["text"].to_list(), self.data.documents["text"].to_list()
        self.progress.start("measuring", len(queries) + len(documents), "texts")
        depth = max(_DEPTH, *(metric.k or 0 for metric in self.metrics))
        hits, figures = self.family.search(
            model, queries, documents, min(depth, len(documents)), self.progress
        )
        return measure(run_of(hits, self.data), qrels_of(self.data), self.metrics) | figures


def run_of(hits: Hits, data: TrainingSet) -> Run:
    """The hits of a set's queries by id."""
    queries, documents = data.queries["id"].to_list(), data.documents["id"].to_list()
    return {
        query: [(documents[row], score) for row, score in zip(rows, scores, strict=True) if row >= 0]
        for query, rows, scores in zip(queries, hits.rows.tolist(), hits.scores.tolist(), strict=True)
    }


def qrels_of(data: TrainingSet) -> Qrels:
    """The judgements of a set by id, as whole numbers; what answers at all has at least 1."""
    queries, documents = data.queries["id"].to_list(), data.documents["id"].to_list()
    return {
        queries[query]: {
            documents[row]: max(1, round(label)) if label > 0 else 0
            for row, label in zip(rows, labels, strict=True)
        }
        for query, rows, labels, _ in data.lists.iter_rows()
    }
