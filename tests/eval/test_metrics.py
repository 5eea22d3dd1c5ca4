"""Every metric equals trec_eval's, a naive one, and follows the order of the run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metrics import METRICS, measure, parse_metric, parse_metrics, per_query
from retrieval.errors import ConfigError


def naive(name: str, k: int | None, ranking: list[str], judged: dict[str, int]) -> float:
    top = ranking if k is None else ranking[:k]
    relevant = {document for document, judgement in judged.items() if judgement > 0}
    found = [document in relevant for document in top]
    if name == "nDCG":
        ideal = sorted((max(0, value) for value in judged.values()), reverse=True)[: k or None]
        best = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(ideal))
        gained = sum(max(0, judged.get(d, 0)) / math.log2(rank + 2) for rank, d in enumerate(top))
        return gained / best if best else 0.0
    if not relevant:
        return 0.0
    if name == "Recall":
        return sum(found) / len(relevant)
    if name == "MRR":
        return next((1 / (rank + 1) for rank, hit in enumerate(found) if hit), 0.0)
    if name == "MAP":
        return sum(sum(found[: r + 1]) / (r + 1) for r, hit in enumerate(found) if hit) / len(relevant)
    if name == "P":
        return sum(found) / k
    return float(any(found))


DOCUMENTS = [f"d{i}" for i in range(12)]
RANKINGS = st.lists(st.sampled_from(DOCUMENTS), unique=True, max_size=12)
JUDGED = st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(-2, 3), min_size=1)


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=60, deadline=None)
@given(
    rankings=st.lists(RANKINGS, min_size=1, max_size=4),
    judged=st.lists(JUDGED, min_size=1, max_size=4),
    k=st.integers(1, 15),
)
def test_every_metric_equals_a_naive_one(name, rankings, judged, k):
    cutoffs = [k, None] if METRICS[name].whole else [k]
    metrics = [parse_metric(name if cutoff is None else f"{name}@{cutoff}") for cutoff in cutoffs]
    run = {f"q{i}": [(document, 1.0) for document in ranking] for i, ranking in enumerate(rankings)}
    qrels = {f"q{i}": values for i, values in enumerate(judged)}
    scores = per_query(run, qrels, metrics)
    assert list(scores) == list(qrels)
    for query, values in qrels.items():
        ranking = [document for document, _ in run.get(query, [])]
        for metric in metrics:
            assert scores[query][str(metric)] == pytest.approx(naive(name, metric.k, ranking, values))


def test_equals_pytrec_eval_called_directly_when_scores_do_not_tie():
    rng = np.random.default_rng(0)
    documents = [f"doc{i}" for i in range(300)]
    qrels, run = {}, {}
    for query in range(20):
        judged = rng.choice(documents, 15, replace=False)
        qrels[f"q{query}"] = {str(d): int(rng.integers(0, 4)) for d in judged}
        found = rng.choice(documents, 150, replace=False)
        scores = np.sort(rng.random(150))[::-1]
        run[f"q{query}"] = [(str(d), float(s)) for d, s in zip(found, scores, strict=True)]
    wanted = {"nDCG@10": "ndcg_cut_10", "Recall@100": "recall_100", "MAP": "map", "MAP@50": "map_cut_50"}
    wanted |= {"P@7": "P_7", "Success@3": "success_3", "MRR": "recip_rank", "nDCG": "ndcg"}
    requests = {"ndcg_cut.10", "recall.100", "map", "map_cut.50", "P.7", "success.3", "recip_rank", "ndcg"}
    direct = pytrec_eval.RelevanceEvaluator(qrels, requests).evaluate(
        {q: dict(hits) for q, hits in run.items()}
    )
    ours = per_query(run, qrels, parse_metrics(wanted))
    for query in qrels:
        for name, trec in wanted.items():
            assert ours[query][name] == direct[query][trec]


def test_tied_scores_are_measured_in_the_order_of_the_run():
    qrels = {"q": {"a": 1}}
    first = {"q": [("a", 1.0), ("z", 1.0)]}
    last = {"q": [("z", 1.0), ("a", 1.0)]}
    metrics = parse_metrics(["MRR@10"])
    assert measure(first, qrels, metrics) == {"MRR@10": 1.0}
    assert measure(last, qrels, metrics) == {"MRR@10": 0.5}
    resorted = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate({"q": dict(first["q"])})
    assert resorted["q"]["recip_rank"] == 0.5, "trec_eval itself would have put z first"


def test_a_judged_query_without_hits_counts_zero_and_an_unjudged_one_is_ignored():
    qrels = {"hit": {"a": 1}, "none": {"a": 1}, "empty": {"a": 1}, "irrelevant": {"a": 0}}
    run = {"hit": [("a", 1.0)], "empty": [], "irrelevant": [("a", 1.0)], "unjudged": [("a", 1.0)]}
    metrics = parse_metrics(["nDCG@10", "Recall@5", "MRR@10"])
    assert measure(run, qrels, metrics) == {"nDCG@10": 0.25, "Recall@5": 0.25, "MRR@10": 0.25}
    assert per_query(run, qrels, metrics)["empty"]["nDCG@10"] == 0.0


def test_no_run_and_no_qrels_are_ordinary():
    metrics = parse_metrics(["nDCG@10"])
    assert measure({}, {"q": {"a": 1}}, metrics) == {"nDCG@10": 0.0}
    assert measure({"q": [("a", 1.0)]}, {}, metrics) == {"nDCG@10": 0.0}


def test_evaluation_leaves_its_input_alone():
    run = {"q": [("q", 3.0), ("a", 1.0)]}
    qrels = {"q": {"a": -1, "b": 2}}
    measure(run, qrels, parse_metrics(["nDCG@10", "MRR@1"]))
    assert run == {"q": [("q", 3.0), ("a", 1.0)]} and qrels == {"q": {"a": -1, "b": 2}}


def test_a_document_twice_in_one_ranking_is_refused():
    with pytest.raises(ValueError, match="query 'q': document 'a' occurs more than once"):
        measure({"q": [("a", 2.0), ("b", 1.0), ("a", 0.5)]}, {"q": {"a": 1}}, parse_metrics(["P@1"]))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("ndcg@10", "nDCG@10"),
        (" Recall@1000 ", "Recall@1000"),
        ("map", "MAP"),
        ("p@5", "P@5"),
        ("SUCCESS@1", "Success@1"),
    ],
)
def test_names_are_read_as_people_write_them(written, read):
    assert str(parse_metric(written)) == read


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NDGC@10", "unknown metric 'NDGC@10'; valid: nDCG or nDCG@k, Recall@k"),
        ("nDCG@", "unknown metric"),
        ("", "unknown metric"),
        ("Recall", "needs a cutoff, such as Recall@10"),
        ("P@0", "cutoff must be from 1"),
        ("P@99999999999", "cutoff must be from 1"),
    ],
)
def test_a_bad_name_lists_the_valid_ones(name, words):
    with pytest.raises(ConfigError, match=words):
        parse_metric(name)


def test_a_metric_named_twice_is_computed_once():
    assert [str(metric) for metric in parse_metrics(["nDCG@10", "ndcg@10", "MAP"])] == ["nDCG@10", "MAP"]
    with pytest.raises(ConfigError, match="no metric given"):
        parse_metrics([])
