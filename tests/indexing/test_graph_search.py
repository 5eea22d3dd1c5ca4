"""The walk over byte codes: its arithmetic, its recall, filters, and what it refuses."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from indexing.dense.scan import rank_rows, scan
from indexing.hnsw import tercet_graph
from indexing.hnsw.graph.codes import code_scale, code_width, rounded, write_codes
from indexing.hnsw.graph.layout import Graph
from indexing.hnsw.index import HnswIndex
from indexing.planner import planned_search
from retrieval import compute
from retrieval.bitmap import Bitmap
from retrieval.errors import CorruptError
from retrieval.protocols import SearchRequest
from retrieval.values import Dense

N, DIM = 3000, 40


def clustered(n, seed, dim=DIM):
    """Unit vectors around 60 centres, and the centre of each."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((60, dim))
    owner = rng.integers(0, 60, n)
    values = centres[owner] + 0.8 * rng.standard_normal((n, dim))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32), owner


def build(folder, values, **given):
    folder.mkdir(parents=True, exist_ok=True)
    vectors, parameters = Dense(values), HnswIndex.parameters(given)
    HnswIndex.build(vectors, folder, parameters, memory_bytes=10**9, progress=lambda rows: None)
    return HnswIndex.load(folder, vectors, parameters)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return build(tmp_path_factory.mktemp("graph"), clustered(N, 0)[0])


@pytest.fixture(scope="module")
def queries():
    return Dense(clustered(200, 1)[0])


def recall(index, queries, k, allowed=None):
    found = index.search(queries, SearchRequest(k=k, allowed=allowed))
    truth = scan(index.vectors, index.norm, queries, k, allowed)
    shared = [len(set(a) & set(b)) for a, b in zip(found.rows.tolist(), truth.rows.tolist(), strict=True)]
    return np.mean(shared) / min(k, N if allowed is None else allowed.count())


# --- arithmetic ------------------------------------------------------------------------------------


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("width", [64, 384])
def test_products_of_bytes_are_those_of_numpy(monkeypatch, portable, width):
    from numba import njit

    from indexing.hnsw.graph import operations

    if portable:
        monkeypatch.setattr(operations, "BYTE_PAIRS", False)
    product = operations.byte_product
    rng = np.random.default_rng(width)
    codes = rng.integers(-127, 128, (50, width)).astype(np.int8)
    codes[0], codes[1] = 127, -127
    query = rng.integers(-127, 128, width).astype(np.int8)
    query[:9] = -127

    @njit
    def products(codes, query, width):
        return [product(codes, row, query, width) for row in range(len(codes))]

    added = 0 if portable or not operations.BYTE_PAIRS else 128 * int(query.astype(int).sum())
    expected = codes.astype(int) @ query.astype(int) + added
    assert np.asarray(products(codes, query, width)).tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("dim", [1, 7, 8, 45])
def test_scores_are_those_of_the_exact_index_to_the_last_bit(tmp_path, dtype, dim):
    rng = np.random.default_rng(dim)
    values = (100 * rng.standard_normal((300, dim)) ** 3).astype(dtype)
    index = build(tmp_path, values, ef=300)
    queries = rng.standard_normal((20, dim)).astype(np.float32)
    found = index.search(Dense(queries), SearchRequest(k=300))
    expected = rank_rows(index.vectors, queries, np.broadcast_to(np.arange(300), (20, 300)), 300)
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.scores, expected.scores)


def test_codes_are_the_nearest_steps_and_padded(tmp_path):
    values = np.array([[1.0, -0.5, 0.26, 0.0]], dtype=np.float32)
    codes = rounded(values, 1 / 127)
    assert code_width(4) == 64
    assert code_width(65) == 128
    assert codes[0, :4].tolist() == [127, -64, 33, 0]
    assert not codes[0, 4:].any()
    assert rounded(100 * values, 1 / 127)[0, :3].tolist() == [127, -127, 127]
    write_codes(tmp_path / "codes.npy", Dense(values), 1 / 127, lambda rows: None)
    assert np.array_equal(np.load(tmp_path / "codes.npy"), codes)


def test_one_row_out_of_scale_does_not_take_the_precision_of_the_others():
    values = clustered(2000, 0)[0]
    values[5] *= 1000
    assert code_scale(Dense(values)) * 127 > np.quantile(np.abs(values), 0.999)
    many = np.repeat(values, 20, axis=0)
    many[:-1] = clustered(len(many) - 1, 3)[0]
    many[-1] *= 1000
    assert code_scale(Dense(many)) < 2 * np.abs(many[:-1]).max() / 127


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, 1e30])
def test_constant_vectors_have_codes_and_are_found(tmp_path, value):
    values = np.full((10, 5), value, dtype=np.float32)
    assert rounded(values, code_scale(Dense(values)))[:, :5].tolist() == [[127 * (value > 0)] * 5] * 10
    hits = build(tmp_path, values).search(Dense(values[:1]), SearchRequest(k=4))
    assert hits.rows.tolist() == [[0, 1, 2, 3]]


# --- recall ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 10, 100])
def test_a_walk_finds_nearly_all_of_the_best(index, queries, k):
    assert recall(index, queries, k) >= 0.97


def test_more_candidates_find_more(index, queries):
    found = [recall(replace(index, ef=ef), queries, 10) for ef in (10, 40, 200)]
    assert found == sorted(found)
    assert found[-1] >= 0.999


def test_few_rescored_rows_cost_recall_and_a_prefix_is_mended_by_more(index, queries):
    wide = replace(index, ef=200, prefix=20)
    assert recall(replace(wide, rescored=10), queries, 10) < recall(replace(wide, rescored=200), queries, 10)
    assert recall(replace(wide, rescored=200, prefix=DIM + 5), queries, 10) >= 0.999


def test_a_walk_over_the_stored_vectors_needs_no_codes(tmp_path, queries):
    index = build(tmp_path, clustered(N, 0)[0], codes="none")
    assert not (tmp_path / "codes.npy").exists()
    assert recall(index, queries, 10) >= 0.97
    assert recall(replace(index, prefix=30, rescored=64), queries, 10) >= 0.8


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.03, 0.005])
def test_rows_denied_at_random_cost_no_recall(index, queries, share):
    allowed = Bitmap.from_mask(np.random.default_rng(4).random(N) < share)
    assert recall(index, queries, 10, allowed) >= 0.95


@pytest.mark.parametrize("n_clusters", [30, 6, 1])
def test_whole_clusters_denied_cost_no_recall(index, queries, n_clusters):
    allowed = Bitmap.from_mask(clustered(N, 0)[1] < n_clusters)
    assert recall(index, queries, 10, allowed) >= 0.95


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
@pytest.mark.parametrize("near", [True, False])
def test_a_filter_by_nearness_costs_no_recall(index, queries, share, near):
    found = []
    for number in range(15):
        query = queries[number : number + 1]
        order = np.argsort(-(index.vectors.values @ query.values[0]))
        count = int(N * share)
        allowed = Bitmap.from_rows(order[:count] if near else order[-count:], N)
        found.append(recall(index, query, 10, allowed))
    assert np.mean(found) >= 0.95


def test_a_few_deleted_rows_never_come_back(index, queries):
    mask = np.ones(N, dtype=bool)
    mask[index.search(queries, SearchRequest(k=3)).rows.ravel()] = False
    allowed = Bitmap.from_mask(mask)
    hits = index.search(queries, SearchRequest(k=10, allowed=allowed))
    assert mask[hits.rows].all()
    assert recall(index, queries, 10, allowed) >= 0.95


@pytest.fixture
def walked(monkeypatch, index):
    """The index with a walk under every filter, however few rows it allows: 3,000 are compared otherwise."""
    monkeypatch.setattr(tercet_graph, "_COMPARED", 0)
    return index


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.03])
def test_a_walk_steps_over_what_a_random_filter_denies(walked, queries, share):
    allowed = Bitmap.from_mask(np.random.default_rng(5).random(N) < share)
    assert recall(walked, queries, 10, allowed) >= 0.95


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_walk_that_a_filter_leads_astray_is_noticed(walked, queries, share):
    found = []
    for number in range(30):
        query = queries[number : number + 1]
        order = np.argsort(-(walked.vectors.values @ query.values[0]))
        allowed = Bitmap.from_rows(order[-int(N * share) :], N)
        found.append(recall(walked, query, 10, allowed))
    assert np.mean(found) >= 0.95
    assert min(found) >= 0.5


@pytest.mark.parametrize("count", [1, 5, 10, 11])
def test_hits_are_never_fewer_than_there_are_allowed(index, queries, count):
    rows = np.random.default_rng(count).choice(N, count, replace=False)
    request = SearchRequest(k=10, allowed=Bitmap.from_rows(rows, N))
    for search in (index.search, lambda *asked: planned_search(index, *asked)):
        hits = search(queries, request)
        assert ((hits.rows >= 0).sum(axis=1) == min(10, count)).all()
        assert set(hits.rows[hits.rows >= 0].tolist()) <= set(rows.tolist())


# --- one outcome -----------------------------------------------------------------------------------


def test_building_again_gives_the_same_files(tmp_path):
    values = clustered(800, 5)[0]
    for name, threads in (("one", 1), ("two", 2)):
        compute.set_threads(threads)
        try:
            build(tmp_path / name, values)
        finally:
            compute.set_threads(None)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_searches_of_several_indexes_share_a_thread_and_disturb_nobody(tmp_path, index, queries):
    small = build(tmp_path, clustered(300, 6)[0])
    allowed = Bitmap.from_mask(np.random.default_rng(8).random(N) < 0.4)
    asked = [
        (index, SearchRequest(k=10)),
        (small, SearchRequest(k=40)),
        (index, SearchRequest(k=7, allowed=allowed)),
        (replace(index, ef=300), SearchRequest(k=100)),
    ]
    alone = [each.search(queries, request) for each, request in asked]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda one: one[0].search(queries, one[1]), asked * 6))
    for number, hits in enumerate(together):
        assert np.array_equal(hits.rows, alone[number % 4].rows)
        assert np.array_equal(hits.scores, alone[number % 4].scores)


def test_equal_rows_are_all_found_in_their_order(tmp_path):
    values = np.repeat(clustered(20, 9)[0], 30, axis=0)
    index = build(tmp_path, values)
    hits = index.search(Dense(values[::30]), SearchRequest(k=30))
    assert hits.rows.tolist() == np.arange(600).reshape(20, 30).tolist()


def test_zero_vectors_are_rows_like_others(tmp_path):
    values = clustered(200, 10)[0]
    values[50:60] = 0
    index = build(tmp_path, values)
    assert sorted(index.search(Dense(values[:1]), SearchRequest(k=200)).rows[0].tolist()) == list(range(200))
    assert len(set(index.search(Dense(values[50:51]), SearchRequest(k=5)).rows[0].tolist())) == 5


# --- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entry": 3000}, "entry 3000"),
        ({"entry": -1}, "entry -1"),
        ({"top": 30}, "level 30"),
        ({"entry": None}, "where to start"),
        ({"files": {}}, "what the graph's files are"),
        ({"files": 3}, "what the graph's files are"),
    ],
)
def test_facts_that_are_no_graphs_are_corrupt(tmp_path, change, message):
    index = build(tmp_path, clustered(100, 11)[0])
    facts = json.loads((tmp_path / "hnsw.json").read_text()) | change
    (tmp_path / "hnsw.json").write_text(json.dumps(facts))
    with pytest.raises(CorruptError, match=message):
        opened = HnswIndex.load(tmp_path, index.vectors, HnswIndex.parameters({}))
        opened.search(index.vectors[:1], SearchRequest())


@pytest.mark.parametrize("name", ["links", "upper_start", "upper_links"])
@pytest.mark.parametrize("damage", ["missing", "cut", "shape", "dtype"])
def test_arrays_of_another_shape_are_corrupt(tmp_path, name, damage):
    index = build(tmp_path, clustered(100, 11)[0])
    path = tmp_path / f"{name}.npy"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    elif damage == "shape":
        np.save(path, np.zeros((3, 5), dtype=np.int32))
    else:
        np.save(path, np.load(path).astype(np.int64))
    with pytest.raises(CorruptError, match=name):
        Graph.map(tmp_path, 100, 16, 0, 0)
    assert len(index) == 100
