"""Orders of insertion, and the report of what they do to a graph."""

from __future__ import annotations

import numpy as np
import pytest

from indexing.dense.clusters import cluster_rows
from indexing.dense.intrinsic_dimension import local_dimensions
from indexing.dense.scan import largest_norm, scan
from indexing.hnsw.index import BACKENDS, HnswIndex
from indexing.hnsw.insertion_order import ORDERS, insertion_order
from indexing.hnsw.order_report import order_report
from retrieval.compute import set_threads
from retrieval.errors import ConfigError
from retrieval.protocols import SearchRequest
from retrieval.values import Dense


def mixed(n: int, seed: int = 0, dim: int = 24) -> Dense:
    """Unit vectors: half of them of three dimensions, half of all."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, dim))
    values[: n // 2] = rng.standard_normal((n // 2, 3)) @ rng.standard_normal((3, dim))
    values = values[rng.permutation(n)]
    return Dense((values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32))


@pytest.fixture(scope="module")
def vectors() -> Dense:
    return mixed(900)


@pytest.fixture
def one_thread():
    """With several, two builds differ in their links."""
    set_threads(1)
    yield
    set_threads(None)


def exact(vectors: Dense, queries: Dense, k: int) -> np.ndarray:
    return scan(vectors, largest_norm(vectors), queries, k).rows


@pytest.mark.parametrize("name", [name for name in ORDERS if name != "given"])
def test_an_order_holds_every_row_once_and_is_the_same_again(vectors, name):
    order = insertion_order(vectors, name, seed=5)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(len(vectors)))
    assert order.tolist() == insertion_order(vectors, name, seed=5).tolist()


def test_the_given_order_is_none_and_a_seed_draws_another(vectors):
    assert insertion_order(vectors, "given") is None
    first, second = (insertion_order(vectors, "random", seed=seed) for seed in (0, 1))
    assert first.tolist() != second.tolist()


def test_orders_by_dimension_are_sorted_and_equal_rows_stay_in_their_order():
    values = np.concatenate(
        [mixed(300).values, np.zeros((4, 24), dtype=np.float32)]
    )  # duplicates: dimension 0
    vectors = Dense(values)
    local = local_dimensions(vectors)
    down = insertion_order(vectors, "lid-descending")
    up = insertion_order(vectors, "lid-ascending")
    assert (np.diff(local[down]) <= 0).all()
    assert (np.diff(local[up]) >= 0).all()
    alike = np.flatnonzero(local == local[300])
    assert [row for row in down if row in alike] == [row for row in up if row in alike] == alike.tolist()


def test_the_clustered_order_is_one_cluster_after_another(vectors):
    order = insertion_order(vectors, "clustered", seed=2)
    clusters = cluster_rows(vectors, 30, seed=2)
    assert order.tolist() == [row for cluster in range(30) for row in clusters.members(cluster)]


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_rows_have_every_order(name, n):
    order = insertion_order(mixed(n), name)
    assert order is None if name == "given" else sorted(order.tolist()) == list(range(n))


def test_an_order_that_does_not_exist_is_refused(vectors):
    with pytest.raises(ConfigError, match="unknown insertion order 'sorted'; valid: clustered, given"):
        insertion_order(vectors, "sorted")


def test_the_report_has_a_row_for_each_order_and_width(vectors):
    queries = Dense(mixed(60, seed=9).values)
    truth = exact(vectors, queries, 10)
    done: list[int] = []
    found = order_report(
        vectors,
        queries,
        truth,
        efs=(10, 900),
        parameters={"m": 4, "ef_construction": 16},
        progress=done.append,
    )
    assert [(row.order, row.ef) for row in found] == [(name, ef) for name in ORDERS for ef in (10, 900)]
    assert sum(done) == len(ORDERS) * len(vectors)
    assert all(row.k == 10 and row.build_s > 0 and row.order_s >= 0 for row in found)
    narrow = [row.recall for row in found if row.ef == 10]
    assert all(0.1 < recall < 0.999 for recall in narrow) and len(set(narrow)) > 1
    wide = [row.recall for row in found if row.ef == 900]
    assert all(more > less for more, less in zip(wide, narrow, strict=True))


def test_a_graph_over_few_rows_answers_exactly_in_any_order(vectors):
    queries = mixed(30, seed=4)
    found = order_report(vectors[:40], queries, exact(vectors[:40], queries, 3), efs=(40,))
    assert [row.recall for row in found] == [1.0] * len(ORDERS)


def test_recall_is_the_overlap_with_the_exact_rows_under_their_old_numbers(vectors, tmp_path, one_thread):
    queries = mixed(50, seed=3)
    truth = exact(vectors, queries, 10)
    parameters = HnswIndex.parameters({"m": 4, "ef_construction": 16, "ef": 12})
    (row,) = order_report(
        vectors, queries, truth, orders=("random",), efs=(12,), parameters=parameters, seed=7
    )
    order = insertion_order(vectors, "random", seed=7)
    inserted = vectors.take(order)
    HnswIndex.build(inserted, tmp_path, parameters, memory_bytes=10**9, progress=lambda rows: None)
    found = order[HnswIndex.load(tmp_path, inserted, parameters).search(queries, SearchRequest(k=10)).rows]
    shared = [
        len(set(mine) & set(best)) / 10 for mine, best in zip(found.tolist(), truth.tolist(), strict=True)
    ]
    assert row.recall == pytest.approx(np.mean(shared)) and 0.3 < row.recall < 0.99


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_every_backend_is_measured_and_an_order_among_its_parameters_means_nothing(
    vectors, backend, one_thread
):
    queries = mixed(20, seed=3)
    given = {"backend": backend, "m": 8, "ef_construction": 32}
    own = {**given, "order": "lid-ascending"}
    truth = exact(vectors, queries, 5)
    found = [
        [
            row.recall
            for row in order_report(vectors, queries, truth, orders=ORDERS[:2], efs=(10, 80), parameters=one)
        ]
        for one in (given, own)
    ]
    assert found[0] == found[1] and all(recall > 0.5 for recall in found[0])


def test_equal_vectors_are_equal_hits():
    vectors = Dense(np.repeat(np.eye(4, dtype=np.float32), 10, axis=0))
    queries = Dense(np.eye(4, dtype=np.float32))
    truth = exact(vectors, queries, 5)  # the lowest five of ten equal rows; a graph finds any five
    found = order_report(vectors, queries, truth, orders=("random", "clustered"), efs=(40,))
    assert [row.recall for row in found] == [1.0, 1.0]


def test_what_no_recall_can_be_measured_on_is_refused(vectors):
    truth = np.zeros((2, 1), dtype=np.int64)
    for args in (
        (vectors[:0], vectors[:2], truth),
        (vectors, vectors[:3], truth),
        (vectors, vectors[:0], truth[:0]),
    ):
        with pytest.raises(ValueError, match="recall takes vectors, queries and k exact rows"):
            order_report(*args)
    with pytest.raises(ConfigError, match="unknown insertion order"):
        order_report(vectors, vectors[:2], truth, orders=("up",))
    with pytest.raises(ConfigError, match="hnsw"):
        order_report(vectors, vectors[:2], truth, parameters={"links": 3})
