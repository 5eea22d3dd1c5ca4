"""Effectiveness of a ranking, computed by trec_eval's code (pytrec_eval).

Three conventions, the same for every metric:

* **Order.** A ``Run`` is ordered, best first, and that order is what is measured. trec_eval itself sorts
  again, by score and then by document id from last to first, which for tied scores measures the spelling of
  ids; here strictly decreasing scores replace the given ones, so that nothing is left to sort.
* **Which queries count.** The mean is over the queries that have judgements. One that has judgements but no
  hits counts 0 (as with ``trec_eval -c``; BEIR's evaluator leaves it out without a word). One whose
  judgements are all 0 counts 0 as well, as in trec_eval and BEIR. A query without judgements is ignored.
* **Gains.** nDCG takes the judgement itself as gain over log2(rank + 1), as trec_eval and BEIR do, rather
  than 2^rel - 1. For the other metrics a document is relevant when its judgement is at least 1; negative
  judgements (some TREC tracks mark spam so) count as 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.errors import ConfigError
from retrieval.values import Run

Qrels = Mapping[str, Mapping[str, int]]
"""Query id -> document id -> judgement."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One family of metrics.

    Attributes:
        at_k: trec_eval's measure that takes a cutoff; "" when the run itself is cut and ``whole`` is used.
        whole: trec_eval's measure over the whole ranking; "" when a cutoff is required.
        meaning: one line for people.
    """

    at_k: str
    whole: str
    meaning: str


METRICS: dict[str, Measure] = {
    "nDCG": Measure("ndcg_cut", "ndcg", "discounted gain over that of the ideal ranking, linear gains"),
    "Recall": Measure("recall", "", "share of the relevant documents among the first k"),
    "MRR": Measure("", "recip_rank", "1 / rank of the first relevant document, 0 when it is beyond k"),
    "MAP": Measure("map_cut", "map", "mean of the precision at each relevant document"),
    "P": Measure("P", "", "share of the first k that is relevant"),
    "Success": Measure("success", "", "1 when any of the first k is relevant"),
}

DEFAULT_METRICS = ("nDCG@10", "Recall@100", "MRR@10")

_NAME = re.compile(r"(?P<family>[A-Za-z]+)(?:@(?P<k>[0-9]+))?")


@dataclass(frozen=True, slots=True)
class Metric:
    """A parsed metric such as nDCG@10.

    Attributes:
        family: a key of METRICS.
        k: the cutoff, or None for the whole ranking.
    """

    family: str
    k: int | None

    def __str__(self) -> str:
        return self.family if self.k is None else f"{self.family}@{self.k}"

    @property
    def trec_request(self) -> str:
        """What pytrec_eval is asked for."""
        measure = METRICS[self.family]
        return measure.whole if self.k is None or not measure.at_k else f"{measure.at_k}.{self.k}"

    @property
    def trec_name(self) -> str:
        """The key under which pytrec_eval answers."""
        return self.trec_request.replace(".", "_")

    @property
    def run_cut(self) -> int | None:
        """How far the run is cut beforehand, for measures that know no cutoff of their own."""
        return None if METRICS[self.family].at_k else self.k


def parse_metric(name: str) -> Metric:
    """Read a metric as people write it: ``nDCG@10``, ``recall@100``, ``MAP``; letter case does not matter.

    Raises:
        ConfigError: an unknown name, a missing or a zero cutoff; lists what is valid.
    """
    match = _NAME.fullmatch(name.strip())
    families = {family.lower(): family for family in METRICS}
    if match is None or match["family"].lower() not in families:
        raise ConfigError(f"unknown metric {name!r}; valid: {valid_metrics()}")
    family = families[match["family"].lower()]
    if match["k"] is None:
        if not METRICS[family].whole:
            raise ConfigError(f"metric {name!r} needs a cutoff, such as {family}@10")
        return Metric(family, None)
    k = int(match["k"])
    if not 1 <= k <= 1_000_000:
        raise ConfigError(f"metric {name!r}: the cutoff must be from 1 to 1000000")
    return Metric(family, k)


def parse_metrics(names: Iterable[str]) -> tuple[Metric, ...]:
    """Read several metrics, each once, in the order given (ConfigError on the first bad one)."""
    metrics = tuple(dict.fromkeys(parse_metric(name) for name in names))
    if not metrics:
        raise ConfigError(f"no metric given; valid: {valid_metrics()}")
    return metrics


def valid_metrics() -> str:
    """The names for an error message or a help text."""
    return ", ".join(
        f"{name} or {name}@k" if measure.whole else f"{name}@k" for name, measure in METRICS.items()
    )


def per_query(run: Run, qrels: Qrels, metrics: Sequence[Metric]) -> dict[str, dict[str, float]]:
    """Every metric of every judged query.

    Args:
        run: query id -> (document id, score), best first; a document occurs once a query.
        qrels: query id -> document id -> judgement.
        metrics: what to compute.

    Returns:
        Query id -> metric name -> value, in the order of the qrels; 0 where a query has no hits.

    Raises:
        ValueError: a document occurs twice in one ranking.
    """
    scores: dict[str, dict[str, float]] = {query: {str(metric): 0.0 for metric in metrics} for query in qrels}
    judgements = {
        query: {document: max(0, int(judgement)) for document, judgement in judged.items()}
        for query, judged in qrels.items()
    }
    for cut in dict.fromkeys(metric.run_cut for metric in metrics):
        wanted = [metric for metric in metrics if metric.run_cut == cut]
        for query, values in _trec_eval(_ranks(run, qrels, cut), judgements, wanted).items():
            for metric in wanted:
                scores[query][str(metric)] = float(values[metric.trec_name])
    return scores


def mean(per_query_scores: Mapping[str, Mapping[str, float]], metrics: Sequence[Metric]) -> dict[str, float]:
    """The mean of each metric over the queries (0 when there are none)."""
    return {
        str(metric): float(np.mean([values[str(metric)] for values in per_query_scores.values()] or [0.0]))
        for metric in metrics
    }


def measure(run: Run, qrels: Qrels, metrics: Sequence[Metric]) -> dict[str, float]:
    """The mean of each metric over the judged queries: a pure function of (run, qrels, metrics)."""
    return mean(per_query(run, qrels, metrics), metrics)


def _ranks(run: Run, qrels: Qrels, cut: int | None) -> dict[str, dict[str, float]]:
    """The run as pytrec_eval takes it, each score being the number of hits from there to the end."""
    ranked = {}
    for query, hits in run.items():
        if query not in qrels or not hits:
            continue
        kept = hits if cut is None else hits[:cut]
        ranked[query] = {document: float(len(kept) - rank) for rank, (document, _) in enumerate(kept)}
        if len(ranked[query]) != len(kept):
            twice = next(document for document in ranked[query] if [d for d, _ in kept].count(document) > 1)
            raise ValueError(f"query {query!r}: document {twice!r} occurs more than once in its ranking")
    return ranked


def _trec_eval(
    run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]], metrics: Sequence[Metric]
) -> dict[str, dict[str, float]]:
    import pytrec_eval

    if not run:
        return {}
    return pytrec_eval.RelevanceEvaluator(qrels, {metric.trec_request for metric in metrics}).evaluate(run)
