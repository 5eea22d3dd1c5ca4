"""Hubness against counts by hand, and QB-Norm against the formula of the paper in float64."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, FormatError, IncompatibleError
from retrieval.fusion import Fused
from retrieval.hubness import Hubness, hubness, occurrences
from retrieval.protocols import Explanation, SearchRequest
from retrieval.query_bank import HubCorrection, QueryBank, QueryBankNormalised
from retrieval.topk import top_k
from retrieval.values import Dense

TEN = SearchRequest(k=10)


def unit(n: int, dim: int, seed: int) -> Dense:
    values = np.random.default_rng(seed).standard_normal((n, dim))
    return Dense((values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32))


@dataclass
class Plain:
    """Scores everything; a query's text is the number of its vector."""

    documents: Dense
    queries: Dense
    searched: list[int] = field(default_factory=list)

    def search(self, queries, request):
        return self._search(self.queries.values[[int(query) for query in queries]], request)

    def search_encoded(self, queries, request):
        self.searched.append(len(queries))
        return self._search(queries.values, request)

    def _search(self, queries, request):
        scores = queries.astype(np.float64) @ self.documents.values.astype(np.float64).T
        if request.allowed is not None:
            scores[:, ~request.allowed.mask()] = -np.inf
        return top_k(scores, request.k)

    def explain(self, query, rows, request=None):
        vector = self.queries.values[int(query)].astype(np.float64)
        return [
            Explanation("product", float(np.float32(vector @ self.documents.values[row].astype(np.float64))))
            for row in rows
        ]


@dataclass
class Taken:
    """Vectors by row, counting those that are taken."""

    documents: Dense
    taken: Counter = field(default_factory=Counter)

    def __len__(self):
        return len(self.documents)

    def take(self, rows):
        self.taken.update(rows.tolist())
        return self.documents.take(rows)


def made(documents: Dense, queries: Dense, bank: QueryBank, depth: int = 100):
    plain, store = Plain(documents, queries), Taken(documents)
    return QueryBankNormalised(plain, HubCorrection(bank, len(documents)), store, depth), plain, store


def by_definition(documents: Dense, query: np.ndarray, bank: QueryBank, depth: int, allowed=None):
    """Rows and scores of one query as the paper has them, but for the logarithm, in float64."""
    exact, asked = documents.values.astype(np.float64), query.astype(np.float64)
    sample = bank.vectors.values.astype(np.float64)
    hubs = {
        int(row) for line in sample @ exact.T for row in np.lexsort((np.arange(len(exact)), -line))[: bank.k]
    }
    similar = exact @ asked
    rows = [row for row in range(len(exact)) if allowed is None or row in allowed]
    rows = sorted(rows, key=lambda row: (-np.float32(similar[row]), row))[:depth]
    if not rows or rows[0] not in hubs:
        return [(row, similar[row]) for row in rows]
    softmax = {
        row: np.log(
            np.exp(bank.beta * similar[row]) / sum(np.exp(bank.beta * (exact[row] @ one)) for one in sample)
        )
        for row in rows
    }
    return sorted(softmax.items(), key=lambda pair: (-pair[1], pair[0]))


# --- hubness -----------------------------------------------------------------------------------------------------


def test_occurrences_are_counts_of_hits_without_padding():
    rows = np.array([[0, 3], [3, 1], [3, -1]])
    assert occurrences(rows, 5).tolist() == [1, 1, 0, 3, 0]
    assert occurrences(np.empty((0, 4), dtype=np.int64), 3).tolist() == [0, 0, 0]


def test_hubness_by_hand():
    counts = np.array([10, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    found = hubness(counts, 3)
    mean, deviation = 1.2, np.sqrt(np.mean((counts - 1.2) ** 2))
    assert found.k == 3
    assert found.skewness == pytest.approx(np.mean((counts - mean) ** 3) / deviation**3)
    assert found.hubs == pytest.approx(0.1)
    assert found.hub_hits == pytest.approx(10 / 12)
    assert found.anti_hubs == pytest.approx(0.7)
    assert found.robin_hood == pytest.approx(
        (10 - 1.2) / 12
    )  # what the one above the mean would have to give away


def test_hits_that_fall_evenly_have_no_hubs():
    assert hubness(np.full(7, 3), 5) == Hubness(5, 0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("counts", [[], [0, 0, 0]])
def test_nothing_has_no_hubness(counts):
    assert hubness(np.array(counts, dtype=np.int64), 5) == Hubness(5, 0.0, 0.0, 0.0, 0.0, 0.0)


# --- the bank ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(1, 1), (30, 7), (3, 900)])
def test_log_sums_are_the_formula(n, size):
    rows, bank = unit(n, 11, 0), QueryBank(unit(size, 11, 1))
    exponents = 20 * rows.values.astype(np.float64) @ bank.vectors.values.astype(np.float64).T
    np.testing.assert_allclose(bank.log_sums(rows), np.log(np.exp(exponents).sum(axis=1)), rtol=1e-6)
    together = bank.log_sums(rows)
    assert [float(bank.log_sums(rows[row : row + 1])[0]) for row in range(n)] == together.tolist()


def test_a_row_sums_to_the_same_whatever_it_is_computed_with(monkeypatch):
    rows, bank = unit(50, 384, 0), QueryBank(unit(33, 384, 1))
    together = bank.log_sums(rows)
    monkeypatch.setattr("retrieval.query_bank._PRODUCTS", 100)  # three rows at a time
    assert bank.log_sums(rows).tolist() == together.tolist()
    assert bank.log_sums(Dense(rows.values.astype(np.float16))).tolist() == pytest.approx(
        together.tolist(), abs=0.05
    )


@pytest.mark.parametrize("size", [1e3, 1e18, 3e38])
def test_products_beyond_what_exp_can_hold_have_finite_sums(size):
    rows = Dense(np.array([[size, 0], [-size, 0], [0, 1]], dtype=np.float32))
    bank = QueryBank(Dense(np.array([[1, 0], [0.5, 0]], dtype=np.float32)))
    large = float(np.float32(size))
    np.testing.assert_allclose(bank.log_sums(rows), [20 * large, -10 * large, np.log(2)], rtol=1e-6)


@given(st.lists(st.floats(-80, 80), min_size=1, max_size=6), st.floats(0.1, 100))
def test_log_sums_lie_between_the_largest_exponent_and_that_many_times_it(products, beta):
    bank = QueryBank(Dense(np.array(products, dtype=np.float32)[:, None]), beta)
    found = float(bank.log_sums(Dense(np.ones((1, 1), dtype=np.float32)))[0])
    largest = beta * float(bank.vectors.values.max())
    assert largest - 1e-6 <= found <= largest + np.log(len(products)) + 1e-6


def test_no_rows_have_no_sums():
    assert QueryBank(unit(3, 5, 0)).log_sums(Dense(np.empty((0, 5), dtype=np.float32))).tolist() == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"vectors": Dense(np.empty((0, 4), dtype=np.float32))}, ConfigError, "at least one query"),
        ({"vectors": Dense(np.array([[0.0, np.nan]], dtype=np.float32))}, FormatError, "NaN or infinity"),
        ({"vectors": Dense(np.array([[0.0, np.inf]], dtype=np.float32))}, FormatError, "NaN or infinity"),
        ({"beta": 0}, ConfigError, "beta of a query bank is 0"),
        ({"beta": -1.0}, ConfigError, "positive number"),
        ({"beta": np.inf}, ConfigError, "positive number"),
        ({"beta": np.nan}, ConfigError, "positive number"),
        ({"beta": "20"}, ConfigError, "positive number"),
        ({"beta": True}, ConfigError, "positive number"),
        ({"k": 0}, ConfigError, "k of a query bank is 0"),
        ({"k": 1.5}, ConfigError, "an integer"),
    ],
)
def test_a_bank_that_makes_no_sense_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        QueryBank(**{"vectors": unit(2, 4, 0), **change})


def test_another_width_is_refused():
    with pytest.raises(IncompatibleError, match="width 4, the rows 5"):
        QueryBank(unit(2, 4, 0)).log_sums(unit(1, 5, 0))


# --- searching ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activating", [1, 3])
@pytest.mark.parametrize("depth", [5, 100])
def test_a_search_is_the_papers_formula(depth, activating):
    documents, queries = unit(80, 6, 0), unit(40, 6, 1)
    bank = QueryBank(unit(25, 6, 2), beta=12.0, k=activating)
    searcher, plain, _ = made(documents, queries, bank, depth)
    hits = searcher.search([str(number) for number in range(40)], SearchRequest(k=5))
    changed = 0
    for number, (rows, scores) in enumerate(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True)):
        expected = by_definition(documents, queries.values[number], bank, depth)[:5]
        assert rows == [row for row, _ in expected]
        assert scores == pytest.approx([score for _, score in expected], rel=1e-4, abs=1e-5)
        changed += rows != plain.search([str(number)], SearchRequest(k=5)).rows[0].tolist()
    assert 0 < changed < 40


def test_a_hub_gives_way_to_what_a_query_is_nearest_to_among_the_rest():
    """Every bank query is nearest to the row in the middle, and so is the query; a row beside it is what it means."""
    middle, beside = [1.0, 0.0, 0.0], [0.85, 0.5, 0.0]
    documents = Dense(np.array([middle, beside, [0.0, 0.0, 1.0]], dtype=np.float32))
    queries = Dense(np.array([[0.9, 0.2, 0.0]], dtype=np.float32))
    bank = QueryBank(
        Dense(np.array([[1.0, 0.0, -0.1], [0.9, -0.3, 0.0], [0.9, -0.1, 0.1]], dtype=np.float32))
    )
    searcher, plain, _ = made(documents, queries, bank)
    assert plain.search(["0"], SearchRequest(k=2)).rows.tolist() == [[0, 1]]
    assert searcher.search(["0"], SearchRequest(k=1)).rows.tolist() == [[1]]


def test_queries_whose_best_row_is_no_hub_keep_their_scores():
    documents, queries = unit(60, 6, 0), unit(20, 6, 1)
    searcher, plain, store = made(documents, queries, QueryBank(unit(1, 6, 2)))
    hub = int(plain.search_encoded(searcher.correction.bank.vectors, SearchRequest(k=1)).rows[0, 0])
    asked = [str(number) for number in range(20) if plain.search([str(number)], TEN).rows[0, 0] != hub]
    hits, usual = searcher.search(asked, TEN), plain.search(asked, TEN)
    assert hits.rows.tolist() == usual.rows.tolist()
    assert hits.scores.tolist() == usual.scores.tolist()
    assert not store.taken


def test_what_is_learned_is_learned_once_and_with_the_first_search():
    documents, queries = unit(60, 6, 0), unit(20, 6, 1)
    searcher, plain, store = made(documents, queries, QueryBank(unit(300, 6, 2)))
    assert not plain.searched and not store.taken
    for _ in range(3):
        searcher.search([str(number) for number in range(20)], TEN)
    assert plain.searched == [256, 44]
    assert store.taken and set(store.taken.values()) == {1}


def test_threads_answer_alike():
    documents, queries = unit(200, 8, 0), unit(32, 8, 1)
    asked = [[str(number)] for number in range(32)] * 4

    def answers(workers: int) -> list:
        searcher, _, _ = made(documents, queries, QueryBank(unit(50, 8, 2)))
        with ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(lambda texts: searcher.search(texts, TEN), asked))
        return [(hits.rows.tolist(), hits.scores.tolist()) for hits in found]

    assert answers(8) == answers(1)


def test_a_filter_decides_the_best_row_and_not_the_hubs():
    documents, queries, bank = unit(60, 5, 0), unit(30, 5, 1), QueryBank(unit(20, 5, 2))
    searcher, _, _ = made(documents, queries, bank)
    allowed = set(range(0, 60, 3))
    hits = searcher.search(
        [str(number) for number in range(30)],
        SearchRequest(k=4, allowed=Bitmap.from_rows(sorted(allowed), 60)),
    )
    for number, rows in enumerate(hits.rows.tolist()):
        expected = by_definition(documents, queries.values[number], bank, 100, allowed)
        assert rows == [row for row, _ in expected[:4]]


def test_more_hits_than_rows_are_padded_and_no_hits_stay_none():
    documents, queries = unit(3, 5, 0), unit(2, 5, 1)
    searcher, _, _ = made(documents, queries, QueryBank(unit(20, 5, 2)))
    hits = searcher.search(["0", "1"], SearchRequest(k=9))
    assert (np.sort(hits.rows[:, :3], axis=1) == np.arange(3)).all() and (hits.rows[:, 3:] == -1).all()
    assert (hits.scores[:, 3:] == -np.inf).all() and np.isfinite(hits.scores[:, :3]).all()
    nothing = SearchRequest(k=2, allowed=Bitmap.from_rows([], 3))
    assert searcher.search(["0"], nothing).rows.tolist() == [[-1, -1]]
    empty, _, _ = made(unit(0, 5, 0), queries, QueryBank(unit(2, 5, 2)))
    assert empty.search(["0"], SearchRequest(k=2)).rows.tolist() == [[-1, -1]]


def test_the_candidates_are_bounded_by_the_request():
    documents, queries = unit(60, 5, 0), unit(1, 5, 1)
    bank = QueryBank(
        Dense(np.concatenate([queries.values, unit(9, 5, 2).values]))
    )  # so that the best row is a hub
    for depth, k in ((3, 1), (1000, 30), (2, 8)):
        searcher, _, store = made(documents, queries, bank, 20)
        hits = searcher.search(["0"], SearchRequest(k=k, depth=depth))
        assert len(store.taken) == max(k, min(20, depth))
        assert (hits.rows >= 0).all()


@pytest.mark.parametrize("size", [1e10, 1e19])
def test_scores_beyond_float32_are_its_largest_numbers(size):
    documents = Dense(np.array([[size, 0], [0.5, 1]], dtype=np.float32))
    queries = Dense(np.array([[size, 0]], dtype=np.float32))
    bank = QueryBank(Dense(np.array([[1, 0], [-size, 0]], dtype=np.float32)))
    searcher, _, _ = made(documents, queries, bank)
    hits = searcher.search(["0"], SearchRequest(k=2))
    assert np.isfinite(hits.scores).all() and sorted(hits.rows[0].tolist()) == [0, 1]


@pytest.mark.parametrize("number", range(8))
def test_an_explanation_adds_up_to_the_score(number):
    documents, queries, bank = unit(80, 6, 0), unit(8, 6, 1), QueryBank(unit(25, 6, 2))
    searcher, _, _ = made(documents, queries, bank)
    for allowed in (None, Bitmap.from_rows(range(0, 80, 2), 80)):
        request = SearchRequest(k=5, allowed=allowed)
        hits = searcher.search([str(number)], request)
        found = searcher.explain(str(number), hits.rows[0], request)
        assert [part.value for part in found] == hits.scores[0].tolist()
        for explanation in found:
            total = sum(part.value for part in explanation.parts)
            assert total == pytest.approx(explanation.value, abs=1e-4)
    assert searcher.explain(str(number), np.empty(0, dtype=np.int64)) == []


def test_fusion_takes_corrected_and_plain_lists_alike():
    documents, queries = unit(80, 6, 0), unit(10, 6, 1)
    searcher, plain, _ = made(documents, queries, QueryBank(unit(5, 6, 2)))
    fused = Fused((("plain", plain, 1.0), ("banked", searcher, 1.0)))
    asked, request = [str(number) for number in range(10)], SearchRequest(k=5, depth=20)
    hits = fused.search(asked, request)
    assert ((hits.scores >= 0) & (hits.scores <= 2)).all()
    explained = fused.explain(asked[0], hits.rows[0], request)
    assert [part.value for part in explained] == pytest.approx(hits.scores[0].tolist())
