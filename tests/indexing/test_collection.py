"""A collection from corpus to hits: building, updating, deleting, compacting, reading beside writing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from indexing.adding import add_representation
from indexing.assembly import index_spec
from indexing.builder import add_documents, build_collection
from indexing.chunking import Chunking
from indexing.collection import Collection
from indexing.compaction import compact
from indexing.corpora import open_corpus
from indexing.deleting import delete_documents
from indexing.lock import writer_lock
from indexing.metadata_update import update_metadata
from indexing.options import (
    BuildOptions,
    RepresentationOptions,
    WriteOptions,
    encoder_spec,
    representation_options,
)
from retrieval.errors import ConfigError, FormatError, IncompatibleError, LockedError
from retrieval.protocols import SearchRequest
from retrieval.values import Dense

WORDS = [f"word{number}" for number in range(60)]


def make_records(n: int, seed: int = 0, words_each: int = 12) -> list[dict]:
    chance = random.Random(seed)
    return [
        {
            "_id": f"d{seed}-{number}",
            "title": " ".join(chance.choices(WORDS, k=2)),
            "text": " ".join(chance.choices(WORDS, weights=range(60, 0, -1), k=words_each)) + ".",
            "metadata": {"year": 1990 + number % 30, "kind": chance.choice(["a", "b"])},
        }
        for number in range(n)
    ]


def write_corpus(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def options(chunk: str = "none", batch_rows: int = 10_000, **writing) -> BuildOptions:
    return BuildOptions(
        (representation_options("bm25"), representation_options("dense", model="hashing:64")),
        Chunking.parse(chunk),
        WriteOptions(batch_rows=batch_rows, **writing),
    )


def build(folder: Path, records: list[dict], **how) -> Collection:
    corpus = open_corpus(write_corpus(folder.with_suffix(".jsonl"), records))
    build_collection(corpus, folder, options(**how))
    return Collection.open(folder)


def answers(
    collection: Collection,
    using: str,
    k: int = 20,
    queries: tuple[str, ...] = ("word1 word7", "word30 word2"),
):
    snapshot = collection.snapshot()
    hits = snapshot.searcher(using).search(list(queries), SearchRequest(k=k))
    return [
        list(zip(ids, scores[: len(ids)].tolist(), strict=True))
        for ids, scores in zip(snapshot.ids(hits.rows), hits.scores, strict=True)
    ]


@pytest.fixture(scope="module")
def records():
    return make_records(80)


@pytest.fixture
def collection(tmp_path, records):
    return build(tmp_path / "c", records)


@pytest.mark.parametrize("using", ["bm25", "dense", "hybrid", "bm25+dense", "rrf:hybrid", "dense-flat"])
def test_every_way_of_searching_finds_the_documents_it_should(collection, records, using):
    snapshot = collection.snapshot()
    hits = snapshot.searcher(using).search([records[7]["text"]], SearchRequest(k=5))
    assert snapshot.ids(hits.rows)[0][0] == records[7]["_id"]
    document = snapshot.documents(hits.rows[0, :1])[0]
    assert (document.text, document.title) == (records[7]["text"], records[7]["title"])
    assert dict(document.metadata) == records[7]["metadata"]


def test_documents_come_back_by_id_and_unknown_ids_are_none(collection, records):
    snapshot = collection.snapshot()
    assert snapshot.n_documents == len(records)
    assert snapshot.document("d0-5").text == records[5]["text"]
    assert snapshot.document("nobody") is None


@pytest.mark.parametrize("using", ["bm25", "dense"])
def test_segments_and_batches_change_no_answer(tmp_path, records, using):
    whole = build(tmp_path / "whole", records)
    small_batches = build(tmp_path / "batches", records, batch_rows=7)
    pieces = build(tmp_path / "pieces", records[:30])
    add_documents(
        open_corpus(write_corpus(tmp_path / "rest.jsonl", records[30:])), pieces.path, WriteOptions()
    )
    assert len(pieces.commit().segments) == 2
    assert answers(whole, using) == answers(small_batches, using) == answers(pieces, using)


@pytest.mark.parametrize("using", ["bm25", "dense", "hybrid"])
def test_deleting_equals_never_having_had_the_documents(tmp_path, records, using):
    kept = [record for record in records if int(record["_id"].split("-")[1]) % 3]
    gone = [record["_id"] for record in records if record not in kept]
    never = build(tmp_path / "never", kept)
    deleted = build(tmp_path / "deleted", records)
    assert delete_documents(deleted.path, gone) == len(gone)
    assert deleted.snapshot().n_documents == len(kept)
    assert answers(deleted, using) == answers(never, using)
    assert compact(deleted.path)
    assert answers(deleted, using) == answers(never, using)
    assert len(deleted.commit().segments) == 1
    assert deleted.commit().segments[0].n_rows == len(kept)
    assert not compact(deleted.path)


def test_deleted_documents_are_gone_by_id_and_may_come_back(collection, records, tmp_path):
    delete_documents(collection.path, ["d0-3"])
    assert collection.snapshot().document("d0-3") is None
    add_documents(
        open_corpus(write_corpus(tmp_path / "again.jsonl", [records[3]])), collection.path, WriteOptions()
    )
    assert collection.snapshot().document("d0-3").text == records[3]["text"]


def test_deleting_an_unknown_id_deletes_nothing(collection):
    with pytest.raises(ConfigError, match="no document 'nobody'"):
        delete_documents(collection.path, ["d0-1", "nobody"])
    assert collection.snapshot().document("d0-1") is not None
    assert delete_documents(collection.path, ["d0-1", "nobody"], ignore_missing=True) == 1


def test_deleting_by_filter(collection, records):
    expected = sum(record["metadata"]["year"] < 2000 for record in records)
    assert delete_documents(collection.path, where="year < 2000") == expected
    assert collection.snapshot().n_documents == len(records) - expected


def test_everything_deleted_leaves_an_empty_collection_that_answers(collection, records):
    delete_documents(collection.path, [record["_id"] for record in records])
    assert answers(collection, "hybrid") == [[], []]
    compact(collection.path)
    assert answers(collection, "hybrid") == [[], []]


@pytest.mark.parametrize("using", ["bm25", "dense", "hybrid"])
def test_a_filter_returns_only_what_satisfies_it(collection, records, using):
    snapshot = collection.snapshot()
    allowed = snapshot.filter('kind = "a" and year >= 2000')
    expected = {r["_id"] for r in records if r["metadata"]["kind"] == "a" and r["metadata"]["year"] >= 2000}
    hits = snapshot.searcher(using).search(["word1 word2 word3"], SearchRequest(k=100, allowed=allowed))
    found = snapshot.ids(hits.rows)[0]
    assert found and set(found) <= expected
    nothing = snapshot.filter("year = 1")
    assert snapshot.ids(snapshot.searcher(using).search(["word1"], SearchRequest(allowed=nothing)).rows) == [
        []
    ]


def test_a_filter_on_an_unknown_field_names_the_fields_there_are(collection):
    with pytest.raises(ConfigError, match=r"unknown field 'colour'.*kind, year"):
        collection.snapshot().filter('colour = "red"')


def test_filters_hold_across_segments_that_do_not_start_at_a_byte(tmp_path, records):
    pieces = build(tmp_path / "pieces", records[:13])
    add_documents(
        open_corpus(write_corpus(tmp_path / "rest.jsonl", records[13:])), pieces.path, WriteOptions()
    )
    whole = build(tmp_path / "whole", records)
    for snapshot in (pieces.snapshot(), whole.snapshot()):
        rows = snapshot.filter('kind = "b"').rows()
        assert [snapshot.ids(rows[None])[0]] == [[r["_id"] for r in records if r["metadata"]["kind"] == "b"]]


@pytest.mark.parametrize("using", ["bm25", "dense", "hybrid"])
def test_chunks_collapse_to_documents_before_k_is_cut(tmp_path, using):
    records = make_records(30, words_each=90)
    collection = build(tmp_path / "c", records, chunk="20/5")
    snapshot = collection.snapshot()
    assert snapshot.n_rows > 2 * len(records)
    hits = snapshot.searcher(using).search(["word0 word1 word2"], SearchRequest(k=25))
    ids = snapshot.ids(hits.rows)[0]
    assert len(ids) == len(set(ids)) == 25
    passage, document = snapshot.passages(hits.rows[0, :1])[0], snapshot.documents(hits.rows[0, :1])[0]
    start, stop = snapshot.spans(hits.rows[0, :1])[0]
    assert document.text[start:stop] == passage.text != document.text


def test_chunked_documents_survive_deletes_and_compaction(tmp_path):
    records = make_records(30, words_each=90)
    deleted = build(tmp_path / "c", records, chunk="20/5")
    never = build(tmp_path / "never", records[10:], chunk="20/5")
    delete_documents(deleted.path, [record["_id"] for record in records[:10]])
    assert answers(deleted, "bm25") == answers(never, "bm25")
    compact(deleted.path)
    assert answers(deleted, "hybrid") == answers(never, "hybrid")


def test_a_repeated_id_names_both_lines_and_commits_nothing(tmp_path, records):
    corpus = write_corpus(tmp_path / "c.jsonl", [*records[:5], records[2]])
    with pytest.raises(FormatError, match=r"c\.jsonl:6: .*'d0-2' was already used at .*c\.jsonl:3"):
        build_collection(open_corpus(corpus), tmp_path / "c", options(batch_rows=2))
    with pytest.raises(ConfigError, match="interrupted"):
        Collection.open(tmp_path / "c")


@pytest.mark.parametrize("batch_rows", [2, 100])
@pytest.mark.parametrize("policy", ["replace", "skip"])
def test_repeated_ids_are_replaced_or_skipped_on_request(tmp_path, records, policy, batch_rows):
    later = {**records[2], "text": "a later version"}
    corpus = open_corpus(write_corpus(tmp_path / "c.jsonl", [*records[:5], later]))
    report = build_collection(corpus, tmp_path / "c", options(batch_rows=batch_rows, on_duplicate=policy))
    snapshot = Collection.open(tmp_path / "c").snapshot()
    assert snapshot.n_documents == 5
    assert snapshot.document("d0-2").text == (later if policy == "replace" else records[2])["text"]
    assert (report.replaced, report.skipped) == ((1, 0) if policy == "replace" else (0, 1))


@pytest.mark.parametrize("policy", ["error", "replace", "skip"])
def test_adding_an_id_that_is_there_follows_the_policy(collection, records, tmp_path, policy):
    before = collection.commit()
    corpus = open_corpus(write_corpus(tmp_path / "more.jsonl", [{**records[0], "text": "changed"}]))
    if policy == "error":
        with pytest.raises(FormatError, match="already in the collection"):
            add_documents(corpus, collection.path, WriteOptions())
        assert collection.commit() == before
        return
    add_documents(corpus, collection.path, WriteOptions(policy))
    snapshot = collection.snapshot()
    assert snapshot.n_documents == len(records)
    assert snapshot.document("d0-0").text == ("changed" if policy == "replace" else records[0]["text"])


def test_metadata_changes_without_encoding_and_keeps_answers(collection, tmp_path):
    before = answers(collection, "hybrid")
    updates = write_corpus(
        tmp_path / "u.jsonl", [{"_id": "d0-1", "kind": None, "stars": 4}, {"_id": "d0-2", "year": 5}]
    )
    assert update_metadata(collection.path, updates) == 2
    snapshot = collection.snapshot()
    assert dict(snapshot.document("d0-1").metadata) == {"year": 1991, "stars": 4}
    assert snapshot.filter("stars = 4 or year = 5").count() == 2
    assert answers(collection, "hybrid") == before


def test_conflicting_metadata_types_are_refused_with_both_places(collection, tmp_path):
    wrong = open_corpus(
        write_corpus(tmp_path / "w.jsonl", [{"_id": "x", "text": "t", "metadata": {"year": "old"}}])
    )
    with pytest.raises(FormatError, match="year"):
        add_documents(wrong, collection.path, WriteOptions())
    updates = write_corpus(tmp_path / "u.jsonl", [{"_id": "d0-1", "year": "old"}])
    with pytest.raises(FormatError, match="year"):
        update_metadata(collection.path, updates)


def test_a_reader_keeps_its_commit_through_deletes_and_compaction(collection, records):
    reader = collection.snapshot()
    searcher = reader.searcher("hybrid")
    before = searcher.search(["word1 word7"], SearchRequest())
    delete_documents(collection.path, [record["_id"] for record in records[:40]])
    compact(collection.path)
    after = searcher.search(["word1 word7"], SearchRequest())
    assert np.array_equal(before.rows, after.rows) and np.array_equal(before.scores, after.scores)
    assert reader.document("d0-0") is not None
    assert len(list((collection.path / "segments").iterdir())) == 2
    reader.close()
    compact(collection.path)  # nothing to merge, but what nobody holds any more is swept
    assert len(list((collection.path / "segments").iterdir())) == 1
    assert not list((collection.path / "deletes").iterdir())


def test_a_second_writer_gets_a_clear_error(collection):
    with writer_lock(collection.path), pytest.raises(LockedError, match=r"process \d+ is writing"):
        delete_documents(collection.path, ["d0-1"])


def test_an_index_or_representation_is_added_from_what_is_stored(collection, records):
    add_representation(
        collection.path,
        RepresentationOptions("dense", {}, (index_spec("hnsw", {}),)),
    )
    assert answers(collection, "dense-hnsw", k=5) == answers(collection, "dense", k=5)
    add_representation(
        collection.path, RepresentationOptions("wide", encoder_spec("hashing:128"), (index_spec("flat", {}),))
    )
    assert collection.commit().representations["wide"].value == "dense"
    assert answers(collection, "wide")[0]
    with pytest.raises(ConfigError, match="already has"):
        add_representation(collection.path, RepresentationOptions("dense", {}, (index_spec("hnsw", {}),)))


def test_stored_vectors_are_checked_before_they_are_added(collection):
    chance = np.random.default_rng(0)
    fitting = Dense(chance.standard_normal((80, 32)).astype(np.float32))
    representation = RepresentationOptions("mine", encoder_spec("hashing:32"), (index_spec("flat", {}),))
    with pytest.raises(IncompatibleError, match="79 rows"):
        add_representation(collection.path, representation, vectors=fitting[:79])
    narrow = Dense(fitting.values[:, :16].copy())
    with pytest.raises(IncompatibleError, match="16 wide"):
        add_representation(collection.path, representation, vectors=narrow)
    spoiled = Dense(fitting.values.copy())
    spoiled.values[3, 3] = np.nan
    with pytest.raises(FormatError, match="row 3"):
        add_representation(collection.path, representation, vectors=spoiled)
    add_representation(collection.path, representation, vectors=fitting)
    assert len(answers(collection, "mine")[0]) == 20


def test_another_encoder_is_refused_and_both_are_named(collection):
    path = collection.path / "collection.json"
    from indexing.commit import read_commit, write_commit

    commit = read_commit(collection.path)
    dense = commit.representations["dense"]
    other = {**dense.encoder, "options": {**dense.encoder["options"], "dim": 32}}
    changed = {
        **commit.representations,
        "dense": type(dense)(other, dense.fingerprint, dense.value, dense.indexes),
    }
    write_commit(collection.path, commit.following(representations=changed))
    assert path.exists()
    with pytest.raises(IncompatibleError, match=r"hashing.*fingerprint"):
        collection.snapshot().searcher("dense")


def test_a_newer_format_is_refused_by_name(collection):
    from indexing.durable import read_sealed, write_sealed

    path = collection.path / "collection.json"
    write_sealed(path, {**read_sealed(path), "format": 99})
    with pytest.raises(
        IncompatibleError, match="format version 99, this tercet reads version 1; upgrade tercet"
    ):
        collection.snapshot()


def test_paths_that_are_no_collection_say_so(tmp_path, collection, records):
    with pytest.raises(ConfigError, match="tercet index"):
        Collection.open(tmp_path / "nothing")
    corpus = open_corpus(write_corpus(tmp_path / "x.jsonl", records[:3]))
    with pytest.raises(ConfigError, match="already holds a collection"):
        build_collection(corpus, collection.path, options())
    with pytest.raises(ConfigError, match="is a file"):
        build_collection(corpus, tmp_path / "x.jsonl", options())
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"other files \(precious"):
        build_collection(corpus, tmp_path / "taken", options())
    with pytest.raises(ConfigError, match="cannot search using 'late'"):
        collection.snapshot().searcher("late")


def test_odd_documents_and_queries_are_ordinary(tmp_path):
    odd = [
        {"_id": "empty", "text": "", "title": ""},
        {"_id": "stop", "text": "the of and"},
        {"_id": "long", "text": "lorem ipsum " * 20_000},
        {"_id": "ünï/cødé ☃", "text": "snow man ☃ naïve"},
    ]
    collection = build(tmp_path / "c", odd, chunk="180/40")
    for using in ("bm25", "dense", "hybrid"):
        for query in ("", "the of", "lorem", "☃", "naïve"):
            found = answers(collection, using, k=50, queries=(query,))[0]
            assert len(found) == len({id_ for id_, _ in found}) <= 4
    assert answers(collection, "bm25", queries=("naïve",))[0][0][0] == "ünï/cødé ☃"
    assert collection.snapshot().document("ünï/cødé ☃") is not None


def test_info_counts_what_is_there_and_needs_no_torch(collection):
    facts = collection.snapshot().info()
    assert facts["documents"] == 80 and facts["fields"].keys() == {"year", "kind"}
    script = (
        "import sys; from service.cli import tercet; from indexing.command_line import run; "
        f"code = run(tercet, ['info', {str(collection.path)!r}]); "
        "heavy = {'torch', 'numba', 'sentence_transformers', 'fastapi'} & set(sys.modules); "
        "sys.exit(code or bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
