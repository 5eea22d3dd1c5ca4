"""The BM25 index against naive scoring, over any windows, segments, deletes and filters."""

import itertools
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexing.bm25 import index as bm25
from indexing.bm25.index import Bm25Index, scratch_arrays
from indexing.bm25.inversion import unify_terms
from retrieval.bitmap import Bitmap
from retrieval.compute import set_threads
from retrieval.encoders.terms import TermsEncoder
from retrieval.errors import ConfigError, CorruptError, IncompatibleError
from retrieval.exact_terms import bm25_scores
from retrieval.protocols import SearchRequest
from retrieval.topk import top_k
from retrieval.values import Document, Hits, Terms


def zipf_documents(n, seed=0, vocabulary=60, longest=40):
    rng = np.random.default_rng(seed)
    ranks = 1 / np.arange(1, vocabulary + 1)
    words = [f"w{i}k" for i in range(vocabulary)]
    documents = []
    for row in range(n):
        text = rng.choice(words, size=rng.integers(0, longest), p=ranks / ranks.sum())
        title = rng.choice(words, size=rng.integers(0, 4))
        documents.append(Document(str(row), " ".join(text), " ".join(title)))
    return documents


def built(terms, folder, parameters=None, memory_bytes=1 << 20):
    """Save the rows, build and open an index over them."""
    (folder / "vectors").mkdir(parents=True)
    (folder / "index").mkdir()
    terms.save(folder / "vectors")
    rows = Terms.load(folder / "vectors")
    filled = Bm25Index.parameters(parameters or {})
    seen = []
    Bm25Index.build(rows, folder / "index", filled, memory_bytes=memory_bytes, progress=seen.append)
    assert sum(seen) == len(terms)
    return Bm25Index.load(folder / "index", rows, filled)


def expected_hits(queries, rows, k, allowed=None, **scoring):
    scores = bm25_scores(queries, rows, **scoring)
    scores[scores == 0] = -np.inf
    if allowed is not None:
        scores[:, ~allowed.mask()] = -np.inf
    return scores, top_k(scores, k)


def assert_best(hits, queries, rows, k, **options):
    """Hits hold the k best; equal scores may only be told apart by the last bits of a float32."""
    scores, best = expected_hits(queries, rows, k, **options)
    assert hits.rows.shape == (len(queries), k)
    np.testing.assert_allclose(hits.scores, best.scores, rtol=2e-6)
    for query in range(len(queries)):
        found = hits.rows[query][hits.rows[query] >= 0]
        assert len(set(found.tolist())) == len(found)
        np.testing.assert_allclose(hits.scores[query, : len(found)], scores[query, found], rtol=2e-6)
        ties = np.diff(hits.scores[query, : len(found)]) == 0
        assert np.all((np.diff(found) > 0) | ~ties)


QUERIES = [
    "w0k w1k w2k",
    "w40k w3k",
    "w59k",
    "w5k w5k w5k w10k",
    "",
    "the",
    "unknown w7k",
    " ".join(f"w{i}k" for i in range(60)),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    encoder = TermsEncoder()
    rows = encoder.encode_documents(zipf_documents(3000))
    return encoder.encode_queries(QUERIES), rows, built(rows, tmp_path_factory.mktemp("bm25"))


@pytest.fixture(params=[1 << 16, 700, 64])
def windows(request, monkeypatch):
    """Windows of at most so many rows, so that a small corpus takes many of them and prunes."""

    class Scratch(threading.local):
        def __init__(self):
            self.arrays = scratch_arrays(request.param)

    monkeypatch.setattr(bm25, "_scratch", Scratch())


@pytest.mark.parametrize("k", [1, 2, 10, 100, 2999, 5000])
def test_search_equals_naive_scoring(corpus, windows, k):
    queries, rows, index = corpus
    assert_best(index.search(queries, SearchRequest(k=k)), queries, rows, k)
    assert not any(array.any() for array in bm25._scratch.arrays[:1])  # accumulators are left clear


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.9, 1.0])
def test_filters_are_honoured_exactly(corpus, windows, share):
    queries, rows, index = corpus
    allowed = Bitmap.from_mask(np.random.default_rng(1).random(len(rows)) < share)
    hits = index.search(queries, SearchRequest(k=20, allowed=allowed))
    assert_best(hits, queries, rows, 20, allowed=allowed)


def test_many_equal_scores_are_ordered_by_row(tmp_path, windows):
    encoder = TermsEncoder()
    rows = encoder.encode_documents(
        [Document(str(i), ("same words" if i % 3 else "other")) for i in range(2000)]
    )
    hits = built(rows, tmp_path).search(encoder.encode_queries(["words", "other same"]), SearchRequest(k=50))
    assert hits.rows[0].tolist() == [i for i in range(2000) if i % 3][:50]
    assert hits.rows[1].tolist() == [i for i in range(2000) if i % 3 == 0][:50]


def test_batches_threads_and_single_queries_agree_to_the_bit(corpus):
    index = corpus[2]
    many = TermsEncoder().encode_queries(QUERIES * 10)
    serial = index.search(many, SearchRequest(k=10))
    outcomes: dict[int, Hits] = {}
    workers = [
        threading.Thread(target=lambda i=i: outcomes.update({i: index.search(many, SearchRequest(k=10))}))
        for i in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    set_threads(3)
    try:
        outcomes[8] = index.search(many, SearchRequest(k=10))
    finally:
        set_threads(None)
    outcomes[9] = Hits.concat([index.search(many[i : i + 1], SearchRequest(k=10)) for i in range(len(many))])
    for hits in outcomes.values():
        np.testing.assert_array_equal(hits.rows, serial.rows)
        np.testing.assert_array_equal(hits.scores, serial.scores)


@given(
    st.integers(0, 40),
    st.lists(st.integers(0, 40), max_size=4),
    st.lists(st.integers(0, 39), max_size=15),
    st.integers(0, 5),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_segments_and_deletes_equal_a_rebuild_to_the_bit(tmp_path_factory, n, cuts, deleted, seed):
    encoder = TermsEncoder.open("", {"fields": ["title", "text"]})
    documents = zipf_documents(n, seed, vocabulary=12, longest=10)
    queries = encoder.encode_queries(["w0k w1k w2k w3k", "w11k w4k w0k w0k"])
    kept = [row for row in range(n) if row not in deleted]
    options = {"weights": {"title": 2.5}}
    whole = built(
        encoder.encode_documents([documents[row] for row in kept]), tmp_path_factory.mktemp("whole"), options
    )
    expected = whole.search(queries, SearchRequest(k=50))

    bounds = [0, *sorted(min(cut, n) for cut in cuts), n]
    parts = []
    for start, stop in itertools.pairwise(bounds):
        index = built(
            encoder.encode_documents(documents[start:stop]), tmp_path_factory.mktemp("part"), options
        )
        live = Bitmap.from_rows([row - start for row in kept if start <= row < stop], stop - start)
        parts.append((start, index, live))
    total = None
    for _, index, live in parts:
        share = index.statistics(queries, live)
        total = share if total is None else total + share
    number = {row: position for position, row in enumerate(kept)}
    found: list[dict[int, float]] = [{}, {}]
    for start, index, live in parts:
        hits = index.with_statistics(total).search(queries, SearchRequest(k=50, allowed=live))
        for query in range(2):
            found[query].update(
                {
                    number[int(r) + start]: float(s)
                    for r, s in zip(hits.rows[query], hits.scores[query], strict=True)
                    if r >= 0
                }
            )
    for query in range(2):
        want = {
            int(r): float(s)
            for r, s in zip(expected.rows[query], expected.scores[query], strict=True)
            if r >= 0
        }
        assert found[query] == want


def test_fields_and_weights_add_up(tmp_path):
    encoder = TermsEncoder.open("", {"fields": ["title", "text"]})
    rows = encoder.encode_documents(zipf_documents(400, 3))
    queries = encoder.encode_queries(QUERIES)
    index = built(rows, tmp_path, {"weights": {"title": 3.0, "text": 0.5}, "k1": 1.2, "b": 0.75})
    hits = index.search(queries, SearchRequest(k=30))
    assert_best(hits, queries, rows, 30, weights={"title": 3.0, "text": 0.5}, k1=1.2, b=0.75)


def test_k1_and_b_can_be_replaced_at_search_time(corpus, windows):
    queries, rows, index = corpus
    for k1, b in ((0.0, 0.0), (2.0, 1.0)):
        hits = replace(index, k1=k1, b=b).search(queries, SearchRequest(k=10))
        assert_best(hits, queries, rows, 10, k1=k1, b=b)


def test_other_collection_statistics_keep_pruning_exact(corpus, windows, tmp_path):
    queries, rows, index = corpus
    encoder = TermsEncoder()
    other = built(encoder.encode_documents(zipf_documents(200, 9, longest=400)), tmp_path)
    statistics = index.statistics(queries) + other.statistics(queries)
    view = index.with_statistics(statistics)
    everything = view.search(queries, SearchRequest(k=len(rows)))
    for k in (1, 7, 100):
        hits = view.search(queries, SearchRequest(k=k))
        np.testing.assert_array_equal(hits.rows, everything.rows[:, :k])
        np.testing.assert_array_equal(hits.scores, everything.scores[:, :k])


def test_an_explanation_adds_up_to_the_score(corpus):
    queries, _, index = corpus
    hits = index.search(queries, SearchRequest(k=5))
    explained = index.explain(queries, hits.rows[0])
    assert [part.value for part in explained] == hits.scores[0].tolist()
    assert explained[0].value == pytest.approx(sum(part.value for part in explained[0].parts))
    facts = explained[0].parts[0].facts
    assert facts["tf"] >= 1 and facts["df"] >= 1 and facts["n_documents"] > 0 and facts["average_length"] > 0


@pytest.mark.parametrize("texts", [[], [""], ["", "the", "a"]])
def test_empty_collections_and_documents_are_ordinary(tmp_path, texts):
    encoder = TermsEncoder()
    index = built(
        encoder.encode_documents([Document(str(i), text) for i, text in enumerate(texts)]), tmp_path
    )
    hits = index.search(encoder.encode_queries(["fox", ""]), SearchRequest(k=3))
    assert len(index) == len(texts) and (hits.rows == -1).all() and hits.k == 3
    assert len(index.search(encoder.encode_queries([]), SearchRequest(k=3))) == 0


def test_a_small_memory_builds_the_same_index(tmp_path):
    rows = TermsEncoder().encode_documents(zipf_documents(300))
    one, two = built(rows, tmp_path / "one"), built(rows, tmp_path / "two", memory_bytes=1000)
    for left, right in zip(one._files, two._files, strict=True):
        np.testing.assert_array_equal(left, right)


def test_many_distinct_frequencies_need_wide_codes(tmp_path):
    # lengths and frequencies chosen so that there are more than 65,536 distinct pairs
    rng = np.random.default_rng(0)
    n = 70_000
    frequencies = np.arange(1, n + 1, dtype=np.int32)
    plain = TermsEncoder().encode_documents([Document("0", "a few words here")])
    rows = Terms(
        np.arange(n + 1, dtype=np.int64),
        rng.integers(0, 4, n).astype(np.int32) % len(plain.vocabulary),
        frequencies,
        frequencies.reshape(-1, 1),
        plain.vocabulary,
        plain.term_fields,
    )
    index = built(rows, tmp_path)
    assert index._files.codes.dtype == np.uint32
    queries = TermsEncoder().encode_queries(["few words"])
    assert_best(index.search(queries, SearchRequest(k=10)), queries, rows, 10)


def test_unified_parts_equal_one_batch(tmp_path):
    encoder = TermsEncoder.open("", {"fields": ["title", "text"]})
    documents = zipf_documents(500, 5)
    parts = []
    for number, start in enumerate((0, 100, 100, 450)):
        stop = (100, 100, 450, 500)[number]
        parts.append(tmp_path / f"part{number}")
        parts[-1].mkdir()
        encoder.encode_documents(documents[start:stop]).save(parts[-1])
    (tmp_path / "joined").mkdir()
    assert unify_terms(parts, tmp_path / "joined") == 500
    joined, whole = Terms.load(tmp_path / "joined"), encoder.encode_documents(documents)
    np.testing.assert_array_equal(joined.indptr, whole.indptr)
    np.testing.assert_array_equal(joined.lengths, whole.lengths)

    def named(terms):
        names = list(zip(terms.term_fields.tolist(), terms.vocabulary, strict=True))
        return [
            sorted(
                (names[terms.indices[i]], int(terms.frequencies[i]))
                for i in range(terms.indptr[r], terms.indptr[r + 1])
            )
            for r in range(len(terms))
        ]

    assert named(joined) == named(whole)
    assert all(np.all(np.diff(joined[r : r + 1].indices) > 0) for r in range(500))

    kept = [np.arange(len(Terms.load(part))) % 2 == 0 for part in parts]
    (tmp_path / "kept").mkdir()
    unify_terms(parts, tmp_path / "kept", keep=kept)
    mask = np.concatenate(kept)
    assert named(Terms.load(tmp_path / "kept")) == [
        row for row, keep in zip(named(whole), mask, strict=True) if keep
    ]


def test_parts_with_other_fields_are_refused(tmp_path):
    for name, fields in (("a", ["contents"]), ("b", ["text"])):
        (tmp_path / name).mkdir()
        TermsEncoder.open("", {"fields": fields}).encode_documents([Document("1", "x")]).save(tmp_path / name)
    (tmp_path / "out").mkdir()
    with pytest.raises(IncompatibleError, match="contents"):
        unify_terms([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_queries_with_other_fields_are_refused(corpus):
    queries = TermsEncoder.open("", {"fields": ["title", "text"]}).encode_queries(["fox"])
    with pytest.raises(IncompatibleError, match="title"):
        corpus[2].search(queries, SearchRequest())


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"k2": 1}, "k2.*valid: b, k1, weights"),
        ({"k1": -1}, "k1.*-1"),
        ({"b": 1.5}, "b of bm25 is 1.5"),
        ({"b": True}, "True"),
        ({"weights": {"title": "x"}}, "weights"),
    ],
)
def test_bad_parameters_are_named(given_, message):
    with pytest.raises(ConfigError, match=message):
        Bm25Index.parameters(given_)


def test_weights_must_name_fields_of_the_rows(tmp_path):
    with pytest.raises(ConfigError, match="title"):
        built(TermsEncoder().encode_documents([Document("1", "x")]), tmp_path, {"weights": {"title": 2}})


@pytest.mark.parametrize("name", bm25.Bm25Files._fields)
def test_a_damaged_file_is_named(corpus, tmp_path, name):
    _, rows, _ = corpus
    index = built(rows[:50], tmp_path)
    path = tmp_path / "index" / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptError, match=name):
        Bm25Index.load(tmp_path / "index", index.vectors, Bm25Index.parameters({}))


COLD = """
import json, sys
from pathlib import Path
from indexing.bm25.index import Bm25Index
from retrieval.bitmap import Bitmap
from retrieval.encoders.terms import TermsEncoder
from retrieval.protocols import SearchRequest
from retrieval.values import Terms
folder = Path(sys.argv[1])
rows = Terms.load(folder / "vectors")
index = Bm25Index.load(folder / "index", rows, Bm25Index.parameters({}))
live = Bitmap.from_rows(range(0, len(rows), 2), len(rows))
second_segment = Bm25Index.load(folder / "index", rows, Bm25Index.parameters({}))
out = []
for _ in range(4):
    queries = TermsEncoder().encode_queries([sys.argv[2]])
    parts = [part.statistics(queries, live) for part in (index, second_segment)]
    for part in (index, second_segment):
        view = part.with_statistics(parts[0] + parts[1])
        hits = view.search(queries, SearchRequest(k=int(sys.argv[3]), allowed=live))
        out.append([hits.rows.tolist(), hits.scores.tolist(), "numba" in sys.modules])
print(json.dumps(out))
"""


@pytest.mark.parametrize(("text", "k"), [("w0k w1k w2k w30k", 10), ("w59k nothing", 3000), ("the", 3)])
def test_the_first_queries_of_a_process_need_no_numba_and_agree_to_the_bit(tmp_path, text, k):
    built(TermsEncoder().encode_documents(zipf_documents(400)), tmp_path)
    root = str(Path(bm25.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", COLD, str(tmp_path), text, str(k)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    answers = json.loads(done.stdout)
    assert all(answer[:2] == answers[0][:2] for answer in answers)
    assert [answer[2] for answer in answers] == [False] * 6 + [True] * 2
