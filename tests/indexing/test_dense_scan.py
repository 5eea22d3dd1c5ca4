"""The exact scan where it is hard: ties beyond the room for candidates, overflow, chunk borders, odd widths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.dense import scan as dense_scan
from indexing.dense.scan import largest_norm, scan
from retrieval import compute
from retrieval.bitmap import Bitmap
from retrieval.exact import dense_scores
from retrieval.topk import top_k
from retrieval.values import Dense


def expected(vectors, queries, k, allowed=None):
    scores = dense_scores(queries, vectors)
    return top_k(scores if allowed is None else np.where(allowed.mask(), scores, -np.inf), k)


def same(found, truth):
    assert np.array_equal(found.rows, truth.rows)
    assert np.array_equal(found.scores, truth.scores)


@settings(max_examples=40)
@given(
    n=st.integers(1, 300),
    dim=st.integers(1, 20),
    n_queries=st.sampled_from([1, 2, 12, 13, 40]),
    k=st.integers(1, 40),
    share=st.sampled_from([None, 0.05, 0.4, 0.9]),
    half=st.booleans(),
    steps=st.sampled_from([1, 4, 1000]),
    seed=st.integers(0, 99),
)
def test_a_scan_equals_the_oracle_whatever_its_chunks(n, dim, n_queries, k, share, half, steps, seed):
    rng = np.random.default_rng(seed)
    # few distinct values make many exact ties, many make near ties
    vectors = Dense(
        (rng.integers(-steps, steps + 1, (n, dim)) / steps).astype(np.float16 if half else np.float32)
    )
    queries = Dense((rng.integers(-steps, steps + 1, (n_queries, dim)) / steps).astype(np.float32))
    allowed = None if share is None else Bitmap.from_mask(rng.random(n) < share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense_scan, "_ROWS", 37)
        patch.setattr(dense_scan, "_GRAIN", 50)
        patch.setattr(dense_scan, "_QUERIES", 16)
        found = scan(vectors, largest_norm(vectors), queries, k, allowed)
    same(found, expected(vectors, queries, k, allowed))


@pytest.mark.parametrize("n_queries", [1, 20])
@pytest.mark.parametrize("spread", [0.0, 1e-7])
def test_more_near_ties_than_there_is_room_for_are_scored_exactly(n_queries, spread):
    rng = np.random.default_rng(0)
    base = rng.standard_normal((1, 24))
    vectors = Dense((base + spread * rng.standard_normal((5000, 24))).astype(np.float32))
    queries = Dense(np.repeat(base, n_queries, axis=0).astype(np.float32))
    same(scan(vectors, largest_norm(vectors), queries, 10), expected(vectors, queries, 10))


@pytest.mark.parametrize("n_queries", [1, 20])
@pytest.mark.parametrize("size", [1e30, 1e-30, 3e38])
def test_vectors_near_the_ends_of_float32_are_scored_too(n_queries, size):
    rng = np.random.default_rng(1)
    vectors = Dense((size * rng.uniform(-1, 1, (300, 8))).astype(np.float32))
    queries = Dense((1e10 * rng.uniform(-1, 1, (n_queries, 8))).astype(np.float32))
    found = scan(vectors, largest_norm(vectors), queries, 15)
    same(found, expected(vectors, queries, 15))
    assert np.isfinite(found.scores).all()


def test_every_number_of_half_precision_is_read_as_numpy_reads_it():
    from retrieval.kernels import frozen, halves

    bits = np.arange(2**16, dtype=np.uint16)
    numbers = bits.view(np.float16)[np.isfinite(bits.view(np.float16))].reshape(1, -1)
    read = np.empty(numbers.shape, dtype=np.float32)
    halves(frozen(numbers), read)
    assert np.array_equal(read.view(np.uint32), numbers.astype(np.float32).view(np.uint32))


def test_vectors_of_zeros_tie_at_zero():
    vectors = Dense(np.zeros((50, 4), np.float32))
    found = scan(vectors, largest_norm(vectors), Dense(np.ones((1, 4), np.float32)), 3)
    assert found.rows.tolist() == [[0, 1, 2]]
    assert found.scores.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_share_a_scan_without_changing_it(threads):
    rng = np.random.default_rng(2)
    vectors = Dense(rng.standard_normal((20_000, 16)).astype(np.float32))
    compute.set_threads(threads)
    try:
        for n_queries in (1, 5, 30):
            queries = Dense(rng.standard_normal((n_queries, 16)).astype(np.float32))
            same(scan(vectors, largest_norm(vectors), queries, 100), expected(vectors, queries, 100))
    finally:
        compute.set_threads(None)


def test_the_largest_norm_is_read_in_chunks_and_zero_without_rows():
    vectors = Dense(np.array([[3, 4], [0, 1]], dtype=np.float16))
    assert largest_norm(vectors) == 5.0
    assert largest_norm(vectors[:0]) == 0.0
