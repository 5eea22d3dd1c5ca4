"""Searchers over a training set's documents, against exact scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from indexing.builder import build_collection
from indexing.chunking import Chunking
from indexing.corpora import open_corpus
from indexing.options import BuildOptions, representation_options
from indexing.progress import Silent
from retrieval.encoders import open_encoder
from retrieval.encoders.terms import TermsEncoder
from retrieval.errors import ConfigError, IncompatibleError
from retrieval.exact import dense_scores, maxsim_scores, sparse_scores
from retrieval.exact_terms import bm25_scores
from retrieval.topk import top_k
from retrieval.values import Dense, Document, Hits, MultiVector, QueryNetwork, Sparse, Terms
from training.examples.training_set import TrainingSet
from training.mining import document_index
from training.mining.document_index import index_kind
from training.mining.searchers import open_search
from training.mining.stored_vectors import as_documents, store_vectors

QUERIES = ["river mountain", "old dog", "index vector of the bird", "zebra"]


def best(scores: NDArray[np.float32], k: int, *, positive: bool = False) -> Hits:
    return top_k(np.where(scores > 0, scores, -np.inf) if positive else scores, k)


def assert_same(found: Hits, expected: Hits) -> None:
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


@dataclass(frozen=True)
class Words:
    """A vector for each text, or one for each word: where its letters are in the alphabet."""

    kind: str

    def encode_queries(self, texts: Sequence[str]) -> Any:
        if self.kind == "late":
            words = [text.split() for text in texts]
            indptr = np.cumsum([0, *map(len, words)]).astype(np.int64)
            vectors = _letters([word for line in words for word in line])
            return MultiVector(indptr, vectors.astype(np.float16))
        vectors = _letters(texts)
        if self.kind == "dense":
            return Dense(vectors)
        rows, terms = np.nonzero(vectors)
        indptr = np.searchsorted(rows, np.arange(len(texts) + 1)).astype(np.int64)
        return Sparse(
            indptr, terms.astype(np.int32), np.rint(255 * vectors[rows, terms]).astype(np.float32), 26
        )

    def encode_documents(self, documents: Sequence[Document]) -> Any:
        return self.encode_queries([document.text for document in documents])


def _letters(texts: Sequence[str]) -> NDArray[np.float32]:
    counts = np.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
    counts = counts.reshape(-1, 26).astype(np.float32)
    return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


def test_bm25_finds_what_the_formula_does(make_set: Callable[..., TrainingSet], tmp_path: Path) -> None:
    data, terms = make_set(), TermsEncoder()
    scores = bm25_scores(terms.encode_queries(QUERIES), terms.encode_documents(as_documents(data.documents)))
    found = open_search("bm25", data, folder=tmp_path, progress=Silent())(QUERIES, 4)
    assert_same(found, best(scores, 4, positive=True))
    assert found.rows[1, 0] == 7 and found.rows[3].tolist() == [-1] * 4


def test_dense_finds_what_an_exact_scan_does(
    make_set: Callable[..., TrainingSet], tiny_bert: Path, tmp_path: Path
) -> None:
    data, encoder = make_set(), open_encoder({"family": "dense", "model": str(tiny_bert)})
    scores = dense_scores(
        encoder.encode_queries(QUERIES), encoder.encode_documents(as_documents(data.documents))
    )
    search = open_search(f"dense:{tiny_bert}", data, folder=tmp_path, progress=Silent())
    assert_same(search(QUERIES, 12), best(scores, 12))


@pytest.mark.parametrize(
    ("kind", "exact"), [("dense", dense_scores), ("sparse", sparse_scores), ("late", maxsim_scores)]
)
def test_a_model_in_training_is_searched_by_the_vectors_it_makes(
    kind: str, exact: Callable[..., Any], make_set: Callable[..., TrainingSet], tmp_path: Path
) -> None:
    data, encoder = make_set(), Words(kind)
    scores = exact(encoder.encode_queries(QUERIES), encoder.encode_documents(as_documents(data.documents)))
    search = open_search("model", data, encoder=encoder, folder=tmp_path, progress=Silent())
    found, expected = search(QUERIES, 5), best(scores, 5)
    if kind == "sparse":  # impacts are rounded to 8 bits
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0.01)
    else:
        assert_same(found, expected)
    assert found.rows[2].tolist().index(3) < found.rows[2].tolist().index(6)  # one text, so a tie by row


def test_a_late_model_is_fitted_on_the_documents(
    make_set: Callable[..., TrainingSet], tiny_bert: Path, tmp_path: Path
) -> None:
    data = make_set()
    spec = {"family": "late", "model": str(tiny_bert), "options": {"dim": 8}}
    encoder = open_encoder(spec)
    fitted = encoder.fit(as_documents(data.documents))
    scores = maxsim_scores(
        fitted.encode_queries(QUERIES), fitted.encode_documents(as_documents(data.documents))
    )
    search = open_search("model", data, encoder=encoder, folder=tmp_path, progress=Silent())
    assert_same(search(QUERIES, 5), best(scores, 5))


def test_a_hybrid_adds_up_lists_after_min_max(
    make_set: Callable[..., TrainingSet], tiny_bert: Path, tmp_path: Path
) -> None:
    data = make_set()
    names = ["bm25", f"dense:{tiny_bert}"]
    lists = [open_search(name, data, folder=tmp_path, progress=Silent())(QUERIES, 12) for name in names]
    expected = np.zeros((len(QUERIES), 12))
    for hits in lists:
        for query, (rows, scores) in enumerate(zip(hits.rows, hits.scores, strict=True)):
            real = rows >= 0
            if not real.any():
                continue
            low = 0.0 if not real.all() else scores.min()  # a document that BM25 does not return scores 0
            expected[query, rows[real]] += (scores[real] - low) / (scores[real].max() - low)
    found = open_search("+".join(names), data, folder=tmp_path, progress=Silent())(QUERIES, 6)
    assert_same(found, best(expected.astype(np.float32), 6))


def test_a_collection_is_matched_by_id(
    make_set: Callable[..., TrainingSet], tmp_path: Path, heard: Any
) -> None:
    data = make_set()
    lines = [{"_id": "stranger", "title": "", "text": "river mountain river mountain"}]
    lines += [{"_id": id_, "title": "", "text": text} for id_, text in reversed(data.documents.rows()[1:])]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(map(json.dumps, lines)))
    options = BuildOptions((representation_options("bm25"),))
    build_collection(open_corpus(corpus), tmp_path / "collection", options)
    search = open_search(str(tmp_path / "collection"), data, folder=tmp_path / "unused", progress=heard)
    found = search(QUERIES, 5)
    assert heard.notes == [f"{tmp_path / 'collection'} has 11 of the 12 documents of 'little'"]
    terms = TermsEncoder()
    texts = [Document(line["_id"], line["text"]) for line in lines]
    scores = bm25_scores(terms.encode_queries(QUERIES), terms.encode_documents(texts))
    expected = np.zeros((len(QUERIES), 12), dtype=np.float32)
    expected[:, 1:] = scores[:, :0:-1]  # of the set's documents alone, in its order
    assert_same(found, best(expected, 5, positive=True))

    stranger = make_set(documents=["a"], queries=["b"], answers={0: [0]})
    renamed = TrainingSet(
        "other",
        stranger.queries,
        stranger.documents.with_columns(id=stranger.documents["id"] + "!"),
        stranger.lists,
    )
    with pytest.raises(IncompatibleError, match=r"no document of 'other', such as 'd0!'"):
        open_search(str(tmp_path / "collection"), renamed, folder=tmp_path, progress=heard)


def test_a_document_of_many_chunks_is_found_once(
    make_set: Callable[..., TrainingSet], tmp_path: Path
) -> None:
    texts = ["river one two. river three four. river five six.", "river", "mountain"]
    data = make_set(documents=texts, queries=["river"], answers={0: [0]})
    lines = [{"_id": f"d{row}", "title": "", "text": texts[row]} for row in (2, 1, 0)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)))
    options = BuildOptions((representation_options("bm25"),), Chunking(words=3))
    build_collection(open_corpus(tmp_path / "corpus.jsonl"), tmp_path / "collection", options)
    search = open_search(str(tmp_path / "collection"), data, folder=tmp_path / "unused", progress=Silent())
    assert search(["river", "mountain"], 3).rows.tolist() == [[1, 0, -1], [2, -1, -1]]


def test_many_queries_are_answered_in_batches_and_the_same_again(
    make_set: Callable[..., TrainingSet], tmp_path: Path, heard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_set()
    whole = open_search("bm25", data, folder=tmp_path, progress=heard)(QUERIES, 3)
    assert heard.stages[0] == ("encode documents for bm25", 12, "texts") and heard.done[0] == 12
    monkeypatch.setattr("training.mining.searchers._BATCH", 3)
    search = open_search("bm25", data, folder=tmp_path, progress=heard)  # replaces what is in the folder
    for _ in range(2):
        assert_same(search(QUERIES, 3), whole)
    assert heard.stages[-1] == ("search with bm25", 4, "queries") and heard.done[-1] == 4
    assert search([], 3).rows.shape == (0, 3)


def test_vectors_of_many_blocks_are_those_of_one(
    make_set: Callable[..., TrainingSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, encoder = make_set(), Words("late")
    whole = encoder.encode_documents(as_documents(data.documents))
    monkeypatch.setattr("training.mining.stored_vectors.BLOCK", 5)
    stored = store_vectors(
        lambda block: encoder.encode_documents(as_documents(block)),
        data.documents,
        tmp_path / "v",
        "x",
        Silent(),
    )
    assert isinstance(stored, MultiVector) and isinstance(stored.values, np.memmap)
    np.testing.assert_array_equal(stored.indptr, whole.indptr)
    np.testing.assert_array_equal(stored.values, whole.values)
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


class Networks(Words):
    """A query is a network without hidden layers, which gives the inner product with ``Words``' vector."""

    query_value: ClassVar[type] = QueryNetwork

    def encode_queries(self, texts: Sequence[str]) -> Any:
        return QueryNetwork.of([_letters(texts)[:, None, :]], False)

    def encode_documents(self, documents: Sequence[Document]) -> Any:
        return Dense(_letters([document.text for document in documents]))


def test_a_model_whose_queries_are_networks_is_searched_by_them(
    make_set: Callable[..., TrainingSet], tmp_path: Path
) -> None:
    data, encoder = make_set(), Words("dense")
    scores = dense_scores(
        encoder.encode_queries(QUERIES), encoder.encode_documents(as_documents(data.documents))
    )
    search = open_search("model", data, encoder=Networks("networks"), folder=tmp_path, progress=Silent())
    assert_same(search(QUERIES, 5), best(scores, 5))


def test_large_sets_are_searched_approximately() -> None:
    assert [index_kind(QueryNetwork, n) for n in (5_000, 5_001)] == ["hypencoder", "hypencoder-graph"]
    assert [index_kind(Dense, n) for n in (200_000, 200_001)] == ["flat", "hnsw"]
    assert [index_kind(MultiVector, n) for n in (2_000, 2_001)] == ["maxsim", "plaid"]
    assert [index_kind(value, 10**7) for value in (Terms, Sparse)] == ["bm25", "inverted"]


def test_many_token_vectors_are_searched_by_plaid(
    make_set: Callable[..., TrainingSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(document_index._KINDS, MultiVector, ("maxsim", 0, "plaid"))
    data, encoder = make_set(), Words("late")
    found = open_search("model", data, encoder=encoder, folder=tmp_path, progress=Silent())(QUERIES, 3)
    scores = maxsim_scores(
        encoder.encode_queries(QUERIES), encoder.encode_documents(as_documents(data.documents))
    )
    np.testing.assert_allclose(found.scores, best(scores, 3).scores, rtol=0.05)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lucene", r"unknown searcher 'lucene'; valid: .*bm25.*hybrid.*model.*sparse"),
        ("bm25+word", "unknown searcher 'word'"),
        ("model", "'model' needs the encoder"),
    ],
)
def test_a_searcher_that_cannot_be_opened_says_why(
    name: str, message: str, make_set: Callable[..., TrainingSet], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_search(name, make_set(), folder=tmp_path, progress=Silent())
