"""What is particular to codes of one bit a dimension: the bits, the first pass and its selection."""

from dataclasses import replace

import numpy as np
import pytest

from indexing.binary.codes import LANES, PLANES, blocks, encode, encode_queries, words
from indexing.binary.index import BinaryIndex
from indexing.binary.rotation import Rotation
from indexing.dense.scan import largest_norm, scan
from retrieval import compute
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, CorruptError, IncompatibleError
from retrieval.protocols import SearchRequest
from retrieval.values import Dense

N, DIM = 3000, 70  # a word and a bit, and a block that is not full


def clustered(n, seed, dim=DIM):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((20, dim))
    return (centres[rng.integers(0, 20, n)] + 0.8 * rng.standard_normal((n, dim))).astype(np.float32)


def make(vectors, tmp_path, given=None, trained_on=None):
    parameters = BinaryIndex.parameters(given or {})
    shared, folder = tmp_path / "shared", tmp_path / "index"
    shared.mkdir()
    folder.mkdir()
    steps, rows = [], []
    BinaryIndex.train(
        vectors if trained_on is None else trained_on,
        parameters,
        shared,
        memory_bytes=10**8,
        progress=steps.append,
    )
    BinaryIndex.build(vectors, folder, parameters, memory_bytes=10**8, progress=rows.append, shared=shared)
    assert sum(rows) == len(vectors)
    return BinaryIndex.load(folder, vectors, parameters, shared=shared)


@pytest.fixture(scope="module")
def vectors():
    return Dense(clustered(N, 0))


@pytest.fixture(scope="module")
def index(vectors, tmp_path_factory):
    return make(vectors, tmp_path_factory.mktemp("binary"))


@pytest.fixture(scope="module")
def queries():
    return Dense(clustered(30, 1))


def estimates(index, queries):
    """(Q, N) what the first pass should compute, from its definition."""
    image = (index.vectors.values.astype(np.float64) - index.rotation.mean) @ index.rotation.matrix.astype(
        np.float64
    )
    signs = np.where(image > 0, 1.0, -1.0)
    factors = np.einsum("nd,nd->n", image, image) / np.abs(image).sum(axis=1)
    turned = (queries / np.abs(queries).max(axis=1, keepdims=True)) @ index.rotation.matrix
    steps = np.clip(np.floor((turned / np.abs(turned).max(axis=1, keepdims=True) + 1) * 8), 0, 15)
    return ((2 * steps - 15) @ signs.T) * factors


def test_codes_are_the_signs_of_the_image(vectors, index):
    codes, _ = encode(vectors.values, index.rotation)
    assert codes.shape == (blocks(N), words(DIM), LANES) == (47, 2, 64)
    rows = codes.transpose(0, 2, 1).reshape(-1, words(DIM))
    bits = (rows[:, :, None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)).reshape(len(rows), -1)
    image = (vectors.values.astype(np.float64) - index.rotation.mean) @ index.rotation.matrix.astype(
        np.float64
    )
    assert np.array_equal(bits[:N, :DIM].astype(bool), image > 0)
    assert not bits[:, DIM:].any()
    assert not bits[N:].any()


def test_planes_add_up_to_the_levels_of_the_query(index, queries):
    planes = encode_queries(queries.values, index.rotation)
    bits = (planes[..., None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)).astype(
        int
    )  # (Q, words, PLANES, 64)
    levels = (bits * 2 ** np.arange(PLANES)[:, None]).sum(axis=2).reshape(len(queries), -1)[:, :DIM]
    turned = queries.values @ index.rotation.matrix
    share = turned / np.abs(turned).max(axis=1, keepdims=True)
    assert np.abs((2 * levels - 15) / 16 - share).max() <= 1 / 16 + 1e-5


@pytest.mark.parametrize("count", [1, 10, 333, N])
def test_the_first_pass_keeps_the_best_estimates(index, queries, count):
    expected = estimates(index, queries.values)
    found = index._nearest(queries.values, None, count)
    for query in range(len(queries)):
        assert len(set(found[query].tolist())) == count
        best = np.sort(expected[query])[::-1][:count]
        np.testing.assert_allclose(np.sort(expected[query][found[query]])[::-1], best, rtol=1e-4, atol=1e-4)


def test_without_rotation_and_query_levels_it_is_the_hamming_order(tmp_path):
    """Rows and queries at corners of a cube differ by their Hamming distance alone."""
    rng = np.random.default_rng(2)
    vectors = Dense(np.where(rng.random((500, 64)) < 0.5, 1, -1).astype(np.float32))
    balanced = Dense(np.concatenate([vectors.values, -vectors.values]))  # the mean of the corners is 0
    index = make(vectors, tmp_path, {"rotation": "none"}, trained_on=balanced)
    queries = np.where(rng.random((10, 64)) < 0.5, 1, -1).astype(np.float32)
    distance = (queries[:, None, :] != vectors.values[None, :, :]).sum(axis=2)
    found = index._nearest(queries, None, 40)
    for query in range(10):
        expected = np.lexsort((np.arange(500), distance[query]))[:40]  # ties by ascending row
        assert set(found[query].tolist()) == set(expected.tolist())


def test_recall_of_the_defaults(vectors, index, queries):
    for k in (1, 10, 100):
        hits = index.search(queries, SearchRequest(k=k))
        truth = scan(vectors, index.norm, queries, k)
        found = [
            len(set(a) & set(b)) / k for a, b in zip(hits.rows.tolist(), truth.rows.tolist(), strict=True)
        ]
        assert np.mean(found) >= 0.97


def test_rescoring_every_row_is_exact(vectors, index, queries):
    hits = replace(index, rescored=N).search(queries, SearchRequest(k=20))
    truth = scan(vectors, index.norm, queries, 20)
    assert np.array_equal(hits.rows, truth.rows)
    assert np.array_equal(hits.scores, truth.scores)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.6])
def test_a_filter_costs_no_candidates(index, queries, share):
    mask = np.random.default_rng(3).random(N) < share
    mask[5] = True
    expected = np.where(mask, estimates(index, queries.values), -np.inf)
    count = min(50, N)
    found = index._nearest(queries.values, Bitmap.from_mask(mask), count)
    for query in range(len(queries)):
        rows = found[query][found[query] >= 0]
        assert mask[rows].all()
        assert len(rows) == min(count, mask.sum())
        best = np.sort(expected[query])[::-1][: len(rows)]
        np.testing.assert_allclose(np.sort(expected[query][rows])[::-1], best, rtol=1e-4, atol=1e-4)


def test_whole_clusters_denied(vectors, index, queries):
    scores = queries.values[0] @ vectors.values.T
    allowed = Bitmap.from_rows(np.argsort(scores)[: N // 2], N)
    hits = index.search(queries[:1], SearchRequest(k=10, allowed=allowed))
    truth = scan(vectors, index.norm, queries[:1], 10, allowed)
    assert len(set(hits.rows[0].tolist()) & set(truth.rows[0].tolist())) >= 8


def test_threads_that_share_a_query_find_what_one_does(tmp_path):
    vectors = Dense(clustered(70_000, 4, 16))
    index, query = make(vectors, tmp_path), clustered(1, 5, 16)
    found = []
    for threads in (1, 2, 3):
        compute.set_threads(threads)
        try:
            found.append(np.sort(index._nearest(query, None, 100)))
        finally:
            compute.set_threads(None)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("dim", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("n", [0, 1, 64, 65])
def test_any_width_and_number_of_rows(tmp_path, dim, n):
    vectors, queries = Dense(clustered(n, 6, dim)), Dense(clustered(3, 7, dim))
    hits = make(vectors, tmp_path).search(queries, SearchRequest(k=100))
    assert ((hits.rows >= 0).sum(axis=1) == n).all()


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e15])
def test_lengths_of_rows_and_queries_count(tmp_path, scale):
    values = clustered(1000, 8) * np.float32(scale)
    values *= np.random.default_rng(9).random((1000, 1)).astype(np.float32)
    index, queries = make(Dense(values), tmp_path), Dense(clustered(20, 10) * np.float32(scale))
    hits, truth = index.search(queries, SearchRequest(k=10)), scan(index.vectors, index.norm, queries, 10)
    found = [len(set(a) & set(b)) / 10 for a, b in zip(hits.rows.tolist(), truth.rows.tolist(), strict=True)]
    assert np.mean(found) >= 0.97


@pytest.mark.filterwarnings("error")
def test_zero_vectors_and_zero_queries(tmp_path):
    values = clustered(200, 11)
    values[::3] = 0
    index = make(Dense(values), tmp_path)
    hits = index.search(Dense(np.zeros((2, DIM), np.float32)), SearchRequest(k=5))
    assert (hits.scores == 0).all()
    same = make_same(tmp_path)
    assert same.search(Dense(np.ones((1, 4), np.float32)), SearchRequest(k=3)).rows.tolist() == [[0, 1, 2]]


def make_same(tmp_path):
    """Rows that are all the mean, of which nothing is left to take signs of."""
    (tmp_path / "same").mkdir()
    return make(Dense(np.ones((200, 4), np.float32)), tmp_path / "same")


def test_itq_brings_vectors_closer_to_their_signs(vectors):
    image = [
        (vectors.values - rotation.mean) @ rotation.matrix
        for rotation in (Rotation.learn(vectors, method, memory_bytes=10**8) for method in ("none", "itq"))
    ]
    none, itq = (float(np.abs(values).sum() / np.sqrt((values**2).sum() * values.size)) for values in image)
    assert itq > none
    matrix = Rotation.learn(vectors, "itq", memory_bytes=10**8).matrix
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(DIM), atol=1e-4)


@pytest.mark.parametrize(
    "given", [{"rescored": 0}, {"rescored": True}, {"rescored": 5.0}, {"rotation": "pca"}, {"ef": 1}]
)
def test_impossible_parameters_are_config_errors(given):
    with pytest.raises(ConfigError):
        BinaryIndex.parameters(given)


def test_other_widths_and_damaged_files_are_refused(tmp_path, vectors, index):
    make(vectors, tmp_path)
    shared, folder, parameters = tmp_path / "shared", tmp_path / "index", BinaryIndex.parameters({})
    (tmp_path / "narrow").mkdir()
    with pytest.raises(IncompatibleError, match="width 8"):
        BinaryIndex.build(
            Dense(clustered(5, 0, 8)), tmp_path / "narrow", parameters, memory_bytes=10**8,
            progress=lambda rows: None, shared=shared,
        )  # fmt: skip
    np.save(folder / "factors.npy", np.zeros(3, np.float32))
    with pytest.raises(CorruptError, match=r"factors\.npy: has shape"):
        BinaryIndex.load(folder, vectors, parameters, shared=shared)
    np.save(shared / "mean.npy", np.zeros(3, np.float32))
    with pytest.raises(CorruptError):
        BinaryIndex.load(folder, vectors, parameters, shared=shared)


def test_it_takes_a_bit_a_dimension_and_four_bytes(tmp_path):
    vectors = Dense(clustered(6400, 12, 128))
    index = make(vectors, tmp_path)
    size = sum(file.stat().st_size for file in (tmp_path / "index").iterdir())
    assert size < 6400 * (128 // 8 + 4) + 500
    assert largest_norm(vectors) == index.norm
