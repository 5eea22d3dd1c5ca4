"""The late reranker over stored token vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from retrieval.errors import ConfigError, IncompatibleError
from retrieval.exact import maxsim_scores
from retrieval.late_rerank import LateReranker
from retrieval.rerank import open_reranker
from retrieval.values import Dense, Hits, MultiVector


def texts(lengths, seed) -> MultiVector:
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return MultiVector(
        indptr, np.random.default_rng(seed).standard_normal((indptr[-1], 12)).astype(np.float32)
    )


@dataclass(frozen=True)
class FakeEncoder:
    """Numbers a query by its text."""

    queries: MultiVector

    def encode_queries(self, texts):
        return self.queries.take(np.array([int(text) for text in texts], dtype=np.int64))


@dataclass(frozen=True)
class FakeSnapshot:
    """Two representations, one of them of token vectors."""

    late: MultiVector
    queries: MultiVector
    token: str = "s1"

    def encoder(self, name):
        return FakeEncoder(self.queries)

    def store(self, name):
        stores = {"late": self.late, "colbert": self.late, "dense": Dense(np.ones((9, 2), np.float32))}
        if name not in stores:
            raise ConfigError(f"the collection has no representation {name!r}")
        return stores[name]


SNAPSHOT = FakeSnapshot(texts([3, 0, 5, 8, 1, 2, 30, 4, 4], 1), texts([4, 7, 1], 2))


@pytest.mark.parametrize("name", ["late", "late:", "late:colbert"])
def test_candidates_are_ordered_by_maxsim(name):
    rows = np.array([[4, 2, 6, -1], [1, 0, 8, 3], [-1, -1, -1, -1]])
    hits = Hits(rows, np.where(rows < 0, -np.inf, 1).astype(np.float32), "s1")
    got = open_reranker(name).rerank(["2", "0", "1"], hits, SNAPSHOT)
    truth = maxsim_scores(SNAPSHOT.queries.take(np.array([2, 0, 1])), SNAPSHOT.late)
    truth[:, 1] = 0  # no tokens
    for query, line in enumerate(rows):
        kept = line[line >= 0]
        order = kept[np.argsort(-truth[query, kept], kind="stable")]
        assert got.rows[query].tolist() == [*order, *line[line < 0]]
        np.testing.assert_allclose(got.scores[query, : len(kept)], truth[query, order], rtol=1e-5)
    assert got.snapshot == "s1"


def test_nothing_to_rerank_needs_no_vectors():
    none = Hits.none(2, 3, "s1")
    assert LateReranker("dense").rerank(["0", "1"], none, SNAPSHOT) is none


def test_a_collection_without_token_vectors_is_refused_with_the_remedy():
    hits = Hits(np.array([[1]]), np.ones((1, 1), np.float32), "s1")
    for found in (hits, Hits.none(1, 3, "s1")):
        with pytest.raises(ConfigError, match=r"no representation 'missing'.*--with late"):
            LateReranker("missing").rerank(["0"], found, SNAPSHOT)
    with pytest.raises(ConfigError, match=r"'dense' has Dense ones.*late:NAME"):
        open_reranker("late:dense").rerank(["0"], hits, SNAPSHOT)


def test_hits_of_another_commit_are_refused():
    with pytest.raises(IncompatibleError, match=r"'s0'.*'s1'"):
        LateReranker().rerank(["0"], Hits.none(1, 1, "s0"), SNAPSHOT)


def test_there_are_no_options():
    with pytest.raises(ConfigError, match="batch"):
        open_reranker("late", {"batch": 3})
