"""Collections of multivariate models and hypencoders, from the command line to answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from indexing.adding import add_representation
from indexing.assembly import index_spec
from indexing.builder import add_documents, build_collection
from indexing.chunking import Chunking
from indexing.cli import COMMANDS
from indexing.collection import Collection
from indexing.commit import read_commit
from indexing.compaction import compact
from indexing.corpora import open_corpus
from indexing.deleting import delete_documents
from indexing.encoding import encode_corpus
from indexing.options import BuildOptions, RepresentationOptions, WriteOptions, representation_options
from indexing.progress import Silent
from indexing.query_banks import store_query_bank
from indexing.tuning.options import TuneOptions
from retrieval.errors import ConfigError
from retrieval.exact import dense_scores, query_network_scores
from retrieval.protocols import SearchRequest
from retrieval.topk import top_k

WORDS = "cat dog bird fish red green blue fast slow old new river mountain search engine index vector".split()
QUERIES = ["old red fish", "search the river", "a new engine"]
ORACLES = {"multivariate": dense_scores, "hypencoder": query_network_scores}


@pytest.fixture
def models(tiny_multivariate: Path, tiny_hypencoder: Path) -> dict[str, str]:
    return {"multivariate": str(tiny_multivariate), "hypencoder": str(tiny_hypencoder)}


def corpus(path: Path, first: int, last: int) -> Path:
    rng = np.random.default_rng(first)
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 12))) for _ in range(first, last)]
    lines = [json.dumps({"_id": f"d{first + row}", "text": text}) for row, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n")
    return path


def build(path: Path, *parts: RepresentationOptions) -> Path:
    options = BuildOptions(parts, Chunking.none(), WriteOptions(batch_rows=25))
    build_collection(open_corpus(corpus(path.with_suffix(".jsonl"), 0, 60)), path, options)
    return path


def answers(path: Path, using: str) -> list[dict[str, float]]:
    snapshot = Collection.open(path).snapshot()
    hits = snapshot.searcher(using).search(QUERIES, SearchRequest(k=100))
    return [
        {
            snapshot.documents(np.array([row]))[0].id: float(score)
            for row, score in zip(rows, scores, strict=True)
            if row >= 0
        }
        for rows, scores in zip(hits.rows, hits.scores, strict=True)
    ]


def run(*arguments: str) -> Any:
    group = click.Group(commands={command.name: command for command in COMMANDS if command.name})
    return CliRunner().invoke(group, list(arguments), catch_exceptions=False)


@pytest.mark.parametrize("name", ORACLES)
def test_hits_are_those_of_the_definition_over_what_the_encoder_makes(name, models, tmp_path: Path):
    path = build(tmp_path / "c", representation_options(name, models[name]))
    snapshot = Collection.open(path).snapshot()
    stored = snapshot.segments[0].vectors(name)
    expected = top_k(ORACLES[name](snapshot.encoder(name).encode_queries(QUERIES), stored), 10)
    hits = snapshot.searcher(name).search(QUERIES, SearchRequest(k=10))
    np.testing.assert_allclose(hits.scores, expected.scores, rtol=1e-4, atol=1e-4)
    (explained,) = snapshot.searcher(name).explain(QUERIES[0], hits.rows[0, :1])
    assert explained.value == pytest.approx(float(hits.scores[0, 0]), rel=1e-6)


@pytest.mark.parametrize("using", ["multivariate", "hypencoder", "hypencoder-graph"])
def test_adding_deleting_and_merging_keep_scores(using, models, tmp_path: Path):
    name = using.partition("-")[0]
    kind = f"{name}:{using}" if using != name else name
    path = build(tmp_path / "c", representation_options(kind, models[name]))
    before = answers(path, using)
    add_documents(open_corpus(corpus(tmp_path / "more.jsonl", 60, 80)), path, WriteOptions())
    delete_documents(path, [f"d{number}" for number in range(0, 80, 9)])
    grown = answers(path, using)
    for old, new in zip(before, grown, strict=True):
        assert len(new) == 80 - 9
        assert {i: score for i, score in new.items() if int(i[1:]) < 60} == {
            i: score for i, score in old.items() if int(i[1:]) % 9
        }
    compact(path)
    assert answers(path, using) == grown


def test_the_command_line_builds_and_adds_them(models, tmp_path: Path):
    source, path = corpus(tmp_path / "a.jsonl", 0, 30), tmp_path / "c"
    given = [f"--{name}-model={model}" for name, model in models.items()]
    made = run(
        "index",
        str(source),
        "-o",
        str(path),
        "--with",
        "multivariate,multivariate:hnsw,hypencoder",
        *given,
        "-q",
    )
    assert made.exit_code == 0, made.output
    added = run("index", str(path), "--add", "hypencoder:hypencoder-graph", "-p", "ncandidates=40", "-q")
    assert added.exit_code == 0, added.output
    assert answers(path, "hypencoder-graph") == answers(path, "hypencoder")
    assert answers(path, "multivariate-hnsw") == answers(path, "multivariate")
    assert len(answers(path, "multivariate+hypencoder")[0]) == 30


def test_they_are_evaluated_by_their_names(models):
    from eval.collection_cache import required_representations

    parts = required_representations(["hypencoder-graph", "hypencoder", "multivariate-hnsw"], models)
    kinds = {part.name: {spec.kind for spec in part.indexes} for part in parts}
    assert kinds == {"hypencoder": {"hypencoder", "hypencoder-graph"}, "multivariate": {"hnsw"}}


@pytest.mark.parametrize("name", ORACLES)
def test_a_model_has_to_be_named(name):
    with pytest.raises(ConfigError, match=f"--{name}-model FOLDER"):
        representation_options(name)


def test_kinds_take_the_queries_that_an_encoder_makes(models, tiny_bert: Path, tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"kind flat is asked by a Dense, and the hypencoder encoder .* QueryNetwork"
    ):
        representation_options("hypencoder:flat", models["hypencoder"])
    for name, model in (("dense", str(tiny_bert)), ("multivariate", models["multivariate"])):
        with pytest.raises(ConfigError, match="asked by a QueryNetwork"):
            representation_options(f"{name}:hypencoder-graph", model)
    path = build(tmp_path / "c", representation_options("hypencoder", models["hypencoder"]))
    encoder = read_commit(path).representations["hypencoder"].encoder
    with pytest.raises(ConfigError, match="choose another kind"):
        add_representation(path, RepresentationOptions("hypencoder", encoder, (index_spec("hnsw", {}),)))


def test_what_needs_vectors_of_queries_refuses_networks(models, tmp_path: Path):
    path = build(tmp_path / "c", representation_options("hypencoder", models["hypencoder"]))
    with pytest.raises(ConfigError, match="query bank is of vectors"):
        store_query_bank(path, "hypencoder", QUERIES)
    with pytest.raises(ConfigError, match="no dense representation"):
        TuneOptions(using="").representation(path, read_commit(path))
    encoder = read_commit(path).representations["hypencoder"].encoder
    source = open_corpus(tmp_path / "c.jsonl")
    with pytest.raises(ConfigError, match="writes dense vectors"):
        encode_corpus(source, encoder, tmp_path / "q.npy", queries=True, progress=Silent())
    report = encode_corpus(source, encoder, tmp_path / "d.npy", queries=False, progress=Silent())
    assert (report.rows, report.dim) == (60, 32)
