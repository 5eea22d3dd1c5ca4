"""The residual codec: against the same thing written slowly, and against exact k-means."""

import numpy as np
import pytest

from indexing.residual.clustering import spherical_kmeans
from indexing.residual.codec import ResidualCodec
from indexing.residual.documents import CompressedDocuments
from indexing.residual.nearest import NearestCentroid, unit_means
from indexing.residual.training import default_centroids, train_codec
from retrieval import compute
from retrieval.errors import CorruptError, FormatError
from retrieval.exact import maxsim_scores
from retrieval.maxsim import pack
from retrieval.values import MultiVector


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def clustered(n, dim, seed, centres=300):
    """Unit vectors around centres of unequal weight, as token vectors are."""
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(7).standard_normal((centres, dim))
    chosen = np.minimum(rng.zipf(1.3, n), centres) - 1
    return unit(middle[chosen] + 0.5 * rng.standard_normal((n, dim))).astype(np.float16)


def documents_of(values, size=7):
    indptr = np.minimum(np.arange(0, len(values) + size, size), len(values)).astype(np.int64)
    return MultiVector(indptr, values)


def trained(vectors, bits=4, centroids=None, memory_bytes=10**8):
    steps = []
    codec = train_codec(
        vectors, bits=bits, centroids=centroids, memory_bytes=memory_bytes, progress=steps.append
    )
    return codec, steps


@pytest.fixture(scope="module")
def vectors():
    return documents_of(clustered(3000, 24, 1))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("dim", [24, 5, 128])
def test_codes_and_decoded_vectors_are_those_of_the_definition(bits, dim):
    vectors = documents_of(clustered(500, dim, 2))
    codec, _ = trained(vectors, bits, 30)
    codes, packed = codec.encode(vectors.values, codec.nearest())
    assert packed.shape == (500, -(-dim * bits // 8))
    assert codes.dtype == np.uint16
    centroids = codec.centroids[codes].astype(np.float32)
    residuals = vectors.values.astype(np.float32) - centroids
    buckets = np.searchsorted(codec.cutoffs, residuals, side="left")
    stored = np.unpackbits(packed, axis=1, bitorder="little")[:, : dim * bits].reshape(500, dim, bits)
    assert np.array_equal((stored * (1 << np.arange(bits))).sum(axis=2), buckets)
    expected = unit(centroids + codec.weights[buckets])
    np.testing.assert_allclose(codec.decode(codes, packed), expected, atol=2e-6)


def test_buckets_hold_equal_shares_and_stand_for_their_medians(vectors):
    codec, _ = trained(vectors, bits=2)
    assert (codec.bits, codec.dim, codec.width) == (2, 24, 6)
    codes, packed = codec.encode(vectors.values, codec.nearest())
    counts = np.bincount(np.unpackbits(packed.ravel()).reshape(-1, 2) @ [2, 1], minlength=4)
    np.testing.assert_allclose(counts / counts.sum(), 0.25, atol=0.05)
    assert (np.diff(np.stack([codec.weights[:-1], codec.cutoffs, codec.weights[1:]]), axis=0) > 0).all()
    assert len(codes) == 3000


def test_more_bits_decode_to_nearer_vectors(vectors):
    wide = vectors.values.astype(np.float32)
    cosines = []
    for bits in (1, 2, 4, 8):
        codec, _ = trained(vectors, bits)
        cosines.append(float((codec.decode(*codec.encode(wide, codec.nearest())) * wide).sum(axis=1).mean()))
    assert cosines == sorted(cosines)
    assert cosines[0] > 0.9
    assert cosines[3] > 0.999


def test_the_nearest_centroid_is_found_nearly_always():
    values = clustered(20_000, 32, 3)
    centroids = unit(values[::5].astype(np.float32))
    assert len(centroids) == 4000  # enough that not all are compared
    nearest = NearestCentroid.over(centroids)
    assert len(nearest.near)
    wide = values.astype(np.float32)
    exact = (wide @ centroids.T).argmax(axis=1)
    lengths = [np.linalg.norm(wide - centroids[codes], axis=1).mean() for codes in (nearest(values), exact)]
    assert lengths[0] <= 1.02 * lengths[1]


def test_residuals_are_as_short_as_those_of_exact_kmeans():
    values = clustered(12_000, 32, 4)
    found = spherical_kmeans(
        values, 2500, iterations=4, rng=np.random.default_rng(5), progress=lambda steps: None
    )
    wide = values.astype(np.float32)
    centroids = wide[np.sort(np.random.default_rng(5).choice(len(values), 2500, replace=False))]
    for _ in range(4):
        codes = (wide @ centroids.T).argmax(axis=1)
        means, empty = unit_means(wide, codes, 2500)
        centroids = np.where(empty[:, None], centroids, means)
    exact = np.linalg.norm(wide - centroids[(wide @ centroids.T).argmax(axis=1)], axis=1).mean()
    assert np.linalg.norm(wide - found[NearestCentroid.over(found)(values)], axis=1).mean() <= 1.02 * exact


def test_training_again_gives_the_same_codec(vectors):
    first, steps = trained(vectors)
    compute.set_threads(2)
    try:
        second, _ = trained(vectors)
    finally:
        compute.set_threads(None)
    assert sum(steps) == 6
    for name in ("centroids", "cutoffs", "weights"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_little_memory_trains_on_fewer_vectors(vectors):
    codec, _ = trained(vectors, centroids=16, memory_bytes=1)
    assert codec.centroids.shape == (16, 24)
    wide = vectors.values.astype(np.float32)
    assert (codec.decode(*codec.encode(wide, codec.nearest())) * wide).sum(axis=1).mean() > 0.8


def test_the_number_of_centroids_follows_the_tokens():
    assert [default_centroids(n) for n in (0, 1, 100, 1_242_251, 600_000_000)] == [1, 1, 100, 16384, 262144]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_tokens_are_enough(n):
    vectors = documents_of(clustered(n, 16, 6).reshape(n, 16))
    codec, _ = trained(vectors)
    assert codec.centroids.shape == (max(1, n), 16)
    more = clustered(50, 16, 8)
    assert np.isfinite(codec.decode(*codec.encode(more, codec.nearest()))).all()
    np.testing.assert_allclose(
        codec.decode(*codec.encode(vectors.values, codec.nearest())), vectors.values, atol=2e-3
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 3.0])
def test_vectors_without_a_direction_or_of_another_length_are_refused(value):
    values = clustered(30, 16, 9)
    values[16] = value
    with pytest.raises(FormatError, match=r"token vector 2 of row 2 has length .*normalise"):
        trained(documents_of(values))


def test_a_codec_is_loaded_as_it_was_saved(vectors, tmp_path):
    codec, _ = trained(vectors)
    codec.save(tmp_path)
    again = ResidualCodec.load(tmp_path)
    for name in ("centroids", "cutoffs", "weights"):
        assert np.array_equal(getattr(codec, name), getattr(again, name))


@pytest.mark.parametrize("name", ["centroids", "cutoffs", "weights"])
def test_damaged_files_are_corrupt(vectors, tmp_path, name):
    trained(vectors)[0].save(tmp_path)
    path = tmp_path / f"{name}.npy"
    array = np.load(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptError, match=name):
        ResidualCodec.load(tmp_path)
    for wrong in (array.astype(np.float64), array * np.nan):
        np.save(path, wrong)
        with pytest.raises(CorruptError, match=name):
            ResidualCodec.load(tmp_path)
    np.save(path, np.concatenate([array, array]))
    if name != "centroids":
        with pytest.raises(CorruptError, match="not of one codec"):
            ResidualCodec.load(tmp_path)
    path.unlink()
    with pytest.raises(CorruptError, match=name):
        ResidualCodec.load(tmp_path)


def test_maxsim_of_documents_is_that_of_their_decoded_vectors(vectors):
    codec, _ = trained(vectors)
    lengths = [0, 1, 3, 2000, 0, 900, 96, 0]  # one longer than what is decompressed at a time
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    documents = CompressedDocuments(codec, indptr, *codec.encode(vectors.values, codec.nearest()))
    rows = np.array([6, 0, 3, 1, 2, 7, 5])
    decoded = documents.decode(rows)
    assert np.array_equal(np.diff(decoded.indptr), np.array(lengths)[rows])
    for n_tokens in (1, 17, 500):
        query = clustered(n_tokens, 24, 10).astype(np.float32)
        oracle = maxsim_scores(MultiVector(np.array([0, n_tokens]), query), decoded)[0]
        expected = np.where(np.isneginf(oracle), 0, oracle)
        np.testing.assert_allclose(documents.maxsim(pack(query), n_tokens, rows), expected, atol=1e-4)
    assert len(documents.maxsim(pack(query), n_tokens, rows[:0])) == 0
