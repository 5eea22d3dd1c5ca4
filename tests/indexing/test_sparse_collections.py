"""Collections with a learned-sparse representation: one scale for all segments, explanations in words, options."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from indexing.builder import add_documents, build_collection
from indexing.chunking import Chunking
from indexing.cli import index_command
from indexing.collection import Collection
from indexing.commit import read_commit
from indexing.compaction import compact
from indexing.corpora import open_corpus
from indexing.deleting import delete_documents
from indexing.options import BuildOptions, WriteOptions, representation_options
from retrieval.errors import ConfigError
from retrieval.protocols import SearchRequest

# with the names of `tercet`: click keeps a command's help option as its first caller wants it
GROUP = click.Group("t", commands=[index_command], context_settings={"help_option_names": ["-h", "--help"]})
WORDS = "cat dog bird fish red green blue fast slow old new river mountain search engine index vector".split()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """A random masked language model with the small vocabulary."""
    from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast

    dense, folder = make_checkpoint(), tmp_path_factory.mktemp("masked")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PreTrainedTokenizerFast.from_pretrained(dense).save_pretrained(folder)
        import torch

        torch.manual_seed(3)
        AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(dense)).save_pretrained(folder)
    return folder


def corpus(path: Path, first: int, last: int) -> Path:
    rng = np.random.default_rng(first)
    with path.open("w") as lines:
        for number in range(first, last):
            text = " ".join(rng.choice(WORDS, rng.integers(3, 12)))
            lines.write(json.dumps({"_id": f"d{number}", "text": text}) + "\n")
    return path


def options(model: Path, *names: str) -> BuildOptions:
    parts = tuple(
        representation_options(name, *((str(model), {"document_terms": 20}) if name == "sparse" else ()))
        for name in names
    )
    return BuildOptions(parts, Chunking.none())


def test_segments_share_the_scale_that_the_first_one_learned(tmp_path: Path, model: Path):
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    build_collection(
        open_corpus(corpus(tmp_path / "a.jsonl", 0, 60)), grown, options(model, "bm25", "sparse")
    )
    scale = read_commit(grown).representations["sparse"].indexes[0].parameters["scale"]
    assert scale > 0
    add_documents(open_corpus(corpus(tmp_path / "b.jsonl", 60, 100)), grown, WriteOptions())
    delete_documents(grown, [f"d{number}" for number in range(0, 100, 9)])
    assert read_commit(grown).representations["sparse"].indexes[0].parameters["scale"] == scale

    def answers(path: Path) -> list[tuple[str, float]]:
        snapshot = Collection.open(path).snapshot()
        hits = snapshot.searcher("sparse").search(["old red fish", "search the river"], SearchRequest(k=100))
        return [
            (snapshot.documents(np.array([row]))[0].id, float(score))
            for row, score in zip(hits.rows.ravel(), hits.scores.ravel(), strict=True)
            if row >= 0
        ]

    before = answers(grown)
    assert len(before) > 100
    compact(grown)
    assert answers(grown) == before
    assert read_commit(grown).representations["sparse"].indexes[0].parameters["scale"] == scale
    lines = (tmp_path / "a.jsonl").read_text() + (tmp_path / "b.jsonl").read_text()
    kept = [line for line in lines.splitlines() if int(json.loads(line)["_id"][1:]) % 9]
    (tmp_path / "kept.jsonl").write_text("\n".join(kept) + "\n")
    built = options(model, "sparse")
    spec = read_commit(grown).representations["sparse"].indexes[0]
    part = built.representations[0]
    same = BuildOptions((type(part)(part.name, part.encoder, (spec,)),), Chunking.none())
    build_collection(open_corpus(tmp_path / "kept.jsonl"), whole, same)
    assert answers(whole) == before


def test_explanations_name_terms_and_mark_expansions(tmp_path: Path, model: Path):
    build_collection(
        open_corpus(corpus(tmp_path / "a.jsonl", 0, 40)), tmp_path / "c", options(model, "sparse")
    )
    snapshot = Collection.open(tmp_path / "c").snapshot()
    searcher = snapshot.searcher("sparse")
    hits = searcher.search(["old red fish"], SearchRequest(k=3))
    for score, explanation in zip(
        hits.scores[0], searcher.explain("old red fish", hits.rows[0]), strict=True
    ):
        assert explanation.value == pytest.approx(float(score), rel=1e-5)
        origins = {part.label: part.facts["term"] for part in explanation.parts}
        assert "expansion" in origins.values()
        for word in ("old", "red", "fish"):
            assert origins.get(word, "of the query") == "of the query"
        assert not any(label.isdigit() and len(label) > 1 for label in origins)


def test_explanations_are_in_words_behind_an_encoder_that_only_encodes(tmp_path: Path, model: Path):
    """As a service's, which batches the queries of several people."""

    class Wrapped:
        def __init__(self, encoder):
            self.value, self.encode_queries = encoder.value, encoder.encode_queries

    build_collection(
        open_corpus(corpus(tmp_path / "a.jsonl", 0, 40)), tmp_path / "c", options(model, "sparse")
    )
    snapshot = Collection.open(tmp_path / "c").snapshot()
    plain = snapshot.searcher("sparse")
    wrapped = snapshot.searcher("sparse", encoders={"sparse": Wrapped(snapshot.encoder("sparse"))})
    rows = plain.search(["old red fish"], SearchRequest(k=3)).rows[0]
    assert wrapped.explain("old red fish", rows) == plain.explain("old red fish", rows)


def test_explanations_of_sparse_token_vectors_name_tokens_and_the_terms_they_share(
    tmp_path: Path, model: Path
):
    slim = BuildOptions((representation_options("slim", str(model)),), Chunking.none())
    build_collection(open_corpus(corpus(tmp_path / "a.jsonl", 0, 40)), tmp_path / "c", slim)
    snapshot = Collection.open(tmp_path / "c").snapshot()
    searcher, query = snapshot.searcher("slim"), "old red fish"
    hits = searcher.search([query], SearchRequest(k=3))
    terms = set(snapshot.encoder("slim").vocabulary)
    assert len(searcher.explain(query, hits.rows[0])) == 3
    for row, score, explanation in zip(
        hits.rows[0], hits.scores[0], searcher.explain(query, hits.rows[0]), strict=True
    ):
        assert explanation.value == pytest.approx(float(score), rel=1e-5)
        assert {"old", "red", "fish"} <= {part.label for part in explanation.parts}
        text = snapshot.passages(np.array([row]))[0].text
        for part in explanation.parts:
            assert {term.label for term in part.parts} <= terms
            if "start" in part.facts:
                assert text[part.facts["start"] : part.facts["end"]] == part.facts["token"]


def test_an_index_that_is_there_is_not_added_again(tmp_path: Path, model: Path):
    build_collection(
        open_corpus(corpus(tmp_path / "a.jsonl", 0, 20)), tmp_path / "c", options(model, "sparse")
    )
    again = CliRunner().invoke(GROUP, ["index", str(tmp_path / "c"), "--add", "sparse:inverted", "-q"])
    assert isinstance(again.exception, ConfigError)
    assert "already has this index" in str(again.exception)


def test_the_command_adds_a_sparse_representation(tmp_path: Path, model: Path):
    target = str(tmp_path / "c")
    build_collection(open_corpus(corpus(tmp_path / "a.jsonl", 0, 20)), target, options(model, "bm25"))
    added = CliRunner().invoke(
        GROUP,
        [
            "index",
            target,
            "--add",
            "sparse",
            "--sparse-model",
            str(model),
            "--sparse-option",
            "query_terms=9",
            "-q",
        ],
        catch_exceptions=False,
    )
    assert added.exit_code == 0
    representation = read_commit(Path(target)).representations["sparse"]
    assert representation.value == "sparse"
    assert representation.encoder["options"] == {"query_terms": 9}
    assert representation.indexes[0].parameters["scale"] > 0
    assert (
        Collection.open(target).snapshot().searcher("hybrid").search(["red"], SearchRequest(k=3)).rows[0, 0]
        >= 0
    )


def test_words_and_codes_in_a_collection_that_grows(tmp_path: Path, tiny_codes: Path):
    """Words have names, codes and features are expansions, and what was learned of the words stays as it was."""
    part = representation_options("sparse", str(tiny_codes))
    assert part.encoder["family"] == "codes" and part.indexes[0].kind == "inverted"
    build_collection(
        open_corpus(corpus(tmp_path / "a.jsonl", 0, 40)),
        tmp_path / "c",
        BuildOptions((part,), Chunking.none()),
    )
    state = read_commit(tmp_path / "c").representations["sparse"].state
    add_documents(open_corpus(corpus(tmp_path / "b.jsonl", 40, 60)), tmp_path / "c", WriteOptions())
    assert read_commit(tmp_path / "c").representations["sparse"].state == state is not None
    snapshot, query = Collection.open(tmp_path / "c").snapshot(), "old red fishes"
    searcher = snapshot.searcher("sparse")
    hits = searcher.search([query], SearchRequest(k=3))
    assert not snapshot.encoder("sparse").needs_fit
    origins: dict[str, str] = {}
    for score, explanation in zip(hits.scores[0], searcher.explain(query, hits.rows[0]), strict=True):
        assert explanation.value == pytest.approx(float(score), rel=1e-5)
        origins |= {part.label: part.facts["term"] for part in explanation.parts}
    own = {label for label, origin in origins.items() if origin == "of the query"}
    assert own and own <= {"old", "red", "fish"}
    assert any(label.startswith("~ ") for label in origins.keys() - own)


def test_two_collections_of_one_process_keep_what_each_has_learned(tmp_path: Path, tiny_codes: Path):
    part = representation_options("sparse", str(tiny_codes))
    for name, first in (("a", 0), ("b", 40)):
        build_collection(
            open_corpus(corpus(tmp_path / f"{name}.jsonl", first, first + 30)),
            tmp_path / name,
            BuildOptions((part,), Chunking.none()),
        )
    here, there = (Collection.open(tmp_path / name).snapshot().encoder("sparse") for name in "ab")
    assert here.fingerprints.documents == there.fingerprints.documents
    assert here.fingerprints.queries != there.fingerprints.queries
    asked = [encoder.encode_queries(["old red fish"]).values for encoder in (here, there)]
    assert not np.array_equal(*asked)


def test_sparse_without_a_model_means_the_one_that_comes_with_tercet():
    spec = representation_options("sparse").encoder
    assert spec == {"family": "codes", "model": "default-sparse", "options": {}}
    assert representation_options("sparse", "naver/splade-v3").encoder["family"] == "sparse"
