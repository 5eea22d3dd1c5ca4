"""What the planner chooses, and that its choices keep the recall."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from indexing.dense.flat import FlatIndex
from indexing.dense.scan import scan
from indexing.hnsw.index import HnswIndex
from indexing.planner import plan, planned_search
from retrieval.bitmap import Bitmap
from retrieval.protocols import SearchRequest
from retrieval.values import Dense

DIM, N, CLUSTERS = 64, 12_000, 120


@pytest.fixture(scope="module")
def clustered():
    """Vectors, the cluster of each, and queries, all of unit length."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLUSTERS, DIM))
    owner, asked = rng.integers(0, CLUSTERS, N), rng.integers(0, CLUSTERS, 60)
    values, queries = (centres[of] + 0.7 * rng.standard_normal((len(of), DIM)) for of in (owner, asked))
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (values, queries)]
    return Dense(unit[0].astype(np.float32)), owner, Dense(unit[1].astype(np.float32))


@pytest.fixture(scope="module", params=["faiss", "hnswlib"])
def index(request, clustered, tmp_path_factory):
    parameters = HnswIndex.parameters({"backend": request.param, "ef_construction": 60})
    folder = tmp_path_factory.mktemp("hnsw")
    HnswIndex.build(clustered[0], folder, parameters, memory_bytes=10**9, progress=lambda rows: None)
    return HnswIndex.load(folder, clustered[0], parameters)


def recall(found, truth):
    shared = [
        len(set(a) & set(b) - {-1}) for a, b in zip(found.rows.tolist(), truth.rows.tolist(), strict=True)
    ]
    return sum(shared) / (truth.rows >= 0).sum()


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.2, 0.35, 0.5, 0.9, None])
@pytest.mark.parametrize("shape", ["random", "clusters"])
def test_recall_is_kept_under_every_filter(clustered, index, share, shape):
    vectors, owner, queries = clustered
    allowed = None
    if share is not None:
        rng = np.random.default_rng(5)
        kept = rng.permutation(CLUSTERS)[: max(1, int(share * CLUSTERS))]
        mask = rng.random(N) < share if shape == "random" else np.isin(owner, kept)
        allowed = Bitmap.from_mask(mask)
    found = planned_search(index, queries, SearchRequest(k=10, allowed=allowed))
    truth = scan(vectors, index.norm, queries, 10, allowed)
    assert ((found.rows >= 0) == (truth.rows >= 0)).all()
    assert recall(found, truth) >= 0.95


GRAPH = SimpleNamespace(
    kind="graph",
    exact=False,
    candidates=lambda k: max(64, k),
    scan_equivalent=lambda candidates: 40.0 * candidates,
)


@pytest.mark.parametrize(
    ("n", "allowed", "k", "action", "candidates"),
    [
        (40_000, 40_000, 10, "plain", 64),
        (40_000, 20_000, 10, "plain", 64),
        (40_000, 10_000, 10, "widened", 120),
        (40_000, 4_000, 10, "exact", 0),
        (40_000, 40, 10, "exact", 0),
        (1_000_000, 100_000, 10, "widened", 300),
        (1_000_000, 10_000, 10, "exact", 0),
        (1_000_000, 1_000_000, 1000, "plain", 1000),
        (30_000, 30_000, 1000, "exact", 0),
        (2_000, 2_000, 10, "exact", 0),
    ],
)
def test_the_cheapest_search_that_keeps_recall_is_chosen(n, allowed, k, action, candidates):
    chosen = plan(GRAPH, allowed, n, k)
    assert (chosen.action, chosen.candidates) == (action, candidates)
    assert chosen.reason


def test_reasons_name_the_figures():
    assert "10,000" in plan(GRAPH, 10_000, 1_000_000, 10).reason
    assert "25.0%" in plan(GRAPH, 10_000, 40_000, 10).reason


def test_exact_kinds_are_always_searched_as_they_are():
    assert plan(FlatIndex, 1, 10**6, 10).action == "plain"
    vectors = Dense(np.eye(4, dtype=np.float32))
    found = planned_search(FlatIndex(vectors, 1.0), vectors, SearchRequest(k=1))
    assert found.rows.tolist() == [[0], [1], [2], [3]]


@pytest.mark.parametrize("allowed", [0, 5])
def test_no_rows_and_none_allowed_are_planned_without_a_division_by_zero(allowed):
    assert plan(GRAPH, 0, allowed, 10).action == "plain"


def test_a_scan_instead_of_a_walk_is_logged(clustered, index, caplog):
    vectors, owner, _ = clustered
    far = Bitmap.from_mask(owner >= CLUSTERS // 2)
    near = vectors.take(np.flatnonzero(owner == 0)[:5])
    with caplog.at_level(logging.DEBUG, logger="indexing"):
        found = index.search(near, SearchRequest(k=10, allowed=far))
    assert (found.rows >= 0).all()
    assert "scanning" in caplog.text
