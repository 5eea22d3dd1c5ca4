"""Product-quantised encodings: codebooks and the scan beside FAISS's, tables and sums beside plain arithmetic."""

from __future__ import annotations

import json

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.assembly import index_spec
from indexing.builder import add_documents, build_collection
from indexing.collection import Collection
from indexing.compaction import compact
from indexing.corpora import open_corpus
from indexing.deleting import delete_documents
from indexing.fde import code_kernels, table_lookup
from indexing.fde.code_scan import CodeScan
from indexing.fde.codebooks import CENTROIDS, Codebooks
from indexing.fde.index import FdeIndex
from indexing.fde.table_lookup import BLOCK
from indexing.options import BuildOptions, RepresentationOptions, WriteOptions
from indexing.verification import verify
from retrieval import compute
from retrieval.bitmap import Bitmap
from retrieval.errors import FormatError
from retrieval.exact import maxsim_scores
from retrieval.protocols import SearchRequest
from retrieval.values import Dense, MultiVector

WORDS = "red green blue cat dog bird fish river mountain search engine".split()


def encodings(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Vectors with some structure, and whole groups of zeros here and there as encodings of short texts have."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, 6)) @ rng.standard_normal((6, dim)) + 0.3 * rng.standard_normal((n, dim))
    values[:, : dim // 4] *= rng.random((n, 1)) < 0.7
    return values.astype(np.float32)


def decoded(books: Codebooks, codes: np.ndarray) -> np.ndarray:
    """(n, dim) what codes stand for."""
    parts = [group[:, codes[:, number]].T for number, group in enumerate(books.centroids)]
    return np.concatenate(parts, axis=1)[:, : books.dim]


def scanned(values: np.ndarray, folder, parts: int = 1) -> CodeScan:
    folder.mkdir()
    CodeScan.build(np.array_split(values, parts), values, folder)
    return CodeScan.load(folder, values.shape)


# --- codebooks -------------------------------------------------------------------------------------


def test_centroids_are_those_of_faiss():
    sample = encodings(600, 560)  # more than one slab
    quantizer = faiss.ProductQuantizer(560, 70, 8)
    quantizer.cp.niter, quantizer.cp.min_points_per_centroid = 6, 1
    quantizer.train(sample)
    expected = faiss.vector_to_array(quantizer.centroids).reshape(70, 256, 8)
    np.testing.assert_array_equal(Codebooks.train(sample).centroids.transpose(0, 2, 1), expected)


def test_a_repeated_sample_trains_as_well():
    sample = encodings(3000, 16)  # repeated up to where FAISS is fast
    once = faiss.ProductQuantizer(16, 2, 8)
    once.cp.niter, once.cp.min_points_per_centroid = 6, 1
    once.train(sample)
    books = Codebooks.train(sample)
    lost = np.square(decoded(books, books.coder()(sample)) - sample).sum()
    assert lost < 1.03 * np.square(once.decode(once.compute_codes(sample)) - sample).sum()


def test_the_number_of_threads_changes_no_centroid():
    sample, made = encodings(500, 600), []
    for threads in (1, 2):
        compute.set_threads(threads)
        try:
            made.append(Codebooks.train(sample).centroids)
        finally:
            compute.set_threads(None)
    assert np.array_equal(*made)


@pytest.mark.parametrize("dim", [40, 37])
def test_a_code_names_the_nearest_centroid(dim):
    values = encodings(400, dim)
    books = Codebooks.train(values[:300])
    codes = books.coder()(values)
    assert codes.shape == (400, 5) and codes.dtype == np.uint8
    padded = np.pad(values, ((0, 0), (0, 40 - dim))).reshape(400, 5, 8, 1)
    distances = np.square(padded - books.centroids).sum(axis=2)  # (400, 5, 256)
    taken = np.take_along_axis(distances, codes[:, :, None].astype(np.int64), axis=2)[:, :, 0]
    np.testing.assert_allclose(taken, distances.min(axis=2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 100, 255, 256])
def test_no_more_texts_than_centroids_are_kept_as_they_are(n):
    values = encodings(n, 20)
    books = Codebooks.train(values)
    assert books.centroids.shape == (3, 8, n)
    np.testing.assert_array_equal(decoded(books, books.coder()(values)), values)


def test_codebooks_are_read_back(tmp_path):
    books = Codebooks.train(encodings(300, 20))
    books.save(tmp_path)
    assert np.array_equal(Codebooks.load(tmp_path, (300, 20)).centroids, books.centroids)


def test_what_is_no_number_is_refused():
    values = encodings(300, 16)
    values[200, 3] = np.nan
    with pytest.raises(FormatError, match="NaN or infinity"):
        Codebooks.train(values)


# --- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "dim"), [(300, 40), (300, 37), (9, 16)])
def test_tables_hold_products_to_half_a_step(n, dim):
    books = Codebooks.train(encodings(n, dim))
    query = encodings(1, dim, seed=1)[0]
    query[8:16] = 0
    tables, count = books.tables(query), books.centroids.shape[2]
    assert tables.groups.tolist() == [group for group in range(books.groups) if group != 1]
    padded = np.pad(query, (0, 8 * books.groups - dim)).reshape(-1, 8)
    products = np.einsum("md,mdc->mc", padded, books.centroids)[tables.groups]
    entries = tables.entries.reshape(-1, CENTROIDS)[:, :count]
    lows = products.min(axis=1, keepdims=True)
    assert entries.max() == 255
    np.testing.assert_allclose(tables.base, lows.sum(), rtol=1e-5, atol=1e-5)
    assert np.abs(lows + tables.step * entries - products).max() <= 0.501 * tables.step


def test_a_query_of_zeros_has_no_tables():
    tables = Codebooks.train(encodings(300, 16)).tables(np.zeros(16, np.float32))
    assert len(tables.groups) == len(tables.entries) == 0 and tables.base == tables.step == 0


# --- the loops -------------------------------------------------------------------------------------


def by_register(*arguments):
    """The intrinsic, which is called from compiled code alone."""
    from numba import njit

    add = table_lookup.add_entries_by_register

    @njit
    def call(codes, begin, groups, entries, start, stop, sums):
        add(codes, begin, groups, entries, start, stop, sums)

    call(*arguments)


@pytest.mark.parametrize("way", [code_kernels.add_entries_one_by_one, by_register], ids=["plain", "register"])
@pytest.mark.parametrize("largest", [False, True])
def test_entries_are_added_up_by_lane(way, largest):
    if way is by_register and not table_lookup.by_register():
        pytest.skip("this processor has no AVX-512 VBMI")
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 256, (7, 300, BLOCK), dtype=np.uint8)
    groups = np.sort(rng.permutation(300)[:290])
    entries = rng.integers(0, 256, (290, 256), dtype=np.uint8)
    if largest:
        entries[:] = 255  # as much as 16 bits can hold
    sums = np.arange(BLOCK, dtype=np.uint32)
    way(codes.ravel(), 5 * 300 * BLOCK, groups, entries.ravel(), 20, 276, sums)
    expected = np.arange(BLOCK)
    for number in range(20, 276):
        expected = expected + entries[number][codes[5, groups[number]]]
    assert np.array_equal(sums, expected)


# --- the scan --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "dim"), [(300, 2400), (700, 37), (256, 16), (40, 16)])
def test_the_scan_finds_what_faiss_finds(n, dim, tmp_path):
    values, queries = encodings(n, dim), encodings(6, dim, seed=3)
    scan = scanned(values, tmp_path / "scan")
    books, width = scan.codebooks, 8 * scan.codebooks.groups
    theirs = faiss.IndexPQ(width, books.groups, 8, faiss.METRIC_INNER_PRODUCT)
    repeated = books.centroids.transpose(0, 2, 1)[:, np.arange(256) % books.centroids.shape[2]]
    faiss.copy_array_to_vector(np.ascontiguousarray(repeated).ravel(), theirs.pq.centroids)
    theirs.is_trained = True
    theirs.add(np.pad(values, ((0, 0), (0, width - dim))))
    scores, rows = theirs.search(np.pad(queries, ((0, 0), (0, width - dim))), n)
    hits = scan.search(Dense(queries), SearchRequest(k=n))
    for query in range(len(queries)):
        tables = books.tables(queries[query])
        bound = 0.501 * tables.step * len(tables.groups) + 1e-3
        expected = scores[query][np.argsort(rows[query])]
        assert sorted(hits.rows[query].tolist()) == list(range(n))
        assert np.abs(hits.scores[query] - expected[hits.rows[query]]).max() <= bound
        assert len(np.intersect1d(hits.rows[query, : n // 5], rows[query, : n // 5])) >= 0.9 * (n // 5)


@settings(max_examples=25)
@given(st.sets(st.integers(0, 299)), st.integers(1, 320))
def test_a_filter_leaves_the_scores_of_the_rows_it_allows(chosen, k):
    values, queries = encodings(300, 32), Dense(encodings(3, 32, seed=4))
    books = Codebooks.train(values[:100])
    codes = np.zeros((512, books.groups), dtype=np.uint8)
    codes[:300] = books.coder()(values)
    scan = CodeScan(books, np.ascontiguousarray(codes.reshape(2, 256, -1).transpose(0, 2, 1)), 300)
    mask = np.isin(np.arange(300), list(chosen))
    whole = scan.search(queries, SearchRequest(k=300))
    found = scan.search(queries, SearchRequest(k=k, allowed=Bitmap.from_mask(mask)))
    for query in range(3):
        kept = mask[whole.rows[query]]
        wanted = whole.rows[query, kept][:k]
        assert found.rows[query, : len(wanted)].tolist() == wanted.tolist()
        assert np.array_equal(found.scores[query, : len(wanted)], whole.scores[query, kept][:k])
        assert (found.rows[query, len(wanted) :] == -1).all()


@pytest.mark.parametrize("parts", [2, 9, 530])
def test_parts_of_any_size_make_the_same_index(parts, tmp_path):
    values = encodings(530, 24)
    scanned(values, tmp_path / "whole")
    scanned(values, tmp_path / "parts", parts)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes()


# --- the index -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def documents() -> MultiVector:
    rng = np.random.default_rng(5)
    indptr = np.concatenate([[0], np.cumsum(rng.integers(0, 40, 700))]).astype(np.int64)
    centres = rng.standard_normal((40, 32))
    values = centres[rng.integers(0, 40, indptr[-1])] + 0.6 * rng.standard_normal((indptr[-1], 32))
    return MultiVector(indptr, (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16))


def built(documents, folder, storage: str, memory_bytes: int = 10**8) -> FdeIndex:
    parameters, seen = FdeIndex.parameters({"storage": storage, "rescored": 100, "repetitions": 16}), []
    folder.mkdir()
    FdeIndex.build(documents, folder, parameters, memory_bytes=memory_bytes, progress=seen.append)
    assert sum(seen) == len(documents)
    return FdeIndex.load(folder, documents, parameters)


def test_a_byte_for_eight_dimensions_finds_nearly_as_much(documents, tmp_path):
    queries = documents.take(np.flatnonzero(np.diff(documents.indptr) > 8)[:50])
    truth = np.where(np.diff(documents.indptr) > 0, maxsim_scores(queries, documents), 0)
    best, shares = np.argsort(-truth, axis=1, kind="stable")[:, :10], {}
    for storage in ("int8", "pq"):
        hits = built(documents, tmp_path / storage, storage).search(queries, SearchRequest(k=10))
        shares[storage] = np.mean([np.isin(a, b).mean() for a, b in zip(best, hits.rows, strict=True)])
        rows = hits.rows[:, 0]
        np.testing.assert_allclose(hits.scores[:, 0], truth[np.arange(50), rows], rtol=1e-5)
    assert shares["pq"] > shares["int8"] - 0.03 and shares["pq"] > 0.75
    whole = (tmp_path / "int8" / "encodings.npy").stat().st_size
    assert (tmp_path / "pq" / "codes.npy").stat().st_size < 1.1 * whole / 8  # in whole blocks


def test_a_collection_grows_shrinks_and_compacts(tmp_path, tiny_bert):
    def write(name: str, start: int, stop: int):
        lines = [
            json.dumps({"_id": f"d{n}", "title": "", "text": f"{WORDS[n % 7]} {WORDS[n % 11]} {n}"})
            for n in range(start, stop)
        ]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return open_corpus(tmp_path / name)

    def answers():
        found = Collection.open(path).snapshot().searcher("late").search(WORDS[:7], SearchRequest(k=90))
        return [sorted(row for row in line if row >= 0) for line in found.rows.tolist()], found.scores

    path = tmp_path / "c"
    encoder = {"family": "late", "model": str(tiny_bert), "options": {"dim": 8}}
    spec = index_spec("fde", {"storage": "pq", "repetitions": 4, "rescored": 200})
    late = RepresentationOptions("late", encoder, (spec,))
    build_collection(write("a.jsonl", 0, 60), path, BuildOptions(representations=(late,)))
    add_documents(write("b.jsonl", 60, 90), path, WriteOptions())
    delete_documents(path, [f"d{number}" for number in range(0, 90, 7)])
    rows, scores = answers()
    assert all(len(line) == 77 for line in rows)
    compact(path)
    np.testing.assert_allclose(answers()[1], scores, rtol=1e-6)
    assert not verify(path).problems


def test_in_little_memory_fewer_encodings_are_trained_on(documents, tmp_path):
    queries = documents[:20]
    large, small = (
        built(documents, tmp_path / name, "pq", memory) for name, memory in (("large", 10**8), ("small", 1))
    )
    assert not np.array_equal(large.first.codebooks.centroids, small.first.codebooks.centroids)
    request = SearchRequest(k=1)
    assert np.mean(large.search(queries, request).rows == small.search(queries, request).rows) > 0.9
