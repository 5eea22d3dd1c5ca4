"""Fusion against dicts, its written rules one by one, and the searcher that fuses."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError
from retrieval.fusion import METHODS, Fused, reciprocal_rank, weighted_sum
from retrieval.protocols import Explanation, SearchRequest
from retrieval.topk import top_k
from retrieval.values import Hits


def hits_of(*lines, k=None, snapshot="s"):
    """Hits from a list of (row, score) pairs a query."""
    made = Hits.none(len(lines), max([len(line) for line in lines] + [k or 1]), snapshot)
    for query, line in enumerate(lines):
        ordered = sorted(line, key=lambda pair: (-pair[1], pair[0]))
        for place, (row, score) in enumerate(ordered):
            made.rows[query, place], made.scores[query, place] = row, score
    return made


@st.composite
def lists(draw):
    n_queries = draw(st.integers(0, 4))
    out = []
    for _ in range(draw(st.integers(1, 4))):
        rows = st.lists(st.integers(0, 15), unique=True, max_size=9)
        scores = st.sampled_from([-3.0, 0.0, 0.25, 1.0, 7.5, 1e4])
        lines = [[(row, draw(scores)) for row in draw(rows)] for _ in range(n_queries)]
        out.append(hits_of(*lines, k=draw(st.integers(1, 4))))
    return out


def naive_worth(method, scores):
    if method == "rrf":
        return [1 / (60 + rank) for rank in range(1, len(scores) + 1)]
    low, high = min(scores), max(scores)
    if low == high:
        return [1.0] * len(scores)
    if method == "minmax":
        return [(score - low) / (high - low) for score in scores]
    mean = sum(scores) / len(scores)
    deviation = (sum((score - mean) ** 2 for score in scores) / len(scores)) ** 0.5
    return [(score - low) / deviation + 1 for score in scores]


def naive_fusion(method, fused, weights, depth):
    out = []
    for query in range(len(fused[0])):
        totals = {}
        for hits, weight in zip(fused, weights, strict=True):
            rows = [row for row in hits.rows[query].tolist() if row >= 0][:depth]
            scores = hits.scores[query].tolist()[: len(rows)]
            if rows:
                for row, worth in zip(rows, naive_worth(method, scores), strict=True):
                    totals[row] = totals.get(row, 0.0) + weight * worth
        out.append(totals)
    return out


@given(lists(), st.sampled_from(sorted(METHODS)), st.integers(1, 10), st.data())
def test_fusion_equals_summing_in_dicts(made, method, depth, data):
    k = data.draw(st.integers(1, 40))
    weights = [data.draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])) for _ in made]
    if method == "rrf":
        found = reciprocal_rank(made, 60, weights, k=k, depth=depth)
    else:
        found = weighted_sum(made, weights, method, k=k, depth=depth)
    assert found.rows.shape == (len(made[0]), k)
    for query, totals in enumerate(naive_fusion(method, made, weights, depth)):
        n = min(k, len(totals))
        rows, scores = found.rows[query], found.scores[query]
        assert (rows[n:] == -1).all()
        assert (scores[n:] == -np.inf).all()
        assert len(set(rows[:n].tolist())) == n
        order = np.lexsort((rows[:n], -scores[:n]))
        assert order.tolist() == list(range(n))
        np.testing.assert_allclose(scores[:n], [totals[row] for row in rows[:n].tolist()], rtol=1e-5)
        np.testing.assert_allclose(scores[:n], sorted(totals.values(), reverse=True)[:n], rtol=1e-5)


def test_minmax_gives_the_first_one_and_the_last_nothing():
    found = weighted_sum([hits_of([(4, 10.0), (5, 6.0), (6, 2.0)])])
    assert found.rows.tolist() == [[4, 5, 6]]
    assert found.scores.tolist() == [[1.0, 0.5, 0.0]]


@pytest.mark.parametrize("method", ["minmax", "zscore"])
def test_a_constant_list_and_a_single_hit_are_worth_one(method):
    assert weighted_sum([hits_of([(4, 3.0), (2, 3.0)])], None, method).scores.tolist() == [[1.0, 1.0]]
    assert weighted_sum([hits_of([(9, -5.0)])], None, method).scores.tolist() == [[1.0]]


def test_a_document_missing_from_a_list_gets_nothing_from_it():
    left, right = hits_of([(1, 2.0), (2, 1.0)]), hits_of([(3, 9.0), (1, 8.0)])
    found = weighted_sum([left, right], k=3)
    assert dict(zip(found.rows[0].tolist(), found.scores[0].tolist(), strict=True)) == {1: 1, 3: 1, 2: 0}
    assert found.rows[0].tolist() == [1, 3, 2]  # the tie goes to the lower row


def test_zscores_put_a_missing_document_one_deviation_below_the_worst():
    line = [(1, 4.0), (2, 2.0)]  # mean 3, deviation 1
    found = weighted_sum([hits_of(line), hits_of([(7, 1.0)])], None, "zscore", k=3)
    assert dict(zip(found.rows[0].tolist(), found.scores[0].tolist(), strict=True)) == {1: 3, 2: 1, 7: 1}


def test_an_empty_list_changes_nothing():
    line = hits_of([(1, 4.0), (2, 2.0), (5, 1.0)])
    alone = weighted_sum([line])
    beside = weighted_sum([line, hits_of([])], k=3)
    assert alone.rows.tolist() == beside.rows.tolist()
    assert alone.scores.tolist() == beside.scores.tolist()


def test_depth_cuts_before_the_scores_are_normalised():
    found = weighted_sum([hits_of([(1, 3.0), (2, 2.0), (3, -50.0)])], depth=2)
    assert found.scores[0, :2].tolist() == [1.0, 0.0]
    assert found.rows[0].tolist()[:2] == [1, 2]


def test_reciprocal_ranks_are_those_of_the_paper():
    found = reciprocal_rank([hits_of([(1, 3.0), (2, 2.0)]), hits_of([(2, 9.0)])], k=2)
    np.testing.assert_allclose(found.scores, [[1 / 62 + 1 / 61, 1 / 61]], rtol=1e-6)
    assert found.rows.tolist() == [[2, 1]]


def test_the_sum_keeps_the_snapshot_and_refuses_to_mix_two():
    assert weighted_sum([hits_of([(1, 1.0)], snapshot="a")]).snapshot == "a"
    with pytest.raises(ValueError, match="snapshots"):
        reciprocal_rank([hits_of([(1, 1.0)], snapshot="a"), hits_of([(1, 1.0)], snapshot="b")])


@pytest.mark.parametrize(
    "call",
    [
        lambda a: weighted_sum([]),
        lambda a: weighted_sum([a, hits_of([(1, 1.0)], [])]),
        lambda a: weighted_sum([a], [1.0, 2.0]),
        lambda a: weighted_sum([a], [-1.0]),
        lambda a: weighted_sum([a], [float("nan")]),
        lambda a: weighted_sum([a], k=0),
        lambda a: weighted_sum([a], depth=0),
        lambda a: reciprocal_rank([a], k_rrf=-1),
    ],
)
def test_impossible_arguments_are_refused(call):
    with pytest.raises(ValueError):
        call(hits_of([(1, 1.0)]))


def test_an_unknown_normalization_is_an_error_that_lists_the_known():
    with pytest.raises(ConfigError, match="minmax, zscore"):
        weighted_sum([hits_of([(1, 1.0)])], None, "softmax")


# --- the searcher


@dataclass(frozen=True, eq=False)
class Scored:
    """A searcher whose scores stand in a table, query text -> (N,) scores."""

    table: dict[str, list[float]]

    def search(self, queries, request):
        scores = np.array([self.table[query] for query in queries], dtype=np.float32)
        if request.allowed is not None:
            scores = np.where(request.allowed.mask(), scores, -np.inf)
        found = top_k(scores, request.k)
        return Hits(found.rows, found.scores, "s")

    def explain(self, query, rows, request=None):
        return [Explanation("table", self.table[query][row]) for row in rows.tolist()]


LEFT = Scored({"a": [5, 1, 3, 0, -np.inf], "b": [1, 2, 3, 4, 5]})
RIGHT = Scored({"a": [-np.inf, 1, 9, 9, 0], "b": [-np.inf] * 5})


@pytest.mark.parametrize("method", sorted(METHODS))
def test_fused_is_the_function_over_what_its_parts_return(method):
    fused = Fused((("left", LEFT, 1.0), ("right", RIGHT, 0.5)), method)
    request = SearchRequest(k=3, depth=4)
    found = fused.search(["a", "b"], request)
    lists = [part.search(["a", "b"], SearchRequest(k=4)) for part in (LEFT, RIGHT)]
    function = (
        (lambda: reciprocal_rank(lists, 60, [1, 0.5], k=3))
        if method == "rrf"
        else (lambda: weighted_sum(lists, [1, 0.5], method, k=3))
    )
    assert found.rows.tolist() == function().rows.tolist()
    assert found.scores.tolist() == function().scores.tolist()
    assert found.snapshot == "s"


def test_each_part_contributes_its_depth_and_no_more():
    found = Fused((("left", LEFT, 1.0),)).search(["b"], SearchRequest(k=5, depth=1))
    assert (found.rows >= 0).sum() == 1


def test_no_query_gives_no_hits():
    class Nothing:
        def search(self, queries, request):
            return Hits.none(0, request.k, "s")

    found = Fused((("x", Nothing(), 1.0),)).search([], SearchRequest(k=3))
    assert found.rows.shape == (0, 3)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("allowed", [None, Bitmap.from_rows([1, 2, 3], 5)])
def test_explanations_add_up_to_the_scores(method, allowed):
    fused = Fused((("left", LEFT, 2.0), ("right", RIGHT, 1.0)), method)
    request = SearchRequest(k=5, depth=3, allowed=allowed)
    found = fused.search(["a"], request)
    rows = found.rows[0][found.rows[0] >= 0]
    explained = fused.explain("a", rows, request)
    for row, score, explanation in zip(rows.tolist(), found.scores[0].tolist(), explained, strict=False):
        assert explanation.value == pytest.approx(score, rel=1e-6)
        assert sum(part.value for part in explanation.parts) == pytest.approx(score, rel=1e-6)
        for part, own in zip(explanation.parts, (LEFT, RIGHT), strict=True):
            if part.parts:
                assert part.value == pytest.approx(part.facts["normalised"] * part.facts["weight"])
                assert part.parts[0].value == own.table["a"][row] == part.facts["score"]
            else:
                assert "not among its first" in part.label


def test_a_document_found_by_different_chunks_is_one_document():
    # rows 0, 1 are chunks of document 0; rows 2, 3 of document 1; row 4 is document 2
    left = Scored({"q": [9, -np.inf, -np.inf, 5, 1]})
    right = Scored({"q": [-np.inf, 9, 8, -np.inf, 1]})

    def documents(rows):
        return np.where(rows >= 0, np.minimum(rows // 2, 2), -1)

    fused = Fused((("left", left, 1.0), ("right", right, 1.5)), documents=documents)
    found = fused.search(["q"], SearchRequest(k=4))
    assert found.rows.tolist() == [[1, 2, 4, -1]]  # each by the chunk of the list that gives it most
    np.testing.assert_allclose(found.scores[0, :3], [2.5, 0.5 + 1.5 * 7 / 8, 0.0])
    for explanation, score in zip(
        fused.explain("q", found.rows[0, :3]), found.scores[0].tolist(), strict=False
    ):
        assert explanation.value == pytest.approx(score)


def test_equal_documents_are_ordered_as_their_rows_are():
    tied = Scored({"q": [1, 1, 1, 1, 1]})
    fused = Fused((("a", tied, 1.0),), documents=lambda rows: np.where(rows >= 0, rows, -1))
    assert fused.search(["q"], SearchRequest(k=5)).rows.tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fused(()),
        lambda: Fused((("a", LEFT, 1.0),), "sum"),
        lambda: Fused((("a", LEFT, -1.0),)),
        lambda: Fused((("a", LEFT, float("inf")),)),
    ],
)
def test_impossible_fusions_are_config_errors(make):
    with pytest.raises(ConfigError):
        make()
