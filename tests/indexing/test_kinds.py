"""What every index kind promises: one suite over the table of kinds, each in several variants."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexing.kinds import KINDS, kind_class
from retrieval import compute
from retrieval.bitmap import Bitmap
from retrieval.encoders import query_value
from retrieval.errors import ConfigError, CorruptError, IncompatibleError, MissingExtraError
from retrieval.exact import (
    dense_scores,
    maxsim_scores,
    query_network_scores,
    sparse_maxsim_scores,
    sparse_scores,
)
from retrieval.exact_terms import bm25_scores
from retrieval.protocols import SearchRequest
from retrieval.topk import merge, top_k
from retrieval.values import Dense, Hits, MultiSparse, MultiVector, QueryNetwork, Sparse, Strings, Terms

N = 700  # above the rows that make HNSW scan anyway, small enough to build in a blink

VARIANTS: dict[str, dict[str, tuple[dict[str, Any], Any]]] = {
    "flat": {"float32": ({}, np.float32), "float16": ({}, np.float16)},
    "hnsw": {
        "tercet": ({}, np.float32),
        "tercet-float16": ({"m": 24, "ef_construction": 60, "ef": 100, "rescored": 60}, np.float16),
        "tercet-vectors": ({"codes": "none"}, np.float16),
        "tercet-prefix": ({"prefix": 16, "ef": 200, "rescored": 200}, np.float32),
        "faiss": ({"backend": "faiss"}, np.float32),
        "faiss-float16": ({"backend": "faiss", "m": 24, "ef_construction": 60, "ef": 100}, np.float16),
        "hnswlib": ({"backend": "hnswlib"}, np.float32),
        "hnswlib-float16": ({"backend": "hnswlib", "ef": 30}, np.float16),
    },
    "ivf": {
        "lists": ({"factory": "IVF16,Flat", "nprobe": 12}, np.float32),
        "bytes": ({"factory": "IVF16,SQ8", "nprobe": 12}, np.float16),
        "fast-scan": ({"factory": "OPQ10,IVF16,PQ10x4fs", "nprobe": 12, "rescored": 300}, np.float32),
        "bits": ({"factory": "IVF16,RaBitQ", "nprobe": 12, "rescored": 300}, np.float32),
        "refined": ({"factory": "PCA16,IVF16,SQ8,Refine(SQfp16)", "nprobe": 12, "rescored": 100}, np.float32),
        "no-selector": ({"factory": "PQ10x4fs,RFlat", "rescored": 300}, np.float32),
        "prefix": (
            {"factory": "IVF16,SQ8", "nprobe": 13, "prefix": 12, "rotation": "pca", "rescored": 60},
            np.float32,
        ),
        "flat": ({"factory": "Flat"}, np.float32),
    },
    "binary": {
        "itq": ({"rescored": 300}, np.float32),
        "unrotated-float16": ({"rescored": 300, "rotation": "none"}, np.float16),
    },
    "inverted": {  # with the scale of the generated weights, so that rounding changes none
        "reordered": ({"scale": 0.02}, np.float32),
        "as-given": ({"scale": 0.02, "reorder": False}, np.float32),
        "added-up": ({"scale": 0.02, "bound_terms": 0}, np.float32),
    },
    "hypencoder": {"float32": ({}, np.float32), "float16": ({}, np.float16)},
    "hypencoder-graph": {
        "small-rounds": ({"ncandidates": 150}, np.float32),
        "few-neighbours": ({"neighbours": 8, "entries": 60, "ncandidates": 80, "explored": 80}, np.float16),
        "every-row": ({"entries": N, "max_iter": 0}, np.float32),
    },
    "maxsim": {"float32": ({}, np.float32), "float16": ({}, np.float16)},
    "fde": {
        "int8": ({"rescored": 400}, np.float16),
        "float16": ({"rescored": 400, "storage": "float16", "projection": "signs", "power": 1.0}, np.float32),
        "hnsw": (
            {"rescored": 400, "storage": "float16", "first_stage": "hnsw", "projection": "identity"},
            np.float16,
        ),
        "pq": ({"rescored": 400, "storage": "pq", "repetitions": 15}, np.float16),
        "counts": (
            {"rescored": 400, "projection": "counts", "final": "counts", "final_dims": 700},
            np.float32,
        ),
        "signs": ({"rescored": 400, "projection": "sparse", "final": "signs", "final_dims": 700}, np.float32),
        "carved": ({"rescored": 400, "ball_carving": 0.7, "fill": False}, np.float16),
    },
    "plaid": {
        "4-bits": ({}, np.float16),
        "1-bit": ({"bits": 1, "nprobe": 30}, np.float32),
        "every-row": ({"bits": 2, "ndocs": N, "centroids": 40}, np.float16),
        "on-disk": ({"bits": 2, "resident_bytes": 20_000}, np.float16),
    },
    "slim": {
        "fused": ({}, np.float32),
        "upper-as-given": ({"fusion": "upper", "rescored": 300, "reorder": False}, np.float32),
        "every-row": ({"rescored": N}, np.float32),
    },
}
"""Kind -> variant -> (parameters, dtype); a kind that is not here is tried as it is."""

CASES = [(kind, variant) for kind in KINDS for variant in VARIANTS.get(kind, {"default": ({}, np.float32)})]


@dataclass
class Case:
    """An index of a kind over generated vectors, and the truth about them."""

    kind: str
    parameters: dict[str, Any]
    vectors: Any
    queries: Any
    folder: Path

    @property
    def made(self) -> Any:
        return kind_class(self.kind)

    def index(self, vectors: Any = None, name: str = "whole") -> Any:
        vectors = self.vectors if vectors is None else vectors
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir()
            seen = []
            self.made.build(
                vectors, folder, self.parameters, memory_bytes=10**8, progress=seen.append, **self.shared
            )
            assert sum(seen) == len(vectors)
        return self.load(folder, vectors)

    def load(self, folder: Path, vectors: Any) -> Any:
        return self.made.load(folder, vectors, self.parameters, **self.shared)

    @cached_property
    def shared(self) -> dict[str, Path]:
        """What a kind that is trained is given besides."""
        if not hasattr(self.made, "train"):
            return {}
        folder = self.folder / "shared"
        folder.mkdir()
        self.made.train(
            self.vectors, self.parameters, folder, memory_bytes=10**8, progress=lambda steps: None
        )
        return {"shared": folder}

    @property
    def asks_with_networks(self) -> bool:
        return query_value(self.made) is QueryNetwork

    def truth(self, allowed: Bitmap | None = None) -> np.ndarray:
        """(Q, N) exact scores, -inf for what may not be returned."""
        return self.scores if allowed is None else np.where(allowed.mask(), self.scores, -np.inf)

    @cached_property
    def scores(self) -> np.ndarray:
        if self.made.value is MultiVector:
            index = self.index()
            compressed = hasattr(index, "documents")  # its score is that of what it decompresses
            documents = index.documents.decode(np.arange(N)) if compressed else self.vectors
            scores = maxsim_scores(self.queries, documents)
            return np.where(np.diff(documents.indptr) > 0, scores, 0)
        oracles = {
            Dense: query_network_scores if self.asks_with_networks else dense_scores,
            Sparse: sparse_scores,
            MultiSparse: sparse_maxsim_scores,
            Terms: bm25_scores,
        }
        scores = oracles[self.made.value](self.queries, self.vectors)
        return scores if self.made.value is Dense else np.where(scores > 0, scores, -np.inf)


def make_dense(n: int, seed: int, dtype: Any) -> Dense:
    """Clustered vectors, every tenth a copy of the row before it so that there are ties."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((12, 20))
    values = centres[rng.integers(0, 12, n)] + 0.5 * rng.standard_normal((n, 20))
    values[9::10] = values[8::10][: len(values[9::10])]
    return Dense(values.astype(dtype))


def make_terms(n: int, seed: int) -> Terms:
    """Zipfian term frequencies over a small vocabulary, every tenth row a copy of the row before it."""
    rng = np.random.default_rng(seed)
    rows: list[np.ndarray] = []
    for number in range(n):
        copied = number % 10 == 9
        rows.append(rows[-1] if copied else np.minimum(rng.zipf(1.4, rng.integers(0, 12)), 60) - 1)
    counted = [np.unique(row, return_counts=True) for row in rows]
    indptr = np.concatenate([[0], np.cumsum([len(terms) for terms, _ in counted])]).astype(np.int64)
    none = [np.empty(0, dtype=np.int64)]
    return Terms(
        indptr,
        np.concatenate(none + [terms for terms, _ in counted]).astype(np.int32),
        np.concatenate(none + [counts for _, counts in counted]).astype(np.int32),
        np.array([[len(row)] for row in rows], dtype=np.int32).reshape(n, 1),
        Strings.of(f"term{number}" for number in range(60)),
        np.zeros(60, dtype=np.uint8),
    )


def make_sparse(n: int, seed: int) -> Sparse:
    """Zipfian terms with weights in steps of 0.02, which 8 bits hold; every tenth row a copy of the row before it."""
    terms = make_terms(n, seed)
    steps = np.minimum(terms.frequencies * 7 + terms.indices, 255).astype(np.float32)
    return Sparse(terms.indptr, terms.indices, steps * np.float32(0.02), 60)


def make_multisparse(n: int, seed: int) -> MultiSparse:
    """Up to five tokens of such terms, every tenth row a copy of the row before it."""
    rng = np.random.default_rng(seed)
    tokens = make_sparse(3 * n, seed)
    rows: list[np.ndarray] = []
    for number in range(n):
        rows.append(rows[-1] if number % 10 == 9 else rng.integers(0, len(tokens), rng.integers(0, 6)))
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return MultiSparse(indptr, tokens.take(np.concatenate(rows)))


def make_multivector(n: int, seed: int, dtype: Any) -> MultiVector:
    """Up to eight unit vectors a row, near centres of its own; every tenth row a copy of the row before it."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(98).standard_normal((60, 20))
    rows: list[np.ndarray] = []
    for number in range(n):
        if number % 10 == 9:
            rows.append(rows[-1])
            continue
        size = rng.integers(0, 9)
        values = centres[rng.integers(0, 60, size)] + 0.4 * rng.standard_normal((size, 20))
        rows.append(values / np.linalg.norm(values, axis=1, keepdims=True))
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return MultiVector(indptr, np.concatenate(rows).astype(dtype))


def make_networks(n: int, seed: int) -> QueryNetwork:
    """Networks of two hidden layers in the paper's form."""
    rng = np.random.default_rng(seed)
    shapes = [(n, 20, 20), (n, 20, 20), (n, 1, 20)]
    weights = tuple((0.3 * rng.standard_normal(shape)).astype(np.float32) for shape in shapes)
    biases = tuple((0.1 * rng.standard_normal((n, 20))).astype(np.float32) for _ in range(2))
    return QueryNetwork(weights, biases)


def make(value: type, n: int, seed: int, dtype: Any) -> Any:
    if value is QueryNetwork:
        return make_networks(n, seed)
    if value is Dense:
        return make_dense(n, seed, dtype)
    if value is Terms:
        return make_terms(n, seed)
    if value is Sparse:
        return make_sparse(n, seed)
    if value is MultiSparse:
        return make_multisparse(n, seed)
    if value is MultiVector:
        return make_multivector(n, seed, dtype)
    pytest.skip(f"no generator of {value.__name__} here")


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, tmp_path_factory):
    kind, variant = request.param
    given, dtype = VARIANTS.get(kind, {}).get(variant, ({}, np.float32))
    made = kind_class(kind)
    folder = tmp_path_factory.mktemp("vectors")
    make(made.value, N, 1, dtype).save(folder)
    queries = make(query_value(made), 40, 2, np.float32)
    case = Case(kind, made.parameters(given), made.value.load(folder), queries, tmp_path_factory.mktemp(kind))
    try:
        case.index()
    except MissingExtraError as error:
        pytest.skip(str(error))
    return case


def check(case: Case, hits: Hits, truth: np.ndarray, k: int) -> None:
    """Hits are real, complete, ordered, and the best where the kind is exact."""
    assert hits.rows.shape == (len(truth), k)
    found_of_all, asked_of_all = 0, 0
    for query, line in enumerate(truth):
        n = min(k, int((line > -np.inf).sum()))
        rows, scores = hits.rows[query], hits.scores[query]
        assert (rows[n:] == -1).all()
        assert (scores[n:] == -np.inf).all()
        rows, scores = rows[:n], scores[:n]
        assert (rows >= 0).all()
        assert len(set(rows.tolist())) == n
        np.testing.assert_allclose(scores, line[rows], rtol=1e-5, atol=1e-6)
        assert np.lexsort((rows, -scores)).tolist() == list(range(n))
        best = np.sort(line)[::-1][:n]
        if case.made.exact:
            np.testing.assert_allclose(scores, best, rtol=1e-5, atol=1e-6)
        found_of_all += int((scores >= best[-1] - 1e-5).sum()) if n else 0
        asked_of_all += n
    assert asked_of_all == 0 or found_of_all / asked_of_all >= 0.95


def test_every_entry_of_the_table_resolves(case):
    assert case.made.kind == case.kind
    assert isinstance(case.made.exact, bool)


@pytest.mark.parametrize("k", [1, 10, 100])
def test_results_are_those_of_exact_scoring(case, k):
    check(case, case.index().search(case.queries, SearchRequest(k=k)), case.truth(), k)


def test_exact_dense_kinds_equal_the_oracle_to_the_last_bit(case):
    if not (case.made.exact and query_value(case.made) is Dense):
        pytest.skip("scores are defined by a float32 sum, or rows are found approximately")
    hits, expected = case.index().search(case.queries, SearchRequest(k=50)), top_k(case.truth(), 50)
    assert np.array_equal(hits.rows, expected.rows)
    assert np.array_equal(hits.scores, expected.scores)


def test_asking_for_more_than_there_is_returns_everything(case):
    check(case, case.index().search(case.queries[:3], SearchRequest(k=N + 5)), case.truth()[:3], N + 5)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.05, 0.5, 0.97])
def test_a_filter_is_honoured_exactly(case, share):
    mask = np.random.default_rng(3).random(N) < share
    if share == 0.002:
        mask[[5, 300]] = True
    allowed = Bitmap.from_mask(mask)
    hits = case.index().search(case.queries, SearchRequest(k=10, allowed=allowed))
    assert mask[hits.rows[hits.rows >= 0]].all()
    check(case, hits, case.truth(allowed), 10)


def test_a_filter_that_allows_everything_changes_nothing(case):
    index = case.index()
    plain = index.search(case.queries, SearchRequest(k=10))
    full = index.search(case.queries, SearchRequest(k=10, allowed=Bitmap.full(N)))
    assert np.array_equal(plain.rows, full.rows)
    assert np.array_equal(plain.scores, full.scores)


def test_an_index_opened_again_answers_the_same(case):
    first = case.index().search(case.queries, SearchRequest(k=20))
    again = case.load(case.folder / "whole", case.vectors)
    second = again.search(case.queries, SearchRequest(k=20))
    assert len(again) == N
    assert np.array_equal(first.rows, second.rows)
    assert np.array_equal(first.scores, second.scores)


def test_batch_shape_and_order_of_queries_do_not_matter(case):
    index, request = case.index(), SearchRequest(k=15)
    whole = index.search(case.queries, request)
    single = Hits.concat([index.search(case.queries[i : i + 1], request) for i in range(len(case.queries))])
    backwards = index.search(case.queries.take(np.arange(len(case.queries))[::-1]), request)
    for other in (single.rows, backwards.rows[::-1]):
        assert np.array_equal(whole.rows, other)
    for other in (single.scores, backwards.scores[::-1]):
        assert np.array_equal(whole.scores, other)


def test_exact_kinds_answer_the_same_in_one_segment_or_three(case):
    if not case.made.exact:
        pytest.skip("an approximate kind finds other rows in other segments")
    bounds = [0, 150, 151, N]
    parts = [
        case.index(case.vectors[start:stop], f"part-{start}") for start, stop in itertools.pairwise(bounds)
    ]
    if hasattr(case.made, "statistics"):
        shares = [part.statistics(case.queries, None) for part in parts]
        total = shares[0] + shares[1] + shares[2]
        parts = [part.with_statistics(total) for part in parts]
    found = []
    for part, base in zip(parts, bounds, strict=False):
        hits = part.search(case.queries, SearchRequest(k=12))
        found.append(Hits(np.where(hits.rows >= 0, hits.rows + base, -1), hits.scores))
    merged, whole = merge(found, 12), case.index().search(case.queries, SearchRequest(k=12))
    assert np.array_equal(merged.rows, whole.rows)
    assert np.array_equal(merged.scores, whole.scores)


def test_an_empty_index_and_no_queries_are_ordinary(case):
    empty = case.index(case.vectors[:0], "empty")
    assert len(empty) == 0
    assert (empty.search(case.queries, SearchRequest(k=4)).rows == -1).all()
    assert empty.search(case.queries, SearchRequest(k=4)).rows.shape == (len(case.queries), 4)
    assert case.index().search(case.queries[:0], SearchRequest(k=4)).rows.shape == (0, 4)
    assert empty.search(case.queries[:0], SearchRequest(allowed=Bitmap.empty(0))).rows.shape == (0, 10)


@pytest.mark.parametrize("n", [1, 2])
def test_an_index_of_hardly_any_rows_works(case, n):
    row = int((case.truth() > -np.inf).sum(axis=0).argmax())
    small = case.index(case.vectors.take(np.full(n, row)), f"small-{n}")
    hits = small.search(case.queries, SearchRequest(k=3))
    assert {tuple(line) for line in hits.rows.tolist()} <= {(*range(n), *[-1] * (3 - n)), (-1, -1, -1)}
    assert (hits.rows[:, 0] == 0).any()


def test_equal_scores_are_ordered_by_row(case):
    row = int((case.truth() > -np.inf).sum(axis=0).argmax())
    same = case.index(case.vectors.take(np.full(60, row)), "ties")
    hits = same.search(case.queries, SearchRequest(k=60))
    answered = hits.rows[hits.rows[:, 0] >= 0]
    assert len(answered)
    assert (answered == np.arange(60)).all()


def test_eight_threads_answer_as_one_does(case):
    index = case.index()
    requests = [
        SearchRequest(k=k, allowed=allowed)
        for k in (1, 7, 30)
        for allowed in (None, Bitmap.from_mask(np.random.default_rng(k).random(N) < 0.3))
    ]
    jobs = [(start, request) for start in range(0, 40, 4) for request in requests]

    def answer(job):
        start, request = job
        return index.search(case.queries[start : start + 4], request)

    serial = [answer(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(answer, jobs * 3))
    for one, other in zip(serial * 3, together, strict=True):
        assert np.array_equal(one.rows, other.rows)
        assert np.array_equal(one.scores, other.scores)


def test_the_number_of_threads_does_not_change_the_answer(case):
    index, answers = case.index(), []
    for threads in (1, 3):
        compute.set_threads(threads)
        try:
            answers.append(index.search(case.queries, SearchRequest(k=9)))
        finally:
            compute.set_threads(None)
    assert np.array_equal(answers[0].rows, answers[1].rows)
    assert np.array_equal(answers[0].scores, answers[1].scores)


def test_parameters_are_filled_in_and_unknown_ones_refused(case):
    full = case.made.parameters({})
    assert case.made.parameters(full) == full
    with pytest.raises(ConfigError, match="no_such_thing"):
        case.made.parameters({"no_such_thing": 1})


def test_searching_changes_nothing_on_disk(case):
    index = case.index()
    before = {path.name: path.read_bytes() for path in (case.folder / "whole").iterdir()}
    index.search(case.queries, SearchRequest(k=5))
    assert {path.name: path.read_bytes() for path in (case.folder / "whole").iterdir()} == before


def test_explanations_have_the_scores_of_the_hits(case):
    index, query = case.index(), case.queries[:1]
    hits = index.search(query, SearchRequest(k=5))
    rows = hits.rows[0][hits.rows[0] >= 0]
    explained = index.explain(query, rows)
    np.testing.assert_allclose([part.value for part in explained], hits.scores[0][: len(rows)], rtol=1e-6)
    assert index.explain(query, np.empty(0, dtype=np.int64)) == []


def test_a_missing_or_cut_file_is_corrupt(case, tmp_path):
    files = [path for path in (case.folder / "whole").iterdir() if path.stat().st_size]
    for damaged in files:
        for damage in ("missing", "cut"):
            folder = tmp_path / f"{damaged.name}-{damage}"
            folder.mkdir()
            for path in files:
                (folder / path.name).write_bytes(path.read_bytes())
            if damage == "missing":
                (folder / damaged.name).unlink()
            else:
                (folder / damaged.name).write_bytes(damaged.read_bytes()[:-3])
            with pytest.raises(CorruptError, match=damaged.name.replace(".", r"\.")):
                index = case.load(folder, case.vectors)
                index.search(case.queries, SearchRequest())


def test_an_index_does_not_open_over_other_vectors(case):
    with pytest.raises(CorruptError):
        case.load(case.folder / "whole", case.vectors[: N - 1])


def test_unusable_dense_queries_are_refused(case):
    index = case.index()
    if query_value(case.made) is not Dense:
        pytest.skip("terms have no width, and networks are checked by their own tests")
    with pytest.raises(IncompatibleError, match="width 3, the index 20"):
        index.search(Dense(np.ones((1, 3), np.float32)), SearchRequest())
    broken = np.ones((2, 20), np.float32)
    broken[1, 4] = np.nan
    with pytest.raises(ValueError, match="query vector 1 "):
        index.search(Dense(broken), SearchRequest())
    with pytest.raises(ValueError, match="bitmap is for 3 rows"):
        index.search(case.queries, SearchRequest(allowed=Bitmap.full(3)))


def test_queries_in_half_precision_are_taken_too(case):
    if query_value(case.made) is not Dense:
        pytest.skip("terms have no precision, and a network's hidden layers are not those of a rounded one")
    half = Dense(case.queries.values.astype(np.float16))
    full = Dense(half.values.astype(np.float32))
    index = case.index()
    assert np.array_equal(index.search(half, SearchRequest()).rows, index.search(full, SearchRequest()).rows)


def test_search_parameters_are_replaced_in_a_view(case):
    index = case.index()
    if not hasattr(index, "ef"):
        pytest.skip("no search-time parameter")
    wider = replace(index, ef=200)
    assert (index.ef, wider.ef) == (case.parameters["ef"], 200)
    assert wider.graph is index.graph
    check(case, wider.search(case.queries, SearchRequest(k=10)), case.truth(), 10)


def test_an_unknown_kind_is_an_error_that_lists_the_known():
    with pytest.raises(ConfigError, match="flat"):
        kind_class("annoy")
