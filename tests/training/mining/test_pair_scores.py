"""Pairs of a query and a document: numbered, cut into parts, and scored like the whole matrix."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.exact import dense_scores, maxsim_scores, sparse_scores
from retrieval.values import Dense, MultiVector, Sparse
from training.examples.training_set import TrainingSet
from training.teachers.pair_scores import PAIR_SCORES
from training.teachers.pairs import key_rows, listed_pairs, pair_keys, parts

ROWS = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 30)), min_size=1, unique=True)


def dense(n: int, dtype: Any, rng: np.random.Generator) -> Dense:
    return Dense(rng.normal(size=(n, 12)).astype(dtype))


def sparse(n: int, dtype: Any, rng: np.random.Generator) -> Sparse:
    matrix = rng.random((n, 40)).astype(np.float32) * (rng.random((n, 40)) < 0.2)
    rows, terms = np.nonzero(matrix)
    indptr = np.searchsorted(rows, np.arange(n + 1)).astype(np.int64)
    return Sparse(indptr, terms.astype(np.int32), matrix[rows, terms], 40)


def late(n: int, dtype: Any, rng: np.random.Generator) -> MultiVector:
    indptr = np.cumsum([0, *rng.integers(1, 9, n)]).astype(np.int64)
    return MultiVector(indptr, rng.normal(size=(int(indptr[-1]), 12)).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("make", "exact"), [(dense, dense_scores), (sparse, sparse_scores), (late, maxsim_scores)]
)
def test_pairs_score_what_the_matrix_has(
    make: Callable[..., Any], exact: Callable[..., Any], dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.teachers.pair_scores._CHUNK", 50)
    rng = np.random.default_rng(3)
    queries, documents = make(20, dtype, rng), make(30, dtype, rng)
    q, d = rng.integers(0, 20, 170), rng.integers(0, 30, 170)
    found = PAIR_SCORES[type(queries)](queries, documents, q, d)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact(queries, documents)[q, d], rtol=1e-5, atol=1e-5)


@given(ROWS, st.sampled_from(["query", "document"]), st.integers(1, 5))
def test_parts_have_every_pair_once_and_split_no_query_or_document(
    rows: list[tuple[int, int]], by: Any, together: int
) -> None:
    keys = np.sort(pair_keys(*(np.array(column) for column in zip(*rows, strict=True))))
    assert sorted(rows) == list(zip(*(column.tolist() for column in key_rows(keys)), strict=True))
    cut = list(parts(keys, by, together))
    assert np.array_equal(np.sort(np.concatenate([pair_keys(q, d) for q, d in cut])), keys)
    groups = [q if by == "query" else d for q, d in cut]
    assert all(np.all(np.diff(group) >= 0) for group in groups)
    assert all(len(np.unique(group)) == together for group in groups[:-1])
    assert all(before[-1] < after[0] for before, after in pairwise(groups))


def test_every_document_of_every_list_is_a_pair(make_set: Callable[..., TrainingSet]) -> None:
    data = make_set(queries=["a", "b"], answers={0: [4], 1: [0, 3]}, others={0: [9]})
    queries, documents = key_rows(listed_pairs(data))
    assert queries.tolist() == [0, 0, 1, 1] and documents.tolist() == [4, 9, 0, 3]
