"""A collection with sparse token vectors, from its build to explained answers, through adding and merging."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexing.builder import add_documents, build_collection
from indexing.chunking import Chunking
from indexing.collection import Collection
from indexing.commit import read_commit
from indexing.compaction import compact
from indexing.corpora import open_corpus
from indexing.deleting import delete_documents
from indexing.options import BuildOptions, WriteOptions, representation_options
from indexing.verification import verify
from retrieval.exact import sparse_maxsim_scores
from retrieval.protocols import SearchRequest

WORDS = "cat dog bird fish red green blue fast slow old new river mountain search engine index vector".split()
QUERIES = ["old red fish", "search the river"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """A random masked language model with the small vocabulary."""
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast

    dense, folder = make_checkpoint(), tmp_path_factory.mktemp("masked")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PreTrainedTokenizerFast.from_pretrained(dense).save_pretrained(folder)
        torch.manual_seed(3)
        AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(dense)).save_pretrained(folder)
    return folder


def corpus(path: Path, first: int, last: int) -> Path:
    rng = np.random.default_rng(first)
    lines = [
        json.dumps(
            {
                "_id": f"d{number}",
                "title": str(rng.choice(WORDS)),
                "text": " ".join(rng.choice(WORDS, rng.integers(3, 12))),
            }
        )
        for number in range(first, last)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def collection(tmp_path: Path, model: Path) -> Path:
    part = representation_options("slim", str(model), {"terms_per_token": 6})
    options = BuildOptions((part,), Chunking.none(), WriteOptions(batch_rows=15))
    build_collection(open_corpus(corpus(tmp_path / "a.jsonl", 0, 40)), tmp_path / "c", options)
    return tmp_path / "c"


def answers(path: Path) -> list[list[tuple[str, float]]]:
    snapshot = Collection.open(path).snapshot()
    hits = snapshot.searcher("slim").search(QUERIES, SearchRequest(k=100))
    return [
        [
            (snapshot.documents(np.array([row]))[0].id, float(score))
            for row, score in zip(rows, scores, strict=True)
            if row >= 0
        ]
        for rows, scores in zip(hits.rows, hits.scores, strict=True)
    ]


def test_hits_are_those_of_maxsim_over_what_the_encoder_makes(collection: Path):
    snapshot = Collection.open(collection).snapshot()
    encoder = snapshot.encoder("slim")
    stored = snapshot.segments[0].vectors("slim")
    assert read_commit(collection).representations["slim"].value == "multisparse"
    truth = sparse_maxsim_scores(encoder.encode_queries(QUERIES), stored)
    for found, scores in zip(answers(collection), truth, strict=True):
        want = np.argsort(-scores, kind="stable")
        want = want[scores[want] > 0]
        assert [name for name, _ in found] == [f"d{row}" for row in want]
        np.testing.assert_allclose([score for _, score in found], scores[want], rtol=1e-5)


def test_adding_deleting_and_merging_keep_scores_and_scale(collection: Path, tmp_path: Path):
    before = answers(collection)
    spec = read_commit(collection).representations["slim"].indexes[0]
    assert spec.kind == "slim" and spec.parameters["scale"] > 0
    add_documents(open_corpus(corpus(tmp_path / "b.jsonl", 40, 70)), collection, WriteOptions())
    delete_documents(collection, [f"d{number}" for number in range(0, 70, 9)])
    grown = answers(collection)
    for old, new in zip(before, grown, strict=True):
        kept = [hit for hit in old if int(hit[0][1:]) % 9]
        assert [hit for hit in new if int(hit[0][1:]) < 40] == kept
    compact(collection)
    assert answers(collection) == grown
    assert read_commit(collection).representations["slim"].indexes[0] == spec
    assert not verify(collection).problems


def test_explanations_name_tokens_and_terms(collection: Path):
    snapshot = Collection.open(collection).snapshot()
    searcher = snapshot.searcher("slim")
    hits = searcher.search(QUERIES[:1], SearchRequest(k=3))
    vocabulary = set(snapshot.encoder("slim").vocabulary)
    for row, score, whole in zip(
        hits.rows[0], hits.scores[0], searcher.explain(QUERIES[0], hits.rows[0]), strict=True
    ):
        assert whole.value == pytest.approx(float(score), rel=1e-6)
        assert [part.label for part in whole.parts] == ["old", "red", "fish", "[SEP]"]
        text = snapshot.documents(np.array([row]))[0].text
        for part in whole.parts:
            assert part.value == pytest.approx(sum(term.value for term in part.parts))
            assert {term.label for term in part.parts} <= vocabulary
            if "start" in part.facts:
                assert text[part.facts["start"] : part.facts["end"]] == part.facts["token"]
