"""Stored vectors by the rows of a snapshot, and the late reranker over them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from indexing.builder import add_documents, build_collection
from indexing.chunking import Chunking
from indexing.collection import Collection, CollectionSnapshot
from indexing.corpora import open_corpus
from indexing.options import BuildOptions, WriteOptions, representation_options
from retrieval.errors import ConfigError
from retrieval.protocols import SearchRequest

WORDS = "cat dog bird fish red green blue fast slow old new river mountain search engine index vector".split()
QUERIES = ["old red fish", "search the river"]


def write(path: Path, first: int, last: int) -> Path:
    rng = np.random.default_rng(first)
    texts = [" ".join(rng.choice(WORDS, rng.integers(0, 12))) for _ in range(first, last)]
    lines = [json.dumps({"_id": f"d{first + n}", "text": text}) for n, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, tiny_bert: Path) -> CollectionSnapshot:
    """Two segments with terms, and token vectors in two kinds of index."""
    folder = tmp_path_factory.mktemp("rows")
    parts = (
        representation_options("bm25"),
        representation_options("late:maxsim", str(tiny_bert), {"dim": 8}),
    )
    writing = WriteOptions(batch_rows=10)
    options = BuildOptions(parts, Chunking.none(), writing)
    build_collection(open_corpus(write(folder / "a.jsonl", 0, 30)), folder / "c", options)
    add_documents(open_corpus(write(folder / "b.jsonl", 30, 50)), folder / "c", writing)
    return Collection.open(folder / "c").snapshot()


def test_rows_are_taken_in_order_from_all_segments(snapshot: CollectionSnapshot):
    store = snapshot.store("late")
    assert len(store) == 50 and len(snapshot.segments) == 2
    encoded = snapshot.encoder("late").encode_documents(snapshot.passages(np.arange(50)))
    for rows in ([49, 3, 30, 29, 3, 48], [2, 1], [40, 35], []):
        chosen = np.array(rows, dtype=np.int64)
        taken, wanted = store.take(chosen), encoded.take(chosen)
        assert np.array_equal(taken.indptr, wanted.indptr)
        np.testing.assert_allclose(taken.values.astype(np.float32), wanted.values, atol=2e-3)
    with pytest.raises(IndexError, match=r"rows 3 to 50 .* 50 rows"):
        store.take(np.array([3, 50]))


def test_what_is_not_there_or_cannot_be_joined_is_refused(snapshot: CollectionSnapshot):
    with pytest.raises(ConfigError, match=r"no representation 'sparse'.*bm25, late"):
        snapshot.store("sparse")
    with pytest.raises(ConfigError, match="'bm25' holds term counts"):
        snapshot.store("bm25").take(np.array([2, 40]))


def test_reranking_the_hits_of_terms_gives_the_order_of_late_search(snapshot: CollectionSnapshot):
    request = SearchRequest(k=50)
    first = snapshot.searcher("bm25").search(QUERIES, request)
    reranked = snapshot.searcher("bm25", "late").search(QUERIES, request)
    everything = snapshot.searcher("late").search(QUERIES, request)
    for query in range(2):
        found = set(first.rows[query].tolist())
        wanted = [
            (row, score)
            for row, score in zip(everything.rows[query].tolist(), everything.scores[query], strict=True)
            if row in found and row >= 0
        ]
        assert len(wanted) > 5
        assert reranked.rows[query, : len(wanted)].tolist() == [row for row, _ in wanted]
        assert reranked.scores[query, : len(wanted)].tolist() == [score for _, score in wanted]


def test_a_collection_without_token_vectors_says_what_to_do(tmp_path: Path):
    options = BuildOptions((representation_options("bm25"),), Chunking.none(), WriteOptions())
    build_collection(open_corpus(write(tmp_path / "a.jsonl", 0, 9)), tmp_path / "c", options)
    searcher = Collection.open(tmp_path / "c").snapshot().searcher("bm25", "late")
    with pytest.raises(ConfigError, match=r"no representation 'late'.*--with late"):
        searcher.search(["fish"], SearchRequest())
