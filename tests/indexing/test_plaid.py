"""The index kind plaid: candidates, final scores, and what it does with the unusual. The contract is in test_kinds."""

import json
from dataclasses import replace

import numpy as np
import pytest

from indexing.builder import add_documents, build_collection
from indexing.chunking import Chunking
from indexing.collection import Collection
from indexing.compaction import compact
from indexing.corpora import open_corpus
from indexing.deleting import delete_documents
from indexing.options import BuildOptions, WriteOptions, representation_options
from indexing.plaid.building import _list_documents
from indexing.plaid.index import PlaidIndex
from indexing.planner import plan
from indexing.verification import verify
from retrieval import compute
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, CorruptError, FormatError, IncompatibleError
from retrieval.exact import maxsim_scores
from retrieval.protocols import SearchRequest
from retrieval.topk import top_k
from retrieval.values import MultiVector

DIM = 32


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def texts(n, seed, longest=12, shortest=0, topics=40):
    """Rows whose tokens are near the centres of a topic of the row's own."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(3).standard_normal((topics, 20, DIM))
    lengths = rng.integers(shortest, longest + 1, n)
    rows = [
        unit(
            centres[rng.integers(topics), rng.integers(0, 20, size)] + 0.6 * rng.standard_normal((size, DIM))
        )
        if size
        else np.empty((0, DIM))
        for size in lengths
    ]
    return joined(rows)


def joined(rows):
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return MultiVector(indptr, np.concatenate(rows).astype(np.float16))


def make(vectors, folder, trained_on=None, memory_bytes=10**8, **given):
    parameters = PlaidIndex.parameters(given)
    shared, built = folder / "shared", folder / "index"
    shared.mkdir(parents=True)
    built.mkdir()
    steps, rows = [], []
    sample = vectors if trained_on is None else trained_on
    PlaidIndex.train(sample, parameters, shared, memory_bytes=memory_bytes, progress=steps.append)
    PlaidIndex.build(
        vectors, built, parameters, memory_bytes=memory_bytes, progress=rows.append, shared=shared
    )
    assert sum(rows) == len(vectors)
    return PlaidIndex.load(built, vectors, parameters, shared=shared)


def truth(index, queries):
    """(Q, N) MaxSim over the decompressed vectors; rows without tokens score 0."""
    decoded = index.documents.decode(np.arange(len(index)))
    return np.where(np.diff(decoded.indptr) > 0, maxsim_scores(queries, decoded), 0)


@pytest.fixture(scope="module")
def vectors():
    return texts(4000, 1)


@pytest.fixture(scope="module")
def index(vectors, tmp_path_factory):
    return make(vectors, tmp_path_factory.mktemp("plaid"), centroids=512)


@pytest.fixture(scope="module")
def queries():
    return texts(30, 2, longest=20, shortest=1)


@pytest.mark.parametrize("k", [1, 10, 200])
def test_scores_are_maxsim_over_the_decompressed_vectors(index, queries, k):
    hits, expected = index.search(queries, SearchRequest(k=k)), truth(index, queries)
    np.testing.assert_allclose(hits.scores, np.take_along_axis(expected, hits.rows, axis=1), atol=1e-3)


def test_every_row_scored_is_exact(index, queries):
    hits = replace(index, ndocs=len(index)).search(queries, SearchRequest(k=50))
    exact = index.exact_search(queries, SearchRequest(k=50))
    expected = top_k(truth(index, queries), 50)
    assert np.array_equal(hits.rows, exact.rows)
    assert np.array_equal(hits.scores, exact.scores)
    np.testing.assert_allclose(hits.scores, expected.scores, atol=1e-5)


@pytest.mark.parametrize(("k", "least"), [(1, 0.97), (10, 0.97), (50, 0.9), (1000, 0.85)])
def test_the_best_rows_are_found(index, queries, k, least):
    hits, exact = (search(queries, SearchRequest(k=k)) for search in (index.search, index.exact_search))
    found = [np.isin(exact.rows[q], hits.rows[q]).mean() for q in range(len(queries))]
    assert np.mean(found) >= least


def test_compressed_scores_order_rows_much_as_exact_ones(index, vectors, queries):
    exact = top_k(maxsim_scores(queries, vectors), 10).rows
    hits = index.search(queries, SearchRequest(k=10)).rows
    assert np.mean([np.isin(exact[q], hits[q]).mean() for q in range(len(queries))]) > 0.85


def test_more_probes_find_no_less(index, queries):
    exact = index.exact_search(queries, SearchRequest(k=10)).rows
    found = []
    for nprobe in (1, 8, 10_000):  # the last is more than there are centroids
        rows = replace(index, nprobe=nprobe, ndocs=1).search(queries, SearchRequest(k=10)).rows
        found.append(np.mean([np.isin(exact[q], rows[q]).mean() for q in range(len(queries))]))
    assert found == sorted(found)
    assert found[-1] > 0.97


def test_lists_hold_each_document_once_for_each_centroid(index, vectors):
    files, rows = index._files, np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))
    for centroid in range(0, 512, 7):
        assert listed(files.starts, files.gaps, centroid) == sorted(
            set(rows[files.codes == centroid].tolist())
        )


def listed(starts, gaps, centroid):
    rows, row, gap, shift = [], -1, 0, 0
    for byte in gaps[starts[centroid] : starts[centroid + 1]].tolist():
        gap |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            row += gap
            rows.append(row)
            gap = shift = 0
    return rows


@pytest.mark.parametrize("memory_bytes", [1, 50_000, 10**8])
def test_wide_gaps_take_several_bytes(tmp_path, memory_bytes):
    n = 60_000
    codes = np.zeros(n, dtype=np.uint16)
    for centroid, rows in enumerate([[], [0], [126, 59_999], [127, 128, 20_000], [5, 21_000]], start=1):
        codes[rows] = centroid
    np.save(tmp_path / "codes.npy", codes)
    rows = [np.flatnonzero(codes == centroid) for centroid in range(6)]
    widths = [
        sum(1 if gap < 128 else 2 if gap < 1 << 14 else 3 for gap in np.diff(line, prepend=-1))
        for line in rows
    ]
    starts = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    _list_documents(np.arange(n + 1), starts, tmp_path, memory_bytes)
    gaps = np.load(tmp_path / "gaps.npy")
    assert [listed(starts, gaps, centroid) for centroid in range(6)] == [line.tolist() for line in rows]


def test_little_memory_builds_the_same_documents(vectors, index, tmp_path):
    part = vectors[:300]
    small = make(part, tmp_path, trained_on=vectors, memory_bytes=2000, centroids=64)
    assert np.array_equal(np.diff(part.indptr), np.diff(small.documents.indptr))
    wide = part.values.astype(np.float32)
    assert (small.documents.decode(np.arange(300)).values * wide).sum(axis=1).mean() > 0.97


# --- filters


@pytest.mark.parametrize("allowed", [[], [17], [5, 900, 3999], range(0, 4000, 40), range(2000, 4000)])
def test_a_filter_leaves_only_allowed_rows_and_finds_the_best_of_them(index, queries, allowed):
    request = SearchRequest(k=10, allowed=Bitmap.from_rows(list(allowed), 4000))
    hits, exact = index.search(queries, request), index.exact_search(queries, request)
    assert np.isin(hits.rows[hits.rows >= 0], list(allowed)).all()
    assert ((hits.rows >= 0).sum(axis=1) == min(10, len(allowed))).all()
    if len(allowed):
        found = [np.isin(exact.rows[q], hits.rows[q]).mean() for q in range(len(queries))]
        assert np.mean(found) >= 0.95


def test_a_filter_that_hides_the_neighbourhood_still_fills_the_list(index, queries):
    narrow = replace(index, nprobe=1, ndocs=1)
    near = np.unique(narrow.search(queries, SearchRequest(k=1500)).rows)
    far = np.setdiff1d(np.arange(4000), near)
    assert len(far) > 200
    hits = narrow.search(queries, SearchRequest(k=5, allowed=Bitmap.from_rows(far, 4000)))
    assert np.isin(hits.rows, far).all()


def test_the_planner_scans_few_rows_and_otherwise_leaves_the_search_as_it_is(index):
    assert plan(index, 40, 4000, 10).action == "exact"
    assert plan(index, 200, 4000, 10).action in ("plain", "widened")
    assert index.with_candidates(900) is index
    assert [index.candidates(k) for k in (1, 10, 100, 1000, 10_000)] == [96, 96, 260, 1506, 11_600]


# --- the unusual


def test_rows_without_tokens_score_nothing_and_are_returned_in_their_place(tmp_path):
    rows = [np.eye(DIM)[:2], np.empty((0, DIM)), -np.eye(DIM)[:1], np.empty((0, DIM)), np.eye(DIM)[2:3]]
    index = make(joined(rows), tmp_path, ndocs=1, nprobe=1)
    hits = index.search(joined([np.eye(DIM)[:1]]), SearchRequest(k=6))
    assert hits.rows[0, [0, 4, 5]].tolist() == [0, 2, -1]
    np.testing.assert_allclose(hits.scores[0, [0, 4]], [1, -1], atol=0.01)
    assert index.search(joined([np.eye(DIM)[:1]]), SearchRequest(k=1)).rows.tolist() == [[0]]
    away = joined([-np.eye(DIM)[2:3]])
    only = SearchRequest(k=2, allowed=Bitmap.from_rows([1, 3, 4], 5))
    assert index.search(away, only).rows.tolist() == [[1, 3]]


def test_a_query_without_tokens_scores_nothing_everywhere(index):
    none = joined([np.empty((0, DIM))])
    hits = index.search(none, SearchRequest(k=4))
    assert (hits.rows.tolist(), hits.scores.tolist()) == ([[0, 1, 2, 3]], [[0, 0, 0, 0]])
    few = SearchRequest(k=3, allowed=Bitmap.from_rows([9, 70], 4000))
    assert index.search(none, few).rows.tolist() == [[9, 70, -1]]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_documents_are_enough(tmp_path, n):
    index = make(texts(n + 1, 5, shortest=1)[:n], tmp_path)
    hits = index.search(texts(3, 6, shortest=1), SearchRequest(k=4))
    assert sorted(hits.rows[0].tolist()) == sorted([*range(n), *[-1] * (4 - n)])


def test_documents_without_any_token_are_enough(tmp_path):
    empty = MultiVector(np.zeros(4, dtype=np.int64), np.empty((0, DIM), dtype=np.float16))
    hits = make(empty, tmp_path / "empty").search(texts(1, 6, shortest=1), SearchRequest(k=4))
    assert hits.rows.tolist() == [[0, 1, 2, -1]]
    later = make(texts(50, 7, shortest=1), tmp_path / "later", trained_on=empty)
    assert (later.search(texts(1, 6, shortest=1), SearchRequest(k=4)).rows >= 0).all()


@pytest.mark.parametrize("n_tokens", [1, 31, 500])
def test_queries_may_have_one_token_or_many(index, n_tokens):
    query = texts(1, 8, longest=n_tokens, shortest=n_tokens)
    hits = index.search(query, SearchRequest(k=20))
    np.testing.assert_allclose(hits.scores[0], truth(index, query)[0, hits.rows[0]], atol=1e-3)


def test_many_equal_scores_are_ordered_by_row(tmp_path):
    one = texts(1, 9, longest=6, shortest=6)
    same = make(one.take(np.zeros(3000, dtype=np.int64)), tmp_path)
    hits = same.search(one, SearchRequest(k=30))
    assert len(set(hits.scores[0].tolist())) == 1
    assert (np.diff(hits.rows[0]) > 0).all()
    everything = same.search(one, SearchRequest(k=3000))
    assert np.array_equal(everything.rows[0], np.arange(3000))


def test_one_thread_or_three_one_query_or_many_answer_the_same(index, queries):
    answers = []
    for threads in (1, 3):
        compute.set_threads(threads)
        try:
            answers.append(index.search(queries, SearchRequest(k=12)))
            answers.append(index.search(queries[4:5], SearchRequest(k=12)))
        finally:
            compute.set_threads(None)
    for batch, single in zip(answers[::2], answers[1::2], strict=True):
        assert np.array_equal(batch.scores, answers[0].scores)
        assert np.array_equal(batch.rows, answers[0].rows)
        assert np.array_equal(single.rows, batch.rows[4:5])
        assert np.array_equal(single.scores, batch.scores[4:5])


def test_search_parameters_are_changed_in_a_view(index):
    wider = replace(index, nprobe=3, ndocs=500)
    assert (index.nprobe, index.ndocs, wider.nprobe, wider.ndocs) == (16, 96, 3, 500)
    assert wider.codec is index.codec


def test_an_explanation_names_the_token_that_each_query_token_took(index, queries):
    query = queries[:1]
    hits = index.search(query, SearchRequest(k=3))
    explained = index.explain(query, hits.rows[0])
    for row, score, whole in zip(hits.rows[0], hits.scores[0], explained, strict=True):
        products = query.values.astype(np.float32) @ index.documents.decode(np.array([row])).values.T
        assert whole.label == "MaxSim"
        assert whole.value == pytest.approx(score, abs=1e-5)
        assert [part.facts["position"] for part in whole.parts] == products.argmax(axis=1).tolist()
        np.testing.assert_allclose([part.value for part in whole.parts], products.max(axis=1), atol=1e-5)


def test_a_collection_keeps_one_codec_for_all_its_segments(tmp_path, tiny_bert):
    words = "cat dog bird fish red green blue fast slow old new river mountain search".split()
    for name, first in (("a", 0), ("b", 30)):
        texts = [" ".join(words[(n * i) % 14] for i in range(1, 9)) for n in range(first + 1, first + 31)]
        lines = [json.dumps({"_id": f"{name}{n}", "text": text}) for n, text in enumerate(texts)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    late = representation_options("late:plaid", str(tiny_bert), {"dim": 16})
    folder = tmp_path / "c"
    build_collection(
        open_corpus(tmp_path / "a.jsonl"), folder, BuildOptions((late,), Chunking.none(), WriteOptions())
    )
    add_documents(open_corpus(tmp_path / "b.jsonl"), folder, WriteOptions())
    delete_documents(folder, ["a3", "b4"])

    def answer():
        snapshot = Collection.open(folder).snapshot()
        hits = snapshot.searcher("late").search(["old red fish"], SearchRequest(k=70))
        found = [document.id for document in snapshot.documents(hits.rows[0][hits.rows[0] >= 0])]
        explained = snapshot.searcher("late").explain("old red fish", hits.rows[0][:3])
        assert [whole.value for whole in explained] == pytest.approx(hits.scores[0, :3].tolist(), rel=1e-5)
        assert {"old", "red", "fish"} <= {part.label for part in explained[0].parts}
        return dict(zip(found, hits.scores[0], strict=False))

    before = answer()
    assert len(before) == 58
    assert not verify(folder).problems
    compact(folder)
    assert answer() == pytest.approx(before, abs=1e-5)


# --- bad input


@pytest.mark.parametrize(
    "given",
    [{"bits": 3}, {"bits": True}, {"nprobe": 0}, {"ndocs": 1.5}, {"centroids": -1}, {"probes": 4}],
    ids=str,
)
def test_impossible_parameters_are_refused(given):
    with pytest.raises(ConfigError, match=f"{next(iter(given))}.*plaid|plaid.*{next(iter(given))}"):
        PlaidIndex.parameters(given)


def test_unusable_queries_are_refused(index, queries):
    with pytest.raises(IncompatibleError, match="width 3, the index 32"):
        index.search(MultiVector(np.array([0, 1]), np.ones((1, 3), np.float32)), SearchRequest())
    for wrong, complaint in ((np.nan, "NaN or inf"), (-np.inf, "NaN or inf"), (1e38, "a number beyond")):
        broken = queries.values.astype(np.float32)
        broken[queries.indptr[2], 5] = wrong
        with pytest.raises(ValueError, match=f"query 2 holds {complaint}"):
            index.search(MultiVector(queries.indptr, broken), SearchRequest())
    with pytest.raises(ValueError, match="bitmap is for 3 rows"):
        index.search(queries, SearchRequest(allowed=Bitmap.full(3)))


def test_vectors_of_another_length_are_refused_when_built(vectors, tmp_path):
    values = vectors.values[: vectors.indptr[50]].copy()
    values[-1] *= 2
    with pytest.raises(FormatError, match="row 49 has length 2"):
        make(MultiVector(vectors.indptr[:51], values), tmp_path, trained_on=vectors)


def test_vectors_of_another_width_than_the_codec_are_refused(vectors, tmp_path):
    narrow = MultiVector(np.array([0, 2]), unit(np.ones((2, 8))).astype(np.float16))
    with pytest.raises(IncompatibleError, match="width 8, the codec 32"):
        make(narrow, tmp_path, trained_on=vectors)


def test_an_index_does_not_open_with_another_codec_or_over_other_files(index, vectors, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    make(vectors[:200], first, centroids=32)
    make(vectors[:200], second, centroids=64)
    parameters = PlaidIndex.parameters({})
    with pytest.raises(CorruptError, match="starts"):
        PlaidIndex.load(first / "index", vectors[:200], parameters, shared=second / "shared")
    (second / "index" / "codes.npy").write_bytes((first / "index" / "starts.npy").read_bytes())
    with pytest.raises(CorruptError, match="codes"):
        PlaidIndex.load(second / "index", vectors[:200], parameters, shared=second / "shared")
    (first / "shared" / "weights.npy").unlink()
    with pytest.raises(CorruptError, match="weights"):
        PlaidIndex.load(first / "index", vectors[:200], parameters, shared=first / "shared")
