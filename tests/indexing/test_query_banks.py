"""Query banks from a file to the answers of a collection, through writes, deletes, compaction and damage."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from eval.collection_cache import index_bytes, open_retrievers
from indexing.adding import add_representation
from indexing.builder import add_documents, build_collection
from indexing.chunking import Chunking
from indexing.cli import COMMANDS
from indexing.collection import Collection
from indexing.commit import read_commit
from indexing.compaction import compact
from indexing.corpora import open_corpus
from indexing.deleting import delete_documents
from indexing.options import BuildOptions, WriteOptions, representation_options
from indexing.query_banks import LARGEST, store_query_bank
from indexing.query_texts import read_queries
from indexing.verification import verify
from retrieval.errors import ConfigError, CorruptError, FormatError, IncompatibleError
from retrieval.protocols import SearchRequest
from service.search_cli import search_command

WORDS = [f"word{number}" for number in range(50)]
TEN = SearchRequest(k=10)


def texts(n: int, seed: int, words: int = 8) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, weights=range(50, 0, -1), k=words)) for _ in range(n)]


def corpus_of(path: Path, documents: list[str], prefix: str = "d"):
    lines = [json.dumps({"_id": f"{prefix}{n}", "text": text}) for n, text in enumerate(documents)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return open_corpus(path)


def built(folder: Path, chunk: str = "none", kinds: str = "dense", words: int = 8) -> Path:
    parts = (representation_options("bm25"), representation_options(kinds, model="hashing:32"))
    corpus = corpus_of(folder.with_suffix(".jsonl"), texts(120, 0, words))
    build_collection(corpus, folder, BuildOptions(parts, Chunking.parse(chunk), WriteOptions()))
    return folder


@pytest.fixture
def path(tmp_path) -> Path:
    return built(tmp_path / "c")


BANK = texts(60, 1, 4)
QUERIES = texts(40, 2, 4)


def answers(path: Path, queries=tuple(QUERIES), using: str = "dense", request=TEN, **how):
    snapshot = Collection.open(path).snapshot()
    hits = snapshot.searcher(using, **how).search(list(queries), request)
    return [
        list(zip(ids, scores[: len(ids)].tolist(), strict=True))
        for ids, scores in zip(snapshot.ids(hits.rows), hits.scores, strict=True)
    ]


def by_definition(path: Path, beta: float = 20.0, k: int = 1, bank: list[str] = BANK):
    """What a bank makes of the live rows, from stored vectors, in float64; depth 100 and ten hits."""
    snapshot = Collection.open(path).snapshot()
    encoder = snapshot.encoder("dense")
    rows = np.array([row for segment in snapshot.segments for row in live_rows(segment)])
    stored = snapshot.store("dense").take(rows).values.astype(np.float64)
    sample = encoder.encode_queries(bank).values.astype(np.float64) @ stored.T
    hubs = {int(at) for line in np.float32(sample) for at in np.argsort(-line, kind="stable")[:k]}
    sums = np.log(np.exp(beta * sample).sum(axis=0))
    found = []
    for scores in np.float32(encoder.encode_queries(QUERIES).values.astype(np.float64) @ stored.T):
        best = np.argsort(-scores, kind="stable")[:100]
        changed = beta * scores.astype(np.float64) - sums if best[0] in hubs else scores
        order = sorted(best, key=lambda at: (-np.float32(changed[at]), at))[:10]
        found.append([(snapshot.ids(rows[None, at : at + 1])[0][0], float(changed[at])) for at in order])
    return found


def live_rows(segment) -> list[int]:
    live = np.ones(segment.n_rows, dtype=bool) if segment.live is None else segment.live.mask()
    return (np.flatnonzero(live) + segment.base).tolist()


def same(found, expected) -> bool:
    names = [[name for name, _ in line] for line in found] == [
        [name for name, _ in line] for line in expected
    ]
    return names and np.allclose(
        [score for line in found for _, score in line],
        [score for line in expected for _, score in line],
        atol=1e-4,
    )


def ranked(found) -> list:
    return [[name for name, _ in line] for line in found]


# --- searching with a bank ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [{}, {"beta": 5, "k": 2}])
def test_answers_are_the_formula_over_stored_vectors(path, parameters):
    plain = answers(path)
    stored = store_query_bank(path, "dense", BANK, parameters)
    assert (stored.representation, stored.queries, stored.left_out, stored.hubness.k) == ("dense", 60, 0, 10)
    assert 0 < stored.hubness.hubs < 0.5 and 0 <= stored.hubness.anti_hubs < 1
    assert answers(path) == plain  # nothing changes unless it is asked for
    found = answers(path, query_bank=True)
    assert same(found, by_definition(path, **parameters))
    assert ranked(found) != ranked(plain)


def test_adding_deleting_and_compacting_change_what_is_a_hub(path, tmp_path):
    store_query_bank(path, "dense", BANK)
    add_documents(corpus_of(tmp_path / "more.jsonl", texts(60, 7), "e"), path, WriteOptions())
    added = answers(path, query_bank=True)
    assert len(read_commit(path).segments) == 2 and same(added, by_definition(path))
    best = list(dict.fromkeys(line[0][0] for line in added))
    delete_documents(path, best[:10])
    deleted = answers(path, query_bank=True)
    assert same(deleted, by_definition(path))
    assert not {name for line in deleted for name, _ in line} & set(best[:10])
    assert compact(path)
    assert answers(path, query_bank=True) == deleted


def test_chunks_are_corrected_and_documents_returned_once(tmp_path):
    path = built(tmp_path / "c", chunk="12/3", words=40)
    store_query_bank(path, "dense", BANK)
    found = answers(path, query_bank=True)
    assert all(len({name for name, _ in line}) == 10 for line in found)
    assert ranked(found) != ranked(answers(path))


@pytest.mark.parametrize("using", ["hybrid", "bm25+dense", "rrf:hybrid"])
def test_a_fused_search_corrects_the_part_that_has_a_bank(path, using):
    store_query_bank(path, "dense", BANK)
    snapshot = Collection.open(path).snapshot()
    fused = snapshot.searcher(using, query_bank=True)
    names = [name for name, _, _ in fused.parts]
    corrected = fused.parts[names.index("dense")][1].search(QUERIES, TEN)
    alone = snapshot.searcher("dense", query_bank=True).search(QUERIES, TEN)
    assert corrected.rows.tolist() == alone.rows.tolist()
    plain = snapshot.searcher("bm25").search(QUERIES, TEN)
    assert fused.parts[names.index("bm25")][1].search(QUERIES, TEN).rows.tolist() == plain.rows.tolist()
    hits = fused.search(QUERIES[:1], TEN)
    explained = fused.explain(QUERIES[0], hits.rows[0], TEN)
    assert [part.value for part in explained] == pytest.approx(hits.scores[0].tolist(), abs=1e-6)


def test_an_approximate_index_has_hubs_of_its_own(tmp_path):
    path = built(tmp_path / "c", kinds="dense:hnsw")
    store_query_bank(path, "dense", BANK)
    found = answers(path, using="dense-hnsw", query_bank=True)
    assert same(found, by_definition(path))  # 120 rows: the walk finds them all


def test_what_was_learned_stays_with_the_snapshot(path):
    store_query_bank(path, "dense", BANK)
    snapshot = Collection.open(path).snapshot()
    one, other = (snapshot.searcher("dense", query_bank=True) for _ in range(2))
    assert one.correction is other.correction
    assert (
        Collection.open(path).snapshot().searcher("dense", query_bank=True).correction is not one.correction
    )


# --- storing it --------------------------------------------------------------------------------------------------


def test_a_bank_is_a_state_of_the_collection_until_another_takes_its_place(path):
    store_query_bank(path, "dense", BANK)
    first = read_commit(path).representations["dense"].query_bank
    assert [folder.name for folder in (path / "shared" / "dense-query-bank").iterdir()] == [first]
    facts = Collection.open(path).snapshot().info()
    assert facts["representations"]["dense"]["query_bank"] == first
    assert facts["representations"]["bm25"]["query_bank"] is None
    assert facts["bytes"]["shared/dense-query-bank"] > 60 * 32 * 4
    store_query_bank(path, "dense", BANK[:30])
    second = read_commit(path).representations["dense"].query_bank
    assert [folder.name for folder in (path / "shared" / "dense-query-bank").iterdir()] == [second] != [first]
    assert not verify(path).problems
    add_representation(path, representation_options("dense:hnsw", model="hashing:32"))
    assert read_commit(path).representations["dense"].query_bank == second


def test_a_reader_of_an_earlier_commit_keeps_its_bank(path):
    store_query_bank(path, "dense", BANK)
    before, expected = Collection.open(path).snapshot(), answers(path, query_bank=True)
    store_query_bank(path, "dense", BANK[:5])
    snapshot_answers = before.searcher("dense", query_bank=True).search(QUERIES, TEN)
    assert before.ids(snapshot_answers.rows) == ranked(expected)


def test_of_too_many_queries_evenly_spaced_ones_are_taken(path, monkeypatch):
    monkeypatch.setattr("indexing.query_banks.LARGEST", 20)
    stored = store_query_bank(path, "dense", BANK)
    assert (stored.queries, stored.left_out) == (20, 40)
    assert same(answers(path, query_bank=True), by_definition(path, bank=BANK[::3]))
    assert LARGEST >= 1000


def test_a_collection_without_documents_takes_a_bank(path):
    store_query_bank(path, "dense", BANK)
    delete_documents(path, [f"d{n}" for n in range(120)])
    assert answers(path, query_bank=True) == [[]] * 40
    assert store_query_bank(path, "dense", BANK[:5]).hubness.hubs == 0


def test_commits_of_before_there_were_banks_are_read(path):
    from indexing.durable import read_sealed, write_sealed

    content = read_sealed(path / "collection.json")
    for facts in content["representations"].values():
        del facts["query_bank"]
    write_sealed(path / "collection.json", content)
    assert read_commit(path).representations["dense"].query_bank is None
    assert len(answers(path)) == 40


@pytest.mark.parametrize(
    ("name", "queries", "parameters", "message"),
    [
        ("dense", [], {}, "at least one query"),
        ("bm25", BANK, {}, "'bm25' holds terms vectors"),
        ("late", BANK, {}, "no representation 'late'"),
        ("dense", BANK, {"beta": -1}, "beta of a query bank is -1"),
        ("dense", BANK, {"k": 0}, "k of a query bank is 0"),
        ("dense", BANK, {"depth": 3}, "unknown parameter of a query bank 'depth'; valid: beta, k"),
    ],
)
def test_a_bank_that_cannot_be_is_refused_and_nothing_is_written(path, name, queries, parameters, message):
    before = sorted(str(file) for file in path.rglob("*"))
    with pytest.raises(ConfigError, match=message):
        store_query_bank(path, name, queries, parameters)
    assert sorted(str(file) for file in path.rglob("*")) == before


def test_a_vector_that_is_no_number_is_refused(path, monkeypatch):
    encoder = Collection.open(path).snapshot().encoder("dense")

    def broken(queries):
        vectors = usual(queries)
        vectors.values[0, 0] = np.nan
        return vectors

    usual = encoder.encode_queries
    monkeypatch.setattr(type(encoder), "encode_queries", lambda self, queries: broken(queries))
    with pytest.raises(FormatError, match="NaN or infinity"):
        store_query_bank(path, "dense", BANK)
    assert read_commit(path).representations["dense"].query_bank is None


def test_without_a_bank_the_remedy_is_named(path):
    for using in ("dense", "bm25", "hybrid"):
        with pytest.raises(
            ConfigError, match=r"no query bank for .*tercet index .* --query-bank QUERIES.jsonl"
        ):
            answers(path, using=using, query_bank=True)
    store_query_bank(path, "dense", BANK)
    with pytest.raises(ConfigError, match="no query bank for bm25"):
        answers(path, using="bm25", query_bank=True)


def test_a_bank_of_another_encoder_of_queries_is_refused(path):
    from dataclasses import replace
    from types import SimpleNamespace

    store_query_bank(path, "dense", BANK)
    snapshot = Collection.open(path).snapshot()
    own = snapshot.encoder("dense")
    other = SimpleNamespace(value=own.value, fingerprints=replace(own.fingerprints, queries="another"))
    with pytest.raises(IncompatibleError, match="another encoder of queries; store it again"):
        snapshot.searcher("dense", encoders={"dense": other}, query_bank=True)


@pytest.mark.parametrize("file", ["values.npy", "bank.json"])
def test_damage_is_found(path, file):
    store_query_bank(path, "dense", BANK)
    generation = read_commit(path).representations["dense"].query_bank
    target = path / "shared" / "dense-query-bank" / generation / file
    raw = target.read_bytes()
    target.write_bytes(raw[:-1])
    with pytest.raises(CorruptError, match=file):
        Collection.open(path).snapshot()
    target.write_bytes(raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:])
    assert any(file in problem for problem in verify(path).problems)


# --- files of queries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["q.jsonl", "q.jsonl.gz", "q.txt", "q"])
def test_queries_are_read_from_json_lines_and_text(tmp_path, name):
    wanted = ["first query", "Köln", "the last"]
    lines = ["", "  first query ", "Köln", "first query", " ", "the last"]
    if ".jsonl" in name:
        lines = [json.dumps({"_id": str(n), "text": text}) if text else "" for n, text in enumerate(lines)]
    content = "\ufeff" + "\r\n".join(lines)
    write = gzip.open if name.endswith(".gz") else open
    with write(tmp_path / name, "wb") as file:
        file.write(content.encode())
    assert read_queries(tmp_path / name) == wanted


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", b'{"text": "a"}\n{"_id": "2"}', r'q.jsonl:2: "text" is missing or no string'),
        ("q.jsonl", b'{"text": 3}', r'q.jsonl:1: "text" is missing or no string'),
        ("q.jsonl", b"a query", r"q.jsonl:1: malformed JSON"),
        ("q.jsonl", b"", "there is no query"),
        ("q.txt", b"\n  \n", "there is no query"),
        ("q.txt", b"fine\n\xff", r"q.txt:2: invalid UTF-8"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_queries(tmp_path / name)
    with pytest.raises(FormatError, match="cannot be read"):
        read_queries(tmp_path / "missing.txt")


# --- commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def call():
    group = click.Group("t", commands=[*COMMANDS, search_command])

    def run(*arguments):
        result = CliRunner().invoke(group, [str(argument) for argument in arguments])
        return result

    return run


def test_the_commands_store_and_use_a_bank(path, call, tmp_path):
    (tmp_path / "q.txt").write_text("\n".join(BANK))
    stored = call("index", path, "--query-bank", tmp_path / "q.txt", "-p", "beta=10", "-q")
    assert stored.exit_code == 0, stored.output
    assert stored.output.startswith(f"stored 60 queries as the query bank of dense in {path}\n")
    assert "Robin Hood index" in stored.output
    again = call(
        "index", path, "--query-bank", tmp_path / "q.txt", "--using", "dense", "-p", "beta=10", "-q", "--json"
    )
    assert json.loads(again.output)["hubness"]["k"] == 10
    found = call("search", path, QUERIES[0], "--using", "dense", "--query-bank", "--json", "--explain")
    hits = json.loads(found.output)["results"][0]["hits"]
    assert [hit["id"] for hit in hits] == ranked(by_definition(path, beta=10))[0]
    assert all(hit["explanation"]["value"] == pytest.approx(hit["score"]) for hit in hits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--using", "dense"), "--using goes with --query-bank"),
        (("--query-bank", "q.txt", "--add", "dense:hnsw"), "--add has no effect with --query-bank"),
        (("--query-bank", "q.txt", "-o", "x"), "--output has no effect with --query-bank"),
        (("--query-bank", "q.txt", "--restart"), "--restart has no effect with --query-bank"),
        (("--query-bank", "q.txt", "--model", "x"), "--model has no effect with --query-bank"),
    ],
)
def test_options_that_have_no_effect_are_refused(path, call, arguments, message):
    result = call("index", path, *arguments)
    assert result.exit_code == 2 and message in result.output


def test_an_evaluation_measures_both_ways(path):
    store_query_bank(path, "dense", BANK)
    found = open_retrievers(path, ["dense", "bm25", "hybrid"], query_bank=True)
    names = ["dense", "bm25", "hybrid", "dense-query-bank", "hybrid-query-bank"]
    assert [one.name for one in found] == names
    bank_bytes = Collection.open(path).snapshot().info()["bytes"]["shared/dense-query-bank"]
    assert found[3].index_bytes == found[0].index_bytes + bank_bytes
    assert index_bytes(Collection.open(path).snapshot(), "dense") == found[0].index_bytes
    assert (
        found[3].searcher.search(QUERIES, TEN).rows.tolist()
        != found[0].searcher.search(QUERIES, TEN).rows.tolist()
    )
    with pytest.raises(ConfigError, match="no query bank for bm25"):
        open_retrievers(path, ["bm25"], query_bank=True)
