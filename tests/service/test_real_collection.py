"""The application over a real collection in this process: names of searchers, rerankers, explanations."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import numpy as np
import orjson
import pytest

from indexing.assembly import index_spec
from indexing.builder import build_collection
from indexing.chunking import Chunking
from indexing.collection import Collection
from indexing.command_line import run
from indexing.corpora import open_corpus
from indexing.options import BuildOptions, representation_options
from retrieval.values import Hits
from service.answers import Wanted, find
from service.app import open_collection
from service.cli import tercet

N = 130
WAYS = ("bm25", "dense", "dense-hnsw", "hybrid", "bm25+dense-hnsw", "rrf:hybrid")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    corpus = folder / "corpus.jsonl"
    lines = [{"_id": f"d{n}", "title": f"title {n}", "text": f"words of topic{n % 5}"} for n in range(N)]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = folder / "collection"
    dense = representation_options("dense", model="hashing:32")
    dense = replace(dense, indexes=(*dense.indexes, index_spec("hnsw", {})))
    options = BuildOptions((representation_options("bm25"), dense), chunking=Chunking.none())
    build_collection(open_corpus(corpus), path, options)
    return path


@pytest.fixture
def client(make_client, path):
    return make_client(collection=path, opener=open_collection)


def test_info_survives_deletes_and_fields_that_change(make_client, path, tmp_path):
    copy = tmp_path / "copy"
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_text('{"_id": "a", "text": "x", "size": 1}\n{"_id": "b", "text": "x", "size": 2}\n')
    second.write_text('{"_id": "c", "text": "x", "size": 2.5}\n')
    assert run(tercet, ["index", str(first), "-o", str(copy), "--with", "bm25", "--chunk", "none", "-q"]) == 0
    client = make_client(collection=copy, opener=open_collection)
    assert client.get("/v1/info").json()["fields"][0]["values"] == [[1, 1], [2, 1]]
    assert run(tercet, ["delete", str(copy), "a"]) == 0
    assert client.get("/v1/info").json()["fields"][0]["values"] == [[2, 1]]
    assert run(tercet, ["add", str(copy), str(second), "-q"]) == 0
    assert client.get("/v1/info").json()["fields"][0]["values"] == [[2.0, 1], [2.5, 1]]


def test_queries_are_counted_by_index_or_as_combined(client):
    for using in WAYS:
        client.search(query="topic3", using=using)
    client.search(query="topic3")
    found = re.findall(r'tercet_queries_total\{using="([^"]*)"\} (\S+)', client.get("/metrics").text)
    expected = {"bm25": "1.0", "dense": "1.0", "dense-hnsw": "1.0", "hybrid": "2.0", "combined": "2.0"}
    assert dict(found) == expected


@pytest.mark.parametrize(
    ("using", "said"),
    [
        ("bm25+bm25", "bm25 and bm25 are one index"),
        ("bm25+dense+dense-flat", "dense and dense-flat are one index"),
        ("rrf:dense+dense", "are one index"),
        ("+".join(["bm25", "dense"] * 5), "10 names joined by +; at most 8"),
        ("bm25+", "cannot search using ''"),
    ],
)
def test_names_joined_without_sense_are_refused(client, using, said):
    answer = client.post("/v1/search", {"query": "topic3", "using": using})
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "using"
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize("using", WAYS)
def test_explanations_are_plain_values_that_orjson_takes(path, using):
    snapshot = Collection.open(path).snapshot()
    (hits,) = find(snapshot, snapshot.searcher(using), ["topic3 words"], Wanted(k=5, explain=True))
    assert len(hits) == 5
    orjson.dumps(hits)


@dataclass
class Backwards:
    """Scores the rows from last to first; notes how many it is given."""

    given: list[int]

    def rerank(self, queries, hits, snapshot):
        self.given.append(int((hits.rows[0] >= 0).sum()))
        order = np.argsort(np.where(hits.rows < 0, 1, -hits.rows), axis=1, kind="stable")
        rows = np.take_along_axis(hits.rows, order, axis=1)
        return Hits(rows, np.where(rows < 0, -np.inf, rows).astype(np.float32), hits.snapshot)


@pytest.mark.parametrize(
    ("k", "depth", "given"), [(10, 1000, 100), (10, 20, 20), (120, 1000, 120), (120, 5, 120), (500, 1000, N)]
)
def test_reranking_is_as_deep_as_documented_and_gives_k_hits(client, k, depth, given):
    served = client.app.state.service.live.current()
    served.rerankers["backwards"] = reranker = Backwards([])
    hits = client.search(query="words", using="dense", rerank="backwards", k=k, depth=depth)
    assert reranker.given == [given]
    assert len(hits) == min(k, N)
