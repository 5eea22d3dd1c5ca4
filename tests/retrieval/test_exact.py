"""The oracles against loops over Python numbers."""

import math

import numpy as np
import pytest

from retrieval.exact import dense_scores, maxsim_scores, sparse_scores
from retrieval.values import Dense, MultiVector, Sparse

LARGEST = float(np.finfo(np.float32).max)


def ragged(rng, counts, dim, dtype=np.float32):
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return MultiVector(indptr, rng.standard_normal((sum(counts), dim)).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_dense_scores_are_exactly_rounded_inner_products(dtype):
    rng = np.random.default_rng(0)
    queries = Dense(rng.standard_normal((3, 11)).astype(np.float32))
    documents = Dense(rng.standard_normal((5, 11)).astype(dtype))
    scores = dense_scores(queries, documents)
    assert (scores.dtype, scores.shape) == (np.float32, (3, 5))
    for q in range(3):
        for n in range(5):
            products = zip(queries.values[q].tolist(), documents.values[n].tolist(), strict=True)
            assert scores[q, n] == np.float32(math.fsum(a * b for a, b in products))


def test_dense_scores_beyond_float32_stop_at_its_largest_number():
    big = Dense(np.array([[3e38, 3e38]], dtype=np.float32))
    assert dense_scores(big, Dense(np.concatenate([big.values, -big.values]))).tolist() == [
        [LARGEST, -LARGEST]
    ]


def test_sparse_scores_equal_dense_ones():
    rng = np.random.default_rng(1)
    full = [rng.standard_normal((n, 9)) * (rng.random((n, 9)) < 0.4) for n in (4, 6)]
    made = []
    for matrix in (part.astype(np.float32) for part in full):
        rows, indices = np.nonzero(matrix)
        indptr = np.searchsorted(rows, np.arange(len(matrix) + 1)).astype(np.int64)
        made.append(Sparse(indptr, indices.astype(np.int32), matrix[rows, indices], 9))
    expected = full[0].astype(np.float32).astype(np.float64) @ full[1].astype(np.float32).astype(np.float64).T
    np.testing.assert_allclose(sparse_scores(*made), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_maxsim_sums_the_best_document_token_of_every_query_token(dtype):
    rng = np.random.default_rng(2)
    queries, documents = ragged(rng, [2, 3], 4), ragged(rng, [1, 4, 2], 4, dtype)
    scores = maxsim_scores(queries, documents)
    for q in range(2):
        for n in range(3):
            total = 0.0
            for i in range(queries.indptr[q], queries.indptr[q + 1]):
                total += max(
                    math.fsum(
                        a * b
                        for a, b in zip(queries.values[i].tolist(), documents.values[j].tolist(), strict=True)
                    )
                    for j in range(documents.indptr[n], documents.indptr[n + 1])
                )
            assert scores[q, n] == pytest.approx(total, rel=1e-6)


def test_maxsim_of_negative_similarities_is_negative_because_nothing_is_padded():
    query, documents = np.ones((1, 2), np.float32), -np.ones((3, 2), np.float32)
    scores = maxsim_scores(MultiVector(np.array([0, 1]), query), MultiVector(np.array([0, 1, 3]), documents))
    assert scores.tolist() == [[-2.0, -2.0]]


def test_maxsim_of_empty_texts():
    rng = np.random.default_rng(3)
    queries, documents = ragged(rng, [0, 2], 4), ragged(rng, [0, 3], 4)
    scores = maxsim_scores(queries, documents)
    assert scores[:, 0].tolist() == [-np.inf, -np.inf]  # a document without tokens is never returned
    assert scores[0, 1] == 0.0


def test_empty_sides_give_empty_matrices():
    nothing = Dense(np.empty((0, 3), np.float32))
    assert dense_scores(nothing, Dense(np.ones((2, 3), np.float32))).shape == (0, 2)
    assert dense_scores(Dense(np.ones((2, 3), np.float32)), nothing).shape == (2, 0)


def test_widths_that_differ_are_an_error():
    with pytest.raises(ValueError, match="width 3, documents 4"):
        dense_scores(Dense(np.ones((1, 3), np.float32)), Dense(np.ones((1, 4), np.float32)))
    empty = np.array([0], dtype=np.int64)
    with pytest.raises(ValueError, match="width"):
        maxsim_scores(
            MultiVector(empty, np.ones((0, 3), np.float32)), MultiVector(empty, np.ones((0, 4), np.float32))
        )
    none = (np.empty(0, np.int32), np.empty(0, np.float32))
    with pytest.raises(ValueError, match="width"):
        sparse_scores(Sparse(empty, *none, 3), Sparse(empty, *none, 4))
