"""The inverted index against adding up everything, with ties, filters, windows, wide blocks and bad input."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexing.inverted.index import InvertedIndex
from indexing.inverted.ordering import order_rows
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, CorruptError, FormatError, IncompatibleError
from retrieval.protocols import SearchRequest
from retrieval.values import Hits, Sparse

LARGEST_SUM = (2**32 - 1) // 255


def sparse(rows: list[dict[int, float]], dim: int) -> Sparse:
    indptr = np.cumsum([0] + [len(row) for row in rows]).astype(np.int64)
    terms = [term for row in rows for term in sorted(row)]
    values = [row[term] for row in rows for term in sorted(row)]
    return Sparse(indptr, np.array(terms, dtype=np.int32), np.array(values, dtype=np.float32), dim)


def topical(n: int, dim: int, seed: int, size: int = 25) -> Sparse:
    """Rows of up to ``size`` terms from one of 40 topics and some others, every seventh a copy of any row before it."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(7).integers(0, dim, (40, 60))
    rows: list[dict[int, float]] = []
    for number in range(n):
        if number % 7 == 6:
            rows.append(rows[rng.integers(number)])
            continue
        own = topics[rng.integers(40)][rng.integers(0, 60, rng.integers(0, size))]
        other = rng.integers(0, dim, rng.integers(0, 1 + size // 3))
        terms = np.concatenate([own, other])
        weights = np.minimum(255, 3 + 4 * rng.pareto(1.6, len(terms))).round()
        rows.append(dict(zip(terms.tolist(), weights.tolist(), strict=True)))
    return sparse(rows, dim)


def build(folder: Path, vectors: Sparse, memory_bytes: int = 10**8, **parameters: object) -> InvertedIndex:
    folder.mkdir(exist_ok=True)
    chosen = InvertedIndex.parameters(parameters)
    seen: list[int] = []
    InvertedIndex.build(vectors, folder, chosen, memory_bytes=memory_bytes, progress=seen.append)
    assert sum(seen) == len(vectors)
    return InvertedIndex.load(folder, vectors, chosen)


@functools.lru_cache(maxsize=2)
def impacts(index: InvertedIndex) -> NDArray[np.int32]:
    """(N, V) impacts."""
    vectors, scale = index.vectors, index.scale
    out = np.zeros((len(vectors), vectors.dim), dtype=np.int32)
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))
    steps = np.clip(np.floor(vectors.values.astype(np.float64) / scale + 0.5), 1, 255)
    out[rows, vectors.indices] = np.where(vectors.values > 0, steps, 0)
    return out


def exhaustive(
    index: InvertedIndex, queries: Sparse, k: int, allowed: NDArray[np.bool_] | None = None
) -> Hits:
    """The truth, to the last bit."""
    matrix = impacts(index)
    hits = Hits.none(len(queries), k, "")
    for query in range(len(queries)):
        part = queries[query : query + 1]
        total = part.values.astype(np.float64).sum()
        if total == 0:
            continue
        unit = total / (LARGEST_SUM - len(part.values))
        weights = np.floor(part.values / unit + 0.5).astype(np.int64)
        sums = matrix[:, part.indices].astype(np.int64) @ weights
        scores = (sums * (unit * index.scale)).astype(np.float32)
        order = np.lexsort((np.arange(len(scores)), -scores))
        found = (sums > 0) if allowed is None else (sums > 0) & allowed
        order = order[found[order]][:k]
        hits.rows[query, : len(order)], hits.scores[query, : len(order)] = order, scores[order]
    return hits


def assert_same(found: Hits, truth: Hits) -> None:
    np.testing.assert_array_equal(found.scores, truth.scores)
    np.testing.assert_array_equal(found.rows, truth.rows)


vectors_of_few_terms = st.lists(
    st.dictionaries(st.integers(0, 11), st.sampled_from([0.0, 0.3, 1.0, 1.0, 2.5]), max_size=6), max_size=70
)


@given(
    rows=vectors_of_few_terms,
    asked=vectors_of_few_terms,
    k=st.sampled_from([1, 3, 100]),
    seed=st.integers(0, 9),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
)
def test_small_indexes_equal_brute_force(tmp_path_factory, rows, asked, k, seed, share):
    index = build(tmp_path_factory.mktemp("index"), sparse(rows, 12))
    mask = None if share is None else np.random.default_rng(seed).random(len(rows)) < share
    request = SearchRequest(k=k, allowed=None if mask is None else Bitmap.from_mask(mask))
    queries = sparse(asked, 12)
    assert_same(index.search(queries, request), exhaustive(index, queries, k, mask))


DIM = 75  # of the large index: few enough for lists so long that it pays to skip blocks


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> InvertedIndex:
    """More than one window of rows, so that all parts of the search have work."""
    return build(tmp_path_factory.mktemp("large"), topical(66_000, DIM, 1))


@pytest.mark.parametrize("half", [1, 63, 64, 200])
@pytest.mark.parametrize("n_terms", [0, 1, 40])
def test_bounds_are_sums_of_weights_times_levels(half: int, n_terms: int):
    from indexing.inverted.search_kernels import add_lines

    rng = np.random.default_rng(half)
    lines = rng.integers(0, 256, 50 * half, dtype=np.uint8)
    starts, weights = rng.permutation(50)[:n_terms] * half, rng.integers(0, 100, n_terms, dtype=np.uint16)
    bounds = np.full(2 * half, 7, dtype=np.uint16)  # left by the query before
    add_lines(lines, starts, weights, bounds)
    chosen = lines.reshape(50, half)[starts // half]
    levels = np.concatenate([chosen & 15, chosen >> 4], axis=1)
    np.testing.assert_array_equal(bounds, weights.astype(np.int64) @ levels)


@pytest.mark.parametrize(("k", "pruned"), [(1, 40), (10, 40), (300, 0), (10_000, 0)])
def test_blocks_are_skipped_and_nothing_is_lost(large: InvertedIndex, k: int, pruned: int):
    queries = topical(120 if pruned else 10, DIM, 2)
    found, counts = large.search_counted(queries, SearchRequest(k=k))
    assert_same(found, exhaustive(large, queries, k))
    skipping = counts[(counts[:, 4] == 0) & (counts[:, 0] > 0)]
    assert len(skipping) >= pruned
    assert skipping[:, 3].sum() <= skipping[:, 1].sum() / 4


@pytest.mark.parametrize("share", [0.0005, 0.02, 0.3, 0.97])
def test_filters_are_honoured_inside_the_search(large: InvertedIndex, share: float):
    mask = np.random.default_rng(3).random(len(large)) < share
    queries = topical(60, DIM, 4)
    found = large.search(queries, SearchRequest(k=10, allowed=Bitmap.from_mask(mask)))
    assert_same(found, exhaustive(large, queries, 10, mask))


def test_order_of_rows_and_memory_change_no_answer(tmp_path: Path):
    vectors, queries = topical(9_000, 400, 5), topical(20, 400, 6)
    indexes = [
        build(tmp_path / "a", vectors),
        build(tmp_path / "b", vectors, reorder=False),
        build(tmp_path / "c", vectors, memory_bytes=50_000),
    ]
    indexes.append(replace(indexes[0], bound_terms=0))
    first, *others = [index.search(queries, SearchRequest(k=50)) for index in indexes]
    for other in others:
        assert_same(other, first)
    for name in ("postings", "bounds", "forward", "directory", "windows"):
        assert (tmp_path / "a" / f"{name}.npy").read_bytes() == (tmp_path / "c" / f"{name}.npy").read_bytes()


def test_similar_rows_become_neighbours():
    rng = np.random.default_rng(0)
    topic = rng.integers(0, 30, 6_000)
    vectors = sparse([{int(t) * 10 + int(i): 1.0 for i in rng.integers(0, 10, 6)} for t in topic], 300)
    order = order_rows(vectors, np.bincount(vectors.indices, minlength=300))
    assert np.array_equal(np.sort(order), np.arange(6_000))
    changes = (np.diff(topic[order]) != 0).sum()
    assert changes < 2_000  # of 5,800 in the order given; 29 are unavoidable


def test_a_block_of_more_postings_than_16_bits_number(tmp_path: Path):
    dim = 5_000
    full = {term: 1.0 + term % 7 for term in range(dim)}
    vectors = sparse([full] * 16 + [{3: 2.0, 9: 1.0}] * 40, dim)
    index = build(tmp_path / "index", vectors)
    queries = sparse([{3: 1.0, 4_999: 2.0}, {9: 1.0}], dim)
    assert_same(index.search(queries, SearchRequest(k=30)), exhaustive(index, queries, 30))


def test_the_largest_weights_do_not_overflow(tmp_path: Path):
    vectors = sparse([{term: 1e28 for term in range(2_000)}, {0: 1e28}], 2_000)
    queries = sparse([{term: 3e5 for term in range(2_000)}, {0: 1e-30}], 2_000)
    index = build(tmp_path / "index", vectors)
    hits = index.search(queries, SearchRequest(k=2))
    np.testing.assert_allclose(hits.scores[0], [2_000 * 3e33, 3e33], rtol=1e-3)
    np.testing.assert_allclose(hits.scores[1], [0.01, 0.01], rtol=1e-5)


# --- approximation


def worth(found: Hits, truth: Hits) -> float:
    """Scores found as a share of the best."""
    return float(np.where(found.rows >= 0, found.scores, 0).sum() / truth.scores[truth.rows >= 0].sum())


@pytest.mark.parametrize("alpha", [0.8, 0.5])
def test_a_lower_alpha_scores_fewer_blocks_and_loses_little(large: InvertedIndex, alpha: float):
    queries, request = topical(60, DIM, 8), SearchRequest(k=10)
    exact, before = large.search_counted(queries, request)
    quick, after = replace(large, alpha=alpha).search_counted(queries, request)
    assert worth(quick, exact) >= 0.9
    work = [counts[:, 3].sum() * 250 + (counts[:, 0] * counts[:, 4]).sum() for counts in (before, after)]
    assert work[1] < work[0]


@pytest.mark.parametrize("setting", [{"beta": 0.7}, {"bound_terms": 6}, {"alpha": 0.7, "beta": 0.8}])
def test_fewer_terms_find_nearly_the_best(large: InvertedIndex, setting: dict[str, float]):
    queries, request = topical(60, DIM, 8), SearchRequest(k=10)
    exact, quick = large.search(queries, request), replace(large, **setting).search(queries, request)
    assert 0.8 <= worth(quick, exact) <= 1.0


def test_a_query_term_that_beta_drops_does_not_count(large: InvertedIndex):
    queries = sparse([{5: 3.0, 6: 2.0, 7: 0.1}], DIM)
    dropped = replace(large, beta=0.6).search(queries, SearchRequest(k=20))
    kept = large.search(sparse([{5: 3.0, 6: 2.0}], DIM), SearchRequest(k=20))
    assert np.array_equal(dropped.rows, kept.rows)
    np.testing.assert_allclose(dropped.scores, kept.scores, rtol=1e-5)


def test_a_time_budget_bounds_the_blocks_scored(large: InvertedIndex):
    queries = topical(40, DIM, 9)
    index = replace(large, _pace=[1e6])
    hits, counts = index.search_counted(queries, SearchRequest(k=10, time_budget_ms=40 * 3))
    assert (counts[counts[:, 4] == 0, 3] <= 3).all()
    assert (hits.rows[:, 0] >= 0).sum() >= (np.diff(queries.indptr) > 0).sum() * 0.9
    assert index._pace[0] != 1e6


# --- explanation and bad input


def test_explanations_add_up_to_the_score(large: InvertedIndex):
    query = topical(3, DIM, 10)[1:2]
    hits = large.search(query, SearchRequest(k=5))
    for row, score, explanation in zip(
        hits.rows[0], hits.scores[0], large.explain(query, hits.rows[0]), strict=True
    ):
        assert explanation.value == pytest.approx(float(score), rel=1e-5)
        own = large.vectors[int(row) : int(row) + 1].indices
        assert {int(part.label) for part in explanation.parts} == set(own) & set(query.indices)
        assert [part.value for part in explanation.parts] == sorted(
            (part.value for part in explanation.parts), reverse=True
        )


@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf")])
def test_weights_that_are_none_are_refused(tmp_path: Path, large: InvertedIndex, value: float):
    with pytest.raises(FormatError, match=r"row 1 has a weight.*term 4"):
        build(tmp_path / "index", sparse([{1: 1.0}, {2: 1.0, 4: value}], 9))
    for allowed in (None, Bitmap.from_rows([1], len(large))):
        with pytest.raises(ConfigError, match="query 1 has a weight"):
            large.search(sparse([{1: 1.0}, {2: value}], DIM), SearchRequest(allowed=allowed))


def test_a_term_outside_the_vocabulary_is_refused(tmp_path: Path):
    with pytest.raises(FormatError, match=r"row 0 has a term.*vocabulary of 9.*term 9"):
        build(tmp_path / "index", sparse([{9: 1.0}], 9))


@pytest.mark.parametrize("term", [-1, DIM, 2**31 - 1])
def test_a_query_term_outside_the_vocabulary_is_refused(large: InvertedIndex, term: int):
    for allowed in (None, Bitmap.from_rows([1], len(large))):
        with pytest.raises(ConfigError, match=r"query 1 has .* outside the vocabulary"):
            large.search(sparse([{1: 1.0}, {term: 1.0}], DIM), SearchRequest(allowed=allowed))


def test_a_query_of_another_vocabulary_is_refused(large: InvertedIndex):
    with pytest.raises(IncompatibleError, match="76 terms"):
        large.search(sparse([{1: 1.0}], DIM + 1), SearchRequest())


@pytest.mark.parametrize(
    ("given_", "word"),
    [
        ({"alpha": 0}, "alpha"),
        ({"beta": 1.5}, "beta"),
        ({"scale": -1.0}, "scale"),
        ({"reorder": 1}, "reorder"),
        ({"bound_terms": -1}, "bound_terms"),
        ({"blocks": 1}, "blocks"),
    ],
)
def test_impossible_parameters_are_refused(given_: dict[str, object], word: str):
    with pytest.raises(ConfigError, match=word):
        InvertedIndex.parameters(given_)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


@pytest.mark.parametrize(
    "name", ["postings", "forward", "rows", "indptr", "windows", "directory", "bounds", "starts"]
)
@pytest.mark.parametrize("damage", [cut_short, emptied, Path.unlink])
def test_damaged_files_are_reported(tmp_path: Path, name: str, damage: Callable[[Path], None]):
    vectors = topical(300, 50, 1)
    build(tmp_path / "index", vectors)
    damage(tmp_path / "index" / f"{name}.npy")
    with pytest.raises(CorruptError):
        InvertedIndex.load(tmp_path / "index", vectors, InvertedIndex.parameters({}))


def test_weights_above_a_fitted_scale_are_counted(tmp_path: Path):
    vectors = sparse([{0: 1.0}, {0: 9.0, 1: 2.0}], 3)
    index = build(tmp_path / "index", vectors, scale=2.0 / 255)
    assert '"weights above the scale": 1' in (tmp_path / "index" / "inverted.json").read_text()
    hits = index.search(sparse([{0: 1.0}], 3), SearchRequest(k=1))
    assert hits.rows[0, 0] == 1
    assert hits.scores[0, 0] == pytest.approx(2.0)
