"""MaxSim kernels against the definition, on ragged texts of every size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import compute, maxsim_kernels
from retrieval.errors import IncompatibleError
from retrieval.exact import maxsim_scores
from retrieval.kernels import frozen
from retrieval.maxsim import (
    _largest_error,
    _run,
    best_rows,
    best_tokens,
    nearest_bfloat16,
    pack,
    paired,
    score_rows,
)
from retrieval.topk import top_k
from retrieval.values import MultiVector

needs_bfloat16 = pytest.mark.skipif(not maxsim_kernels.ROUNDED, reason="this CPU has no products of bfloat16")


def texts(lengths, dim, seed=0, dtype=np.float32, scale=1.0) -> MultiVector:
    """Unit vectors, times a scale."""
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.random.default_rng(seed).standard_normal((indptr[-1], dim))
    values *= scale / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
    return MultiVector(indptr, values.astype(dtype))


def definition(queries: MultiVector, documents: MultiVector) -> np.ndarray:
    """The oracle's scores, with 0 for texts without tokens."""
    return np.where(np.diff(documents.indptr) > 0, maxsim_scores(queries, documents), 0)


def all_rows(queries: MultiVector, documents: MultiVector) -> np.ndarray:
    return np.broadcast_to(np.arange(len(documents)), (len(queries), len(documents)))


RAGGED = st.lists(st.integers(0, 40), min_size=1, max_size=12)


@given(RAGGED, RAGGED, st.sampled_from([1, 2, 15, 16, 33, 128]), st.sampled_from([np.float32, np.float16]))
def test_scores_are_those_of_the_definition(asked, held, dim, dtype):
    queries, documents = texts(asked, dim, 1), texts(held, dim, 2, dtype)
    scores = score_rows(documents, queries, all_rows(queries, documents))
    np.testing.assert_allclose(scores, definition(queries, documents), atol=1e-4, rtol=1e-5)


@given(RAGGED, st.sampled_from([1, 7, 64]), st.integers(1, 30), st.sampled_from([0.01, 1.0, 300.0]))
def test_the_best_rows_are_those_of_scoring_everything(asked, dim, k, scale):
    queries = texts(asked, dim, 3)
    documents = texts(np.random.default_rng(4).integers(0, 12, 150), dim, 5, np.float16, scale)
    rows = all_rows(queries, documents)
    hits = best_rows(documents, scale * 1.01, queries, rows[:1], k)
    everything = top_k(score_rows(documents, queries, rows), k)
    assert np.array_equal(hits.rows, everything.rows)
    assert np.array_equal(hits.scores, everything.scores)


@needs_bfloat16
@pytest.mark.parametrize("dim", [2, 19, 128])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_estimates_are_within_the_stated_error(dim, dtype):
    documents = texts(np.random.default_rng(6).integers(1, 60, 300), dim, 7, dtype, 3.0)
    for length in (1, 16, 17, 32, 50):
        query = texts([length], dim, length).values
        rounded = nearest_bfloat16(query)
        lanes = paired(pack(rounded))
        estimates = _run(maxsim_kernels.estimated_maxima, documents, np.arange(300), lanes, length)
        wanted = definition(MultiVector(np.array([0, length]), query), documents)[0]
        error = _largest_error(query, rounded, 3.01)
        assert 0 < np.abs(estimates - wanted).max() <= error < 0.1 * length


@needs_bfloat16
def test_rounding_to_bfloat16_is_torchs():
    import torch

    values = np.random.default_rng(8).standard_normal(4096).astype(np.float32)
    wanted = torch.from_numpy(values).bfloat16().float().numpy()
    assert np.array_equal(nearest_bfloat16(values), wanted)
    line = np.zeros(4096, dtype=np.uint16)
    maxsim_kernels.round_pairs(frozen(values), line)
    assert np.array_equal(line.astype(np.uint32) << 16, wanted.view(np.uint32))


def test_a_score_depends_on_query_and_row_alone():
    queries, documents = texts([5, 40, 16, 0, 1], 48, 9), texts([30, 0, 8, 1, 300, 17], 48, 10, np.float16)
    whole = score_rows(documents, queries, all_rows(queries, documents))
    for query in range(5):
        for row in range(6):
            alone = score_rows(
                documents[row : row + 1], queries[query : query + 1], np.zeros((1, 1), np.int64)
            )
            assert alone[0, 0] == whole[query, row]
    try:
        compute.set_threads(3)
        assert np.array_equal(score_rows(documents, queries, all_rows(queries, documents)), whole)
    finally:
        compute.set_threads(None)


def test_texts_without_tokens_score_zero_even_where_others_score_less():
    documents = MultiVector(np.array([0, 1, 1, 2]), np.array([[-1.0, 0], [1, 0]], dtype=np.float32))
    queries = MultiVector(np.array([0, 1, 1]), np.array([[1.0, 0]], dtype=np.float32))
    hits = best_rows(documents, 1.0, queries, np.arange(3)[None, :], 5)
    assert hits.rows.tolist() == [[2, 1, 0, -1, -1], [0, 1, 2, -1, -1]]
    assert hits.scores[0, :3].tolist() == [1, 0, -1]
    assert hits.scores[1, :3].tolist() == [0, 0, 0]


def test_a_document_token_beyond_a_tile_counts_and_none_is_made_up():
    tokens = -np.ones((19, 3), dtype=np.float32)
    tokens[18] = [5, 0, 0]
    documents = MultiVector(np.array([0, 18, 19]), tokens)
    queries = MultiVector(np.array([0, 1]), np.array([[1.0, 0, 0]], dtype=np.float32))
    assert score_rows(documents, queries, np.array([[0, 1]])).tolist() == [[-1, 5]]


def test_padding_is_skipped_and_k_may_exceed_the_rows():
    queries, documents = texts([4, 4], 8, 11), texts([3] * 6, 8, 12)
    rows = np.array([[5, -1, 2], [-1, -1, -1]])
    scores = score_rows(documents, queries, rows)
    assert (scores[rows < 0] == -np.inf).all() and np.isfinite(scores[rows >= 0]).all()
    hits = best_rows(documents, 1.01, queries, rows, 4)
    assert set(hits.rows[0].tolist()) == {5, 2, -1} and (hits.rows[1] == -1).all()


def test_the_best_tokens_are_what_a_score_is_made_of():
    query, documents = texts([6], 16, 13), texts([9, 0], 16, 14, np.float16)
    positions, products = best_tokens(documents, query, 0)
    every = query.values.astype(np.float64) @ documents.values.astype(np.float64).T
    assert positions.tolist() == every.argmax(axis=1).tolist()
    np.testing.assert_allclose(products.sum(), score_rows(documents, query, np.array([[0]]))[0, 0], rtol=1e-6)
    assert [len(part) for part in best_tokens(documents, query, 1)] == [0, 0]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_products_are_those_of_a_matrix_product(n, m, dim):
    left, right = texts([n], dim, 15, np.float16).values, texts([m], dim, 16).values
    packed = pack(right)
    out = np.empty((n, packed.shape[0] * maxsim_kernels.LANES), dtype=np.float32)
    maxsim_kernels.products(frozen(left), frozen(packed), out)
    np.testing.assert_allclose(out[:, :m], left.astype(np.float64) @ right.T, atol=1e-5)
    assert (out[:, m:] == 0).all()


def test_unusable_queries_are_refused():
    documents, rows = texts([3, 3], 4, 17), np.array([[0, 1]])
    with pytest.raises(IncompatibleError, match="width 5, the index 4"):
        score_rows(documents, texts([2], 5), rows)
    broken = texts([2, 0, 3], 4, 18)
    broken.values[3, 1] = np.nan
    with pytest.raises(ValueError, match="query 2 holds NaN"):
        best_rows(documents, 1.0, broken, rows, 1)
    huge = MultiVector(np.array([0, 3, 6]), documents.values * np.float32(1e30))
    with pytest.raises(ValueError, match="exceed float32"):
        best_rows(huge, 1e30, MultiVector(np.array([0, 2]), huge.values[:2]), rows, 1)
