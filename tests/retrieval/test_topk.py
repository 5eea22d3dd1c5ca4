"""The one order of hits, by the compiled way and by the way that does without numba."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retrieval import compute, topk
from retrieval.topk import merge, top_k
from retrieval.values import Hits

few = st.sampled_from([-np.inf, -2.0, 0.0, -0.0, 1.0, 1.5])  # so that ties are common


@st.composite
def lines(draw):
    shape = (draw(st.integers(0, 4)), draw(st.integers(0, 12)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    scores = draw(hnp.arrays(dtype, shape, elements=few))
    named = draw(st.sampled_from(["none", "shared", "own"]))
    if named == "none":
        return scores, None
    n_lists = shape[0] if named == "own" else 1
    rows = [draw(st.permutations([-1, -1, *range(20)])) for _ in range(n_lists)]
    rows = np.array([line[: shape[1]] for line in rows], dtype=np.int64).reshape(n_lists, shape[1])
    return scores, rows if named == "own" else rows[0]


def naive(scores, k, rows):
    out = []
    for query, line in enumerate(scores):
        names = range(len(line)) if rows is None else (rows if rows.ndim == 1 else rows[query])
        pairs = [
            (-score, row) for score, row in zip(line.tolist(), names, strict=True) if score > -np.inf <= row
        ]
        out.append([(int(row), -minus) for minus, row in sorted(pairs) if row >= 0][:k])
    return out


def pairs_of(hits):
    return [
        [(row, score) for row, score in zip(rows, scores, strict=True) if row >= 0]
        for rows, scores in zip(hits.rows.tolist(), hits.scores.tolist(), strict=True)
    ]


@given(lines(), st.integers(1, 15))
def test_top_k_equals_sorting_pairs(line, k):
    scores, rows = line
    expected = naive(scores, k, rows)
    found = top_k(scores, k, rows)
    assert found.rows.shape == (len(scores), k)
    assert pairs_of(found) == expected
    plain = Hits.none(len(scores), k)
    if scores.size:
        topk._sort(scores, rows, plain)
        assert plain.rows.tolist() == found.rows.tolist()
        assert plain.scores.tolist() == found.scores.tolist()


@pytest.mark.parametrize("threads", [1, 4])
def test_many_queries_are_shared_among_threads_without_change(threads):
    scores = np.random.default_rng(0).integers(0, 50, (64, 20_000)).astype(np.float32)
    compute.set_threads(threads)
    try:
        found = top_k(scores, 100)
    finally:
        compute.set_threads(None)
    order = np.lexsort((np.broadcast_to(np.arange(20_000), scores.shape), -scores), axis=1)[:, :100]
    assert np.array_equal(found.rows, order)


def test_scores_are_ordered_as_float32_hands_them_out():
    scores = np.array([[1.0, 1.0 + 1e-12, 0.5]])  # equal once rounded, so the row decides
    assert top_k(scores, 2).rows.tolist() == [[0, 1]]


def test_padding_comes_last_and_is_marked():
    found = top_k(np.array([[-np.inf, 2.0]]), 3)
    assert found.rows.tolist() == [[1, -1, -1]]
    assert found.scores.tolist() == [[2.0, -np.inf, -np.inf]]


@given(lines(), st.integers(1, 6), st.integers(1, 9), st.data())
def test_merging_the_parts_of_a_list_gives_the_whole_lists_best(line, n_parts, k, data):
    scores, _ = line
    owner = data.draw(hnp.arrays(np.int64, scores.shape[1], elements=st.integers(0, n_parts - 1)))
    columns = [np.flatnonzero(owner == part) for part in range(n_parts)]
    parts = [top_k(scores[:, own], k, own) for own in columns]
    merged = merge(parts, k)
    assert merged.rows.tolist() == top_k(scores, k).rows.tolist()


def test_merge_refuses_nothing_and_mixed_snapshots():
    with pytest.raises(ValueError):
        merge([], 3)
    with pytest.raises(ValueError):
        merge([Hits.none(1, 1, "a"), Hits.none(1, 1, "b")], 3)
    assert merge([Hits.none(1, 1, "a"), Hits.none(1, 2, "a")], 3).snapshot == "a"


def test_a_small_first_call_does_not_import_numba():
    code = (
        "import sys, numpy as np; from retrieval.topk import top_k; "
        "assert top_k(np.ones((1, 9)), 2).rows.tolist() == [[0, 1]]; assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
