"""Search by queries' networks: what the contract of index kinds does not say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexing.hypencoder.exhaustive import HypencoderIndex
from indexing.hypencoder.graph import HypencoderGraphIndex
from indexing.planner import plan, planned_search
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, CorruptError, IncompatibleError
from retrieval.protocols import SearchRequest
from retrieval.values import Dense, Hits, QueryNetwork

N, DIM = 6000, 32


def clustered(n: int = N, seed: int = 0) -> Dense:
    """Unit vectors around a hundred centres, which are the same for every seed."""
    rng, centres = np.random.default_rng(seed), np.random.default_rng(99).standard_normal((100, DIM))
    values = centres[rng.integers(0, 100, n)] + 0.6 * rng.standard_normal((n, DIM))
    return Dense((values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32))


def searching(n: int = 50, bend: float = 0.4) -> QueryNetwork:
    """Networks that ask for what is near a vector, bent by a hidden layer."""
    rng = np.random.default_rng(7)
    hidden = (bend * DIM**-0.5 * rng.standard_normal((n, DIM, DIM))).astype(np.float32)
    biases = (0.1 * rng.standard_normal((n, DIM))).astype(np.float32)
    return QueryNetwork((hidden, clustered(n, seed=1).values[:, None]), (biases,), normalised=False)


def built(vectors: Dense, folder: Path, **given: Any) -> HypencoderGraphIndex:
    parameters = HypencoderGraphIndex.parameters(given)
    HypencoderGraphIndex.build(vectors, folder, parameters, memory_bytes=10**9, progress=lambda rows: None)
    return HypencoderGraphIndex.load(folder, vectors, parameters)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> HypencoderGraphIndex:
    return built(clustered(), tmp_path_factory.mktemp("graph"))


def found(hits: Hits, exact: Hits) -> float:
    """The share of the exact hits that there are."""
    pairs = zip(hits.rows.tolist(), exact.rows.tolist(), strict=True)
    return float(np.mean([len(set(one) & set(other)) / len(other) for one, other in pairs]))


def test_a_walk_finds_nearly_all_of_the_best_and_scores_a_tenth(graph: HypencoderGraphIndex):
    queries, request = searching(), SearchRequest(k=10)
    hits, counts = graph.search_counted(queries, request)
    exact = HypencoderIndex(graph.vectors).search(queries, request)
    assert found(hits, exact) >= 0.95
    assert counts.mean() / N <= 0.1


def test_a_walk_that_visits_every_row_is_exact(graph: HypencoderGraphIndex):
    queries = searching(8, bend=5.0)
    exact = HypencoderIndex(graph.vectors)
    narrow = replace(graph, entries=1, ncandidates=N, explored=700, max_iter=1000)
    wide = replace(graph, entries=N, max_iter=0)
    for request in (SearchRequest(k=10), SearchRequest(k=N)):
        expected = exact.search(queries, request)
        for index in (narrow, wide):
            hits, counts = index.search_counted(queries, request)
            assert (counts == N).all()
            assert np.array_equal(hits.rows, expected.rows)
            assert np.array_equal(hits.scores, expected.scores)


def test_rounds_end_where_nothing_improves_or_at_their_number(graph: HypencoderGraphIndex):
    queries, request = searching(5), SearchRequest(k=5)
    _, none = replace(graph, max_iter=0).search_counted(queries, request)
    _, one = replace(graph, max_iter=1).search_counted(queries, request)
    _, usual = graph.search_counted(queries, request)
    _, endless = replace(graph, max_iter=10**6).search_counted(queries, request)
    assert (none == len(graph._entry_rows)).all()
    assert (none < one).all() and (one < usual).all()
    assert np.array_equal(usual, endless)


def test_entries_are_a_200th_of_the_rows_unless_a_number_is_given(graph: HypencoderGraphIndex):
    assert len(set(graph._entry_rows.tolist()) - {graph.start}) in (N // 200, N // 200 - 1)
    chosen = replace(graph, entries=7)._entry_rows
    assert graph.start in chosen and len(chosen) in (7, 8)
    assert np.array_equal(chosen, replace(graph, entries=7)._entry_rows)


def test_a_filter_does_not_count_what_it_denies(graph: HypencoderGraphIndex):
    allowed = Bitmap.from_mask(np.random.default_rng(5).random(N) < 0.3)
    queries, request = searching(), SearchRequest(k=10, allowed=allowed)
    hits = graph.search(queries, request)
    assert allowed.mask()[hits.rows].all()
    assert found(hits, graph.exact_search(queries, request)) >= 0.95


def test_the_planner_scores_the_few_rows_of_a_narrow_filter(graph: HypencoderGraphIndex):
    few = Bitmap.from_rows(np.arange(0, N, 60), N)
    queries, request = searching(6), SearchRequest(k=5, allowed=few)
    assert plan(graph, few.count(), N, 5).action == "exact"
    assert np.array_equal(
        planned_search(graph, queries, request).rows, graph.exact_search(queries, request).rows
    )
    assert plan(graph, N, N, 10).action == "plain"


def test_the_share_of_scored_rows_is_a_fact_of_the_explanation(graph: HypencoderGraphIndex):
    queries = searching(2)
    hits, counts = graph.search_counted(queries[:1], SearchRequest(k=10))
    (explained,) = graph.explain(queries, hits.rows[0, :1])
    assert explained.value == pytest.approx(hits.scores[0, 0])
    assert explained.facts["share of rows scored"] == counts[0] / N
    assert (explained.facts["dim"], explained.facts["hidden layers"]) == (DIM, 1)
    assert explained.facts["numbers"] == DIM * DIM + DIM + DIM
    (plain,) = HypencoderIndex(graph.vectors).explain(queries, hits.rows[0, :1])
    assert plain.value == explained.value and "share of rows scored" not in plain.facts


@pytest.mark.parametrize(("spread", "share"), [(1.0, 0.95), (3.0, 0.85)])
def test_neighbours_are_near_whatever_the_length_of_vectors(tmp_path: Path, spread: float, share: float):
    factors = np.random.default_rng(3).uniform(1, spread, (600, 1)).astype(np.float32)
    values = clustered(600).values * factors
    built(Dense(values), tmp_path)
    links = np.load(tmp_path / "neighbours.npy")
    distances = np.linalg.norm(values[:, None] - values[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(axis=1)
    assert np.mean([near in line for near, line in zip(nearest, links, strict=True)]) > share


def test_networks_for_other_vectors_are_refused(graph: HypencoderGraphIndex):
    narrow = QueryNetwork((np.ones((1, 1, 5), np.float32),), ())
    for index in (graph, HypencoderIndex(graph.vectors)):
        with pytest.raises(IncompatibleError, match="width 5, the index has width 32"):
            index.search(narrow, SearchRequest())
        with pytest.raises(ValueError, match="bitmap is for 3 rows"):
            index.search(searching(1), SearchRequest(allowed=Bitmap.full(3)))
    broken = searching(2)
    broken.biases[0][1] = np.inf
    with pytest.raises(ValueError, match="query 1 holds NaN or infinity"):
        graph.search(broken, SearchRequest())


@pytest.mark.parametrize(
    "given",
    [
        {"neighbours": 7},
        {"neighbours": 2},
        {"entries": 0},
        {"ncandidates": 0},
        {"explored": True},
        {"max_iter": -1},
    ],
)
def test_impossible_parameters_are_refused(given):
    (name,) = given
    with pytest.raises(ConfigError, match=f"parameter {name} is"):
        HypencoderGraphIndex.parameters(given)


def test_a_view_checks_its_parameters_too(graph: HypencoderGraphIndex):
    with pytest.raises(ConfigError, match="ncandidates"):
        replace(graph, ncandidates=0)


def test_a_build_keeps_to_its_memory(tmp_path: Path):
    parameters = HypencoderGraphIndex.parameters({})
    with pytest.raises(ConfigError, match="use the kind hypencoder"):
        HypencoderGraphIndex.build(
            clustered(), tmp_path, parameters, memory_bytes=1000, progress=lambda rows: None
        )


def test_a_changed_graph_is_found_at_the_first_search(tmp_path: Path):
    index = built(clustered(300), tmp_path)
    index.search(searching(1), SearchRequest())
    links = np.load(tmp_path / "neighbours.npy")
    links[0, 0] = (links[0, 0] + 1) % 300
    np.save(tmp_path / "neighbours.npy", links)
    again = HypencoderGraphIndex.load(tmp_path, index.vectors, HypencoderGraphIndex.parameters({}))
    with pytest.raises(CorruptError, match=r"neighbours\.npy.*checksum"):
        again.search(searching(1), SearchRequest())
