"""Sparse MaxSim against its definition, with empty texts, empty tokens, negative weights and padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import compute
from retrieval.exact import maxsim_scores, sparse_maxsim_scores
from retrieval.sparse_maxsim import sparse_maxsim
from retrieval.values import MultiSparse, MultiVector, Sparse

DIM = 9
WEIGHTS = st.floats(-4, 4, width=16)


def multisparse(texts: list[list[dict[int, float]]], dim: int = DIM) -> MultiSparse:
    tokens = [token for text in texts for token in text]
    indices = np.array([term for token in tokens for term in sorted(token)], dtype=np.int32)
    values = np.array([token[term] for token in tokens for term in sorted(token)], dtype=np.float32)
    starts = [np.cumsum([0] + [len(part) for part in parts]).astype(np.int64) for parts in (texts, tokens)]
    return MultiSparse(starts[0], Sparse(starts[1], indices, values, dim))


def texts(most: int) -> st.SearchStrategy[list[list[dict[int, float]]]]:
    token = st.dictionaries(st.integers(0, DIM - 1), WEIGHTS, max_size=5)
    return st.lists(st.lists(token, max_size=4), min_size=1, max_size=most)


def by_hand(query: list[dict[int, float]], document: list[dict[int, float]]) -> float:
    """The definition in plain Python."""
    if not document:
        return 0.0
    products = [
        [sum(weight * held.get(term, 0.0) for term, weight in asked.items()) for held in document]
        for asked in query
    ]
    return sum(max(line) for line in products)


def every_row(queries: MultiSparse, documents: MultiSparse) -> np.ndarray:
    return np.broadcast_to(np.arange(len(documents)), (len(queries), len(documents)))


@given(texts(4), texts(6))
def test_scores_are_those_of_the_definition(asked, held):
    queries, documents = multisparse(asked), multisparse(held)
    want = np.array([[by_hand(query, document) for document in held] for query in asked])
    np.testing.assert_allclose(sparse_maxsim_scores(queries, documents), want, rtol=1e-6, atol=1e-6)
    got = sparse_maxsim(queries, documents, every_row(queries, documents))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_the_oracle_agrees_with_dense_maxsim_over_the_same_vectors():
    rng = np.random.default_rng(1)
    dense = rng.standard_normal((12, DIM)).astype(np.float32) * (rng.random((12, DIM)) < 0.4)
    indptr = np.array([0, 3, 4, 12], dtype=np.int64)
    rows, terms = np.nonzero(dense)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=12))])
    tokens = Sparse(starts, terms.astype(np.int32), dense[rows, terms].astype(np.float32), DIM)
    sparse, full = MultiSparse(indptr, tokens), MultiVector(indptr, dense.astype(np.float32))
    np.testing.assert_allclose(sparse_maxsim_scores(sparse, sparse), maxsim_scores(full, full), rtol=1e-6)


def random_texts(n: int, seed: int) -> MultiSparse:
    rng = np.random.default_rng(seed)
    return multisparse(
        [
            [
                dict(zip(rng.integers(0, DIM, 5).tolist(), rng.random(5).tolist(), strict=True))
                for _ in range(rng.integers(0, 6))
            ]
            for _ in range(n)
        ]
    )


def test_scores_do_not_depend_on_batch_place_or_threads():
    queries, documents = random_texts(7, 1), random_texts(300, 2)
    whole = sparse_maxsim(queries, documents, every_row(queries, documents))
    backwards = np.ascontiguousarray(every_row(queries, documents)[:, ::-1])
    assert np.array_equal(sparse_maxsim(queries, documents, backwards)[:, ::-1], whole)
    for threads in (1, 3):
        compute.set_threads(threads)
        try:
            for query in range(len(queries)):
                alone = sparse_maxsim(queries[query : query + 1], documents, np.arange(300)[None])
                assert np.array_equal(alone[0], whole[query])
            assert np.array_equal(sparse_maxsim(queries, documents, every_row(queries, documents)), whole)
        finally:
            compute.set_threads(None)


def test_padding_is_never_a_hit():
    queries, documents = random_texts(2, 3), random_texts(4, 4)
    rows = np.array([[2, -1, 0], [-1, -1, 3]])
    scores = sparse_maxsim(queries, documents, rows)
    assert np.array_equal(scores == -np.inf, rows < 0)


def test_no_rows_and_no_queries_are_ordinary():
    texts = random_texts(3, 5)
    assert sparse_maxsim(texts, texts, np.empty((3, 0), dtype=np.int64)).shape == (3, 0)
    assert sparse_maxsim(texts[:0], texts, np.empty((0, 2), dtype=np.int64)).shape == (0, 2)


def test_a_score_beyond_float32_is_its_largest_number():
    huge = multisparse([[{1: 3e38}, {2: 3e38}]])
    largest = np.finfo(np.float32).max
    assert sparse_maxsim(huge, huge, np.zeros((1, 1), dtype=np.int64))[0, 0] == largest
    assert sparse_maxsim_scores(huge, huge)[0, 0] == largest


def test_other_vocabularies_and_terms_outside_are_refused():
    texts, rows = random_texts(1, 6), np.zeros((1, 1), dtype=np.int64)
    for score in (sparse_maxsim_scores, lambda q, d: sparse_maxsim(q, d, rows)):
        with pytest.raises(ValueError, match="width 9, documents 10"):
            score(texts, multisparse([[{1: 1.0}]], 10))
    for term in (DIM, -1):
        with pytest.raises(ValueError, match="outside the vocabulary of 9"):
            sparse_maxsim(multisparse([[{term: 1.0}]]), texts, rows)


def test_a_document_term_outside_the_vocabulary_matches_nothing():
    documents = multisparse([[{-1: 5.0, 2: 1.0, DIM: 7.0}]])
    assert sparse_maxsim(multisparse([[{2: 3.0}]]), documents, np.zeros((1, 1), dtype=np.int64))[0, 0] == 3.0
