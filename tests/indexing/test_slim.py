"""The SLIM index against exhaustive sparse MaxSim, its fusing against dense loops, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.slim import fusing
from indexing.slim.building import check_weights
from indexing.slim.index import SlimIndex
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, CorruptError, FormatError, IncompatibleError
from retrieval.exact import sparse_maxsim_scores, sparse_scores
from retrieval.protocols import SearchRequest
from retrieval.topk import top_k
from retrieval.values import MultiSparse, Sparse

DIM = 12
TEXTS = st.lists(
    st.lists(
        st.dictionaries(st.integers(0, DIM - 1), st.floats(0, 4, width=16), max_size=5),
        max_size=4,
    ),
    min_size=1,
    max_size=8,
)


def multisparse(texts: list[list[dict[int, float]]], dim: int = DIM) -> MultiSparse:
    tokens = [token for text in texts for token in text]
    indices = np.array([term for token in tokens for term in sorted(token)], dtype=np.int32)
    values = np.array([token[term] for token in tokens for term in sorted(token)], dtype=np.float32)
    starts = [np.cumsum([0] + [len(part) for part in parts]).astype(np.int64) for parts in (texts, tokens)]
    return MultiSparse(starts[0], Sparse(starts[1], indices, values, dim))


def random_texts(n: int, seed: int, dim: int = 60, tokens: int = 9) -> MultiSparse:
    """Zipfian terms, every seventh text a copy of the one before it."""
    rng = np.random.default_rng(seed)
    texts: list[list[dict[int, float]]] = []
    for number in range(n):
        if number % 7 == 6:
            texts.append(texts[-1])
            continue
        texts.append(
            [
                {int(term): float(rng.random() + 0.1) for term in np.minimum(rng.zipf(1.3, 5), dim) - 1}
                for _ in range(rng.integers(0, tokens))
            ]
        )
    return multisparse(texts, dim)


def build(folder: Path, vectors: MultiSparse, memory_bytes: int = 10**8, **parameters: object) -> SlimIndex:
    folder.mkdir(exist_ok=True)
    chosen = SlimIndex.fit(vectors, SlimIndex.parameters(parameters))
    seen: list[int] = []
    SlimIndex.build(vectors, folder, chosen, memory_bytes=memory_bytes, progress=seen.append)
    assert sum(seen) == len(vectors)
    return SlimIndex.load(folder, vectors, chosen)


def rows_of(vectors: Sparse) -> list[dict[int, float]]:
    return [
        dict(zip(part.indices.tolist(), part.values.tolist(), strict=True))
        for part in (vectors[row : row + 1] for row in range(len(vectors)))
    ]


def truth(queries: MultiSparse, vectors: MultiSparse, mask: np.ndarray | None = None) -> np.ndarray:
    scores = sparse_maxsim_scores(queries, vectors)
    kept = scores > 0 if mask is None else (scores > 0) & mask
    return np.where(kept, scores, -np.inf)


# --- fusing ----------------------------------------------------------------------------------------


def fuse_by_hand(text: list[dict[int, float]], reduce) -> dict[int, float]:
    terms = {term for token in text for term in token}
    fused = {term: reduce(token[term] for token in text if term in token) for term in terms}
    return {term: weight for term, weight in fused.items() if weight > 0}


def heaviest_by_hand(token: dict[int, float]) -> dict[int, float]:
    best = min(token, key=lambda term: (-token[term], term), default=None)
    return {} if best is None else {best: token[best]}


@given(TEXTS)
def test_fused_vectors_are_those_of_the_definition(texts):
    vectors = multisparse(texts)
    heaviest = [[heaviest_by_hand(token) for token in text] for text in texts]
    cases = [
        (fusing.fused_documents(vectors), texts, max),
        (fusing.upper_queries(vectors), texts, sum),
        (fusing.lower_queries(vectors), heaviest, sum),
    ]
    for fused, of, reduce in cases:
        found = rows_of(fused)
        assert fused.dim == DIM and len(found) == len(texts)
        for row, text in zip(found, of, strict=True):
            assert list(row) == sorted(row)
            assert row == pytest.approx(fuse_by_hand(text, reduce))


@given(TEXTS, TEXTS)
def test_the_upper_score_bounds_maxsim_from_above_and_the_lower_from_below(asked, held):
    queries, documents = multisparse(asked), multisparse(held)
    scores, fused = sparse_maxsim_scores(queries, documents), fusing.fused_documents(documents)
    upper = sparse_scores(fusing.upper_queries(queries), fused)
    lower = sparse_scores(fusing.lower_queries(queries), fused)
    slack = 1e-5 * (1 + scores)
    assert (upper >= scores - slack).all()
    assert (lower <= scores + slack).all()


@given(TEXTS, st.floats(0, 1))
def test_the_fused_score_is_the_weighted_sum_of_both(texts, weight):
    queries, documents = multisparse(texts), fusing.fused_documents(multisparse(texts[::-1]))
    upper, lower, fused = (
        sparse_scores(fusing.FUSIONS[name](queries, weight), documents)
        for name in ("upper", "lower", "fused")
    )
    np.testing.assert_allclose(fused, weight * upper + (1 - weight) * lower, rtol=1e-5, atol=1e-6)


@given(TEXTS)
def test_pyserinis_lower_score_is_the_lightest_term_of_the_last_token(texts):
    found = rows_of(fusing.last_term_queries(multisparse(texts)))
    for text, row in zip(texts, found, strict=True):
        terms = [(-weight, term) for token in text[::-1] for term, weight in token.items() if weight > 0]
        last = next((token for token in text[::-1] if any(weight > 0 for weight in token.values())), {})
        assert bool(row) == bool(terms)
        if row:
            weight, term = max((-weight, term) for term, weight in last.items() if weight > 0)
            assert row == {term: -weight}


@pytest.mark.parametrize(
    ("min_idf", "kept"),
    [(0.0, [[0, 1, 2], [0]]), (0.5, [[1, 2], [0]]), (np.log(4), [[2], [0]]), (2.0, [[0, 1, 2], [0]])],
)
def test_common_terms_are_left_out_unless_nothing_else_is_there(min_idf, kept):
    frequencies = np.array([8, 4, 2, 0], dtype=np.int64)
    queries = Sparse(
        np.array([0, 4, 5]), np.array([0, 1, 2, 3, 0], dtype=np.int32), np.ones(5, dtype=np.float32), 4
    )
    left = fusing.without_common_terms(queries, frequencies, 8, min_idf)
    assert [list(row) for row in rows_of(left)] == kept


# --- the index -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", fusing.FUSIONS)
def test_with_a_candidate_for_every_row_hits_are_those_of_exhaustive_maxsim(tmp_path, fusion):
    vectors, queries = random_texts(160, 1), random_texts(20, 2, tokens=4)
    index = build(tmp_path / "index", vectors, fusion=fusion, rescored=160)
    for k in (1, 10, 200):
        hits, want = index.search(queries, SearchRequest(k=k)), top_k(truth(queries, vectors), k)
        assert np.array_equal(hits.rows, want.rows)
        np.testing.assert_allclose(hits.scores, want.scores, rtol=1e-6)


@settings(max_examples=40)
@given(TEXTS, TEXTS, st.integers(1, 9), st.integers(1, 9), st.sampled_from(sorted(fusing.FUSIONS)))
def test_hits_have_their_exact_score_and_are_ordered(tmp_path_factory, held, asked, k, rescored, fusion):
    vectors, queries = multisparse(held), multisparse(asked)
    index = build(tmp_path_factory.mktemp("slim"), vectors, rescored=rescored, factor=1, fusion=fusion)
    hits, scores = index.search(queries, SearchRequest(k=k)), truth(queries, vectors)
    for query, (rows, found) in enumerate(zip(hits.rows, hits.scores, strict=True)):
        n = int((rows >= 0).sum())
        assert (rows[n:] == -1).all() and (found[n:] == -np.inf).all()
        assert len(set(rows[:n].tolist())) == n
        np.testing.assert_allclose(found[:n], scores[query, rows[:n]], rtol=1e-6)
        assert np.lexsort((rows[:n], -found[:n])).tolist() == list(range(n))
        if max(k, rescored) >= len(vectors):
            assert np.array_equal(rows, top_k(scores, k).rows[query])


def test_few_candidates_are_the_best_of_the_fused_score(tmp_path):
    vectors, queries = random_texts(300, 3), random_texts(15, 4, tokens=4)
    index = build(tmp_path / "index", vectors, rescored=10, factor=1, fusion="upper")
    upper = sparse_scores(fusing.upper_queries(queries), fusing.fused_documents(vectors))
    hits = index.search(queries, SearchRequest(k=10))
    for query in range(len(queries)):
        tenth = np.sort(upper[query])[-10]
        found = hits.rows[query][hits.rows[query] >= 0]
        assert (upper[query, found] >= 0.97 * tenth).all()  # impacts are rounded


@pytest.mark.parametrize("share", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("rescored", [5, 400])
def test_filters_are_honoured_inside(tmp_path, share, rescored):
    vectors, queries = random_texts(200, 5), random_texts(10, 6, tokens=4)
    mask = np.random.default_rng(7).random(200) < share
    index = build(tmp_path / "index", vectors, rescored=rescored, factor=1)
    hits = index.search(queries, SearchRequest(k=8, allowed=Bitmap.from_mask(mask)))
    want = top_k(truth(queries, vectors, mask), 8)
    assert mask[hits.rows[hits.rows >= 0]].all()
    assert np.array_equal((hits.rows >= 0).sum(axis=1), (want.rows >= 0).sum(axis=1))
    if rescored == 400:
        assert np.array_equal(hits.rows, want.rows)


def test_common_terms_choose_no_candidates(tmp_path):
    texts = [[{0: 5.0}] for _ in range(30)] + [[{0: 0.5, 1: 1.0}]]
    vectors, query = multisparse(texts), multisparse([[{0: 1.0, 1: 1.0}]])
    index = build(tmp_path / "index", vectors, rescored=1, factor=1)
    assert index.search(query, SearchRequest(k=1)).rows.tolist() == [[0]]
    rare = replace(index, min_idf=1.0)
    assert rare.search(query, SearchRequest(k=1)).rows.tolist() == [[30]]
    assert rare.candidates(10) == 20 and replace(rare, factor=3.0).candidates(10) == 60
    assert rare.with_candidates(50).candidates(10) == 50
    assert rare.search(multisparse([[{0: 1.0}]]), SearchRequest(k=1)).rows.tolist() == [[0]]


def test_little_memory_builds_the_same_files(tmp_path):
    vectors = random_texts(90, 8)
    build(tmp_path / "much", vectors)
    build(tmp_path / "little", vectors, memory_bytes=2000)
    for path in (tmp_path / "much").iterdir():
        assert (tmp_path / "little" / path.name).read_bytes() == path.read_bytes()


def test_texts_and_queries_without_tokens_are_ordinary(tmp_path):
    vectors = multisparse([[], [{1: 2.0}], [{}, {}], [{1: 1.0}, {2: 4.0}]])
    index = build(tmp_path / "index", vectors)
    hits = index.search(multisparse([[], [{}], [{1: 1.0, 2: 0.5}]]), SearchRequest(k=3))
    assert hits.rows.tolist() == [[-1] * 3, [-1] * 3, [1, 3, -1]]
    assert hits.scores[2].tolist() == [2.0, 2.0, -np.inf]
    nothing = build(tmp_path / "nothing", multisparse([[], []]))
    assert (nothing.search(multisparse([[{1: 1.0}]]), SearchRequest()).rows == -1).all()


def test_the_scale_is_learned_once_and_kept(tmp_path):
    vectors = multisparse([[{1: 5.1}, {2: 2.0}], [{2: 1.0}]])
    fitted = SlimIndex.fit(vectors, SlimIndex.parameters({}))
    assert fitted["scale"] == pytest.approx(5.1 / 255)
    assert SlimIndex.fit(vectors[1:], fitted) == fitted


# --- explanations ----------------------------------------------------------------------------------


def test_explanations_name_the_matched_token_and_the_shared_terms(tmp_path):
    vectors = multisparse([[{1: 1.0}, {1: 2.0, 3: 1.0}, {5: 9.0}]])
    index = build(tmp_path / "index", vectors)
    query = multisparse([[{1: 0.5, 3: 4.0}, {7: 1.0}, {1: 1.0}]])
    (whole,) = index.explain(query, np.array([0]))
    first, second, third = whole.parts
    assert (whole.label, whole.value) == ("sparse MaxSim", 7.0)
    assert (first.label, first.value, first.facts) == ("token 0", 5.0, {"position": 1})
    assert [(part.label, part.value) for part in first.parts] == [("3", 4.0), ("1", 1.0)]
    assert first.parts[0].facts == {"query weight": 4.0, "document weight": 1.0}
    assert (second.value, second.parts, second.facts) == (0.0, (), {})
    assert (third.value, third.facts) == (2.0, {"position": 1})
    empty = build(tmp_path / "empty", multisparse([[]]))
    assert [part.value for part in empty.explain(query, np.array([0]))[0].parts] == [0.0] * 3
    assert index.explain(multisparse([[]]), np.array([0]))[0].value == 0.0


# --- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ({2: -1.0}, r"token 1 of row 2 has a weight that is negative or no number: -1.0 \(term 2\)"),
        ({2: np.nan}, r"token 1 of row 2 has a weight that is negative or no number: nan"),
        ({2: np.inf}, r"token 1 of row 2 has a weight that is negative or no number: inf"),
        ({DIM: 1.0}, "token 1 of row 2 has term 12, outside the vocabulary of 12"),
        ({-1: 1.0}, "token 1 of row 2 has term -1, outside the vocabulary of 12"),
    ],
)
def test_unusable_vectors_are_refused_by_name(tmp_path, token, message):
    vectors = multisparse([[{1: 1.0}], [], [{1: 1.0}, token], [{1: 1.0}]])
    parameters = SlimIndex.parameters({})
    for memory_bytes in (1, 10**8):
        with pytest.raises(FormatError, match=message):
            check_weights(vectors, memory_bytes)
        with pytest.raises(FormatError, match=message):
            SlimIndex.build(
                vectors, tmp_path, parameters, memory_bytes=memory_bytes, progress=lambda amount: None
            )
    with pytest.raises(FormatError, match=message):
        SlimIndex.fit(vectors, parameters)


@pytest.mark.parametrize("token", [{2: -1.0}, {2: np.nan}, {2: np.inf}, {DIM: 1.0}, {-1: 1.0}])
@pytest.mark.parametrize("rescored", [1, 100])
def test_unusable_queries_are_refused(tmp_path, token, rescored):
    index = build(tmp_path / "index", multisparse([[{1: 1.0}]] * 4), rescored=rescored, factor=1)
    with pytest.raises(ConfigError, match="query 1 has a weight"):
        index.search(multisparse([[{1: 1.0}], [{1: 1.0}, token]]), SearchRequest(k=1))
    with pytest.raises(IncompatibleError, match="over 13 terms, the index over 12"):
        index.search(multisparse([[{1: 1.0}]], DIM + 1), SearchRequest(k=1))


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"rescored": 0}, "rescored of slim is 0"),
        ({"rescored": True}, "rescored of slim is True"),
        ({"factor": 0.5}, "factor of slim is 0.5; it must be a number from 1 to 1000"),
        ({"fusion": "middle"}, "unknown fusion of slim 'middle'; valid: fused, lower, pyserini, upper"),
        ({"fusion_weight": 1.5}, "fusion_weight of slim is 1.5; it must be a number from 0 to 1"),
        ({"min_idf": -1}, "min_idf of slim is -1; it must be a number from 0 to 100"),
        ({"min_idf": np.nan}, "min_idf of slim is nan"),
        ({"scale": 0}, "scale of inverted is 0"),
        ({"reorder": 1}, "reorder of inverted is 1"),
        ({"alpha": 1}, "unknown parameter of index kind 'slim' 'alpha'; valid: .*min_idf"),
    ],
)
def test_impossible_parameters_are_refused(tmp_path, given_, message):
    with pytest.raises(ConfigError, match=message):
        SlimIndex.parameters(given_)
    if not {"scale", "reorder", "alpha"} & set(given_):
        index = build(tmp_path / "index", multisparse([[{1: 1.0}]]))
        with pytest.raises(ConfigError, match=message):
            replace(index, **given_)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"n": 4, "dim": 12, "tokens": 5}'])
def test_damaged_facts_are_corrupt(tmp_path, content):
    vectors = multisparse([[{1: 1.0}]] * 4)
    build(tmp_path / "index", vectors)
    (tmp_path / "index" / "slim.json").write_text(content)
    with pytest.raises(CorruptError, match=r"slim\.json"):
        SlimIndex.load(tmp_path / "index", vectors, SlimIndex.parameters({}))


@pytest.mark.parametrize("name", ["frequencies", "fused_values", "fused_indptr"])
def test_files_that_do_not_belong_together_are_corrupt(tmp_path, name):
    vectors = multisparse([[{1: 1.0}]] * 4)
    build(tmp_path / "index", vectors)
    path = tmp_path / "index" / f"{name}.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(CorruptError, match=r"fused_indptr|frequencies"):
        SlimIndex.load(tmp_path / "index", vectors, SlimIndex.parameters({}))
    assert json.loads((tmp_path / "index" / "slim.json").read_text()) == {"n": 4, "dim": 12, "tokens": 4}
