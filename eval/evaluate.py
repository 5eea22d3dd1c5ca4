"""Run the queries of a data set through retrievers and measure what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from eval.beir import BeirDataset
from eval.latency import Latency, time_single_queries
from eval.metrics import DEFAULT_METRICS, Metric, mean, parse_metrics, per_query
from eval.significance import compare
from indexing.progress import Progress, Silent
from retrieval.protocols import Searcher, SearchRequest
from retrieval.values import Query, Run


@dataclass(frozen=True)
class Retriever:
    """Something that answers queries over one corpus, as evaluation sees it.

    Attributes:
        name: what the report calls it.
        searcher: answers texts with hits.
        ids: the document ids of (Q, K) rows, padding left out.
        n_docs: documents it searches.
        index_bytes: bytes on disk that it reads (vectors and indexes).
    """

    name: str
    searcher: Searcher
    ids: Callable[[NDArray[np.int64]], list[list[str]]]
    n_docs: int
    index_bytes: int


@dataclass(frozen=True)
class Conditions:
    """How an evaluation is run; all of it stands in the report.

    Attributes:
        metrics: what is computed.
        k: length of a ranking; raised to the largest cutoff of the metrics.
        depth: candidates that each part of a fused retriever contributes.
        timed_queries: how many queries are sent one at a time for the latency; 0 for none.
        seed: of the choice of those queries and of the significance test.
        batch: queries searched in one call for the metrics.
    """

    metrics: tuple[Metric, ...] = field(default_factory=lambda: parse_metrics(DEFAULT_METRICS))
    k: int = 1000
    depth: int = 1000
    timed_queries: int = 100
    seed: int = 0
    batch: int = 128

    @property
    def run_length(self) -> int:
        """k, or the largest cutoff where that is larger."""
        return max([self.k, *(metric.k or 1 for metric in self.metrics)])


@dataclass(frozen=True)
class Evaluation:
    """What one retriever did on one data set.

    Attributes:
        dataset: its name.
        split: which judgements.
        retriever: the retriever's name.
        metrics: metric -> mean over the judged queries.
        per_query: query id -> metric -> value; empty for the mean of a group.
        run: the rankings that were measured; empty for the mean of a group.
        n_queries: judged queries.
        n_docs: documents searched; None for a run from a file.
        index_bytes: bytes on disk the retriever reads; None for a run from a file.
        latency: of single queries; None when not timed.
        queries_per_second: of the batches the run was made with; None for a run from a file.
        k: length of the rankings.
        depth: candidates each part of a fused retriever contributed; None for a run from a file.
        drop_self: whether each query's own document was taken out of its results.
        n_dropped: queries whose own document was found and taken out.
        n_unanswered: judged queries without any hit; each counts 0.
        p_values: metric -> p of the difference from ``baseline``.
        baseline: the retriever it was compared with; "" for the first.
        parts: data sets a mean is over; 1 for a single one.
        seed: of everything random.
    """

    dataset: str
    split: str
    retriever: str
    metrics: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]
    run: Run
    n_queries: int
    n_docs: int | None
    index_bytes: int | None
    latency: Latency | None
    queries_per_second: float | None
    k: int
    depth: int | None
    drop_self: bool
    n_dropped: int
    n_unanswered: int
    p_values: Mapping[str, float] = field(default_factory=dict)
    baseline: str = ""
    parts: int = 1
    seed: int = 0


def evaluate(
    dataset: BeirDataset,
    retrievers: Sequence[Retriever],
    conditions: Conditions | None = None,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Measure every retriever on one split; each is compared with the first (paired randomisation test).

    Args:
        dataset: queries and judgements; only judged queries are run.
        retrievers: what to measure.
        conditions: how; the defaults where None.
        progress: told of every batch.

    Raises:
        ConfigError, FormatError: the data set has no such split or is damaged.
    """
    conditions = conditions or Conditions()
    progress = progress or Silent()
    queries = dataset.queries()
    found = [_evaluate_one(dataset, queries, retriever, conditions, progress) for retriever in retrievers]
    return with_p_values(found)


def _evaluate_one(
    dataset: BeirDataset,
    queries: Sequence[Query],
    retriever: Retriever,
    conditions: Conditions,
    progress: Progress,
) -> Evaluation:
    progress.start(f"{dataset.name} {retriever.name}", len(queries), "queries")
    if queries:
        retriever.searcher.search([queries[0].text], SearchRequest(k=1, depth=1))  # opens models, compiles
    run, seconds = make_run(retriever, queries, conditions, extra=int(dataset.drop_self), progress=progress)
    latency = time_single_queries(
        retriever.searcher,
        [query.text for query in queries],
        SearchRequest(k=10, depth=conditions.depth),
        conditions.timed_queries,
        conditions.seed,
    )
    measured = evaluate_run(dataset, run, retriever.name, conditions)
    return replace(
        measured,
        n_docs=retriever.n_docs,
        index_bytes=retriever.index_bytes,
        latency=latency,
        queries_per_second=len(queries) / seconds if seconds > 0 else None,
        depth=conditions.depth,
    )


def evaluate_run(
    dataset: BeirDataset, run: Run, name: str, conditions: Conditions | None = None
) -> Evaluation:
    """Measure rankings that exist already, such as those of a TREC run file."""
    conditions = conditions or Conditions()
    qrels = dataset.qrels()
    kept = without_self(run) if dataset.drop_self else run
    kept = {query: list(hits[: conditions.run_length]) for query, hits in kept.items() if query in qrels}
    scores = per_query(kept, qrels, conditions.metrics)
    return Evaluation(
        dataset=dataset.name,
        split=dataset.split,
        retriever=name,
        metrics=mean(scores, conditions.metrics),
        per_query=scores,
        run=kept,
        n_queries=len(qrels),
        n_docs=None,
        index_bytes=None,
        latency=None,
        queries_per_second=None,
        k=conditions.run_length,
        depth=None,
        drop_self=dataset.drop_self,
        n_dropped=sum(any(document == query for document, _ in run.get(query, ())) for query in qrels)
        if dataset.drop_self
        else 0,
        n_unanswered=sum(not kept.get(query) for query in qrels),
        seed=conditions.seed,
    )


def make_run(
    retriever: Retriever,
    queries: Sequence[Query],
    conditions: Conditions,
    extra: int = 0,
    progress: Progress | None = None,
) -> tuple[Run, float]:
    """The ranking of every query, in batches.

    Args:
        retriever: what answers.
        queries: what is asked.
        conditions: run length, depth and batch size.
        extra: further hits to ask for, because that many will be dropped.
        progress: told of every batch.

    Returns:
        The run, and the seconds spent in the searcher.
    """
    request = SearchRequest(k=conditions.run_length + extra, depth=conditions.depth + extra)
    run: dict[str, list[tuple[str, float]]] = {}
    seconds = 0.0
    for start in range(0, len(queries), conditions.batch):
        batch = queries[start : start + conditions.batch]
        started = time.perf_counter()
        hits = retriever.searcher.search([query.text for query in batch], request)
        seconds += time.perf_counter() - started
        for query, ids, scores in zip(
            batch, _ids_of(retriever, hits.rows), hits.scores.tolist(), strict=True
        ):
            run[query.id] = list(zip(ids, scores[: len(ids)], strict=True))  # padding stands at the end
        if progress is not None:
            progress.advance(len(batch))
    return run, seconds


def _ids_of(retriever: Retriever, rows: NDArray[np.int64]) -> list[list[str]]:
    """The ids of each line of (Q, K) rows; every document is looked up once, however many queries found it."""
    found = np.unique(rows[rows >= 0])
    names = np.array(retriever.ids(found[None, :])[0], dtype=object)
    return [names[np.searchsorted(found, line[line >= 0])].tolist() for line in rows]


def without_self(run: Run) -> Run:
    """The run without each query's own document."""
    return {query: [hit for hit in hits if hit[0] != query] for query, hits in run.items()}


def with_p_values(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations of one data set, each but the first compared with the first."""
    if not evaluations:
        return []
    first, *others = evaluations
    compared = [
        replace(
            other, baseline=first.retriever, p_values=compare(first.per_query, other.per_query, first.seed)
        )
        for other in others
    ]
    return [first, *compared]


def group_mean(name: str, evaluations: Sequence[Evaluation]) -> Evaluation:
    """One retriever's scores averaged over the data sets of a group, each counting alike.

    That is how CQADupStack is reported: the mean of twelve scores, not the score of the pooled queries.
    """
    first = evaluations[0]
    metrics = {
        metric: float(np.mean([one.metrics[metric] for one in evaluations])) for metric in first.metrics
    }
    documents = [one.n_docs for one in evaluations if one.n_docs is not None]
    sizes = [one.index_bytes for one in evaluations if one.index_bytes is not None]
    return replace(
        first,
        dataset=name,
        metrics=metrics,
        per_query={},
        run={},
        n_queries=sum(one.n_queries for one in evaluations),
        n_docs=sum(documents) if documents else None,
        index_bytes=sum(sizes) if sizes else None,
        latency=Latency.joined([one.latency for one in evaluations if one.latency is not None]),
        queries_per_second=None,
        n_dropped=sum(one.n_dropped for one in evaluations),
        n_unanswered=sum(one.n_unanswered for one in evaluations),
        p_values={},
        baseline="",
        parts=len(evaluations),
    )
