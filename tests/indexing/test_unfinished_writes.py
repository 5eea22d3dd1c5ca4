"""What writes that end early leave behind: nothing, or something the same command goes on from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from indexing import adding, staging
from indexing.adding import add_representation
from indexing.assembly import index_spec
from indexing.builder import add_documents, build_collection
from indexing.chunking import Chunking
from indexing.collection import Collection
from indexing.compaction import compact
from indexing.corpora import open_corpus
from indexing.deleting import delete_documents
from indexing.options import (
    BuildOptions,
    RepresentationOptions,
    WriteOptions,
    encoder_spec,
    representation_options,
)
from indexing.staging import Staging, jobs, plan_of, unfinished_jobs
from retrieval.encoders.hashing import HashingEncoder
from retrieval.errors import ConfigError, CorruptError, FormatError
from retrieval.values import Dense

WIDE = RepresentationOptions("wide", encoder_spec("hashing:8"), (index_spec("flat", {}),))


def write(path: Path, n: int, *more: str, start: int = 0) -> Path:
    lines = [json.dumps({"_id": f"d{number}", "text": f"word{number}"}) for number in range(start, start + n)]
    path.write_text("\n".join([*lines, *more]) + "\n")
    return path


def options(restart: bool = False) -> BuildOptions:
    return BuildOptions(
        (representation_options("dense", model="hashing:16"),),
        Chunking.none(),
        WriteOptions(batch_rows=10, restart=restart),
    )


def build(path: Path, corpus: Path, **how: bool):
    return build_collection(open_corpus(corpus), path, options(**how))


def interrupt_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """End the process's next write like a signal would, when so many batches are sealed."""
    real, left = staging.write_manifest, batches

    def sealing(folder, facts):
        nonlocal left
        real(folder, facts)
        left -= facts["component"] == "batch"
        if not left:
            monkeypatch.setattr(staging, "write_manifest", real)
            raise KeyboardInterrupt

    monkeypatch.setattr(staging, "write_manifest", sealing)


@pytest.fixture
def interrupted(tmp_path, monkeypatch) -> Path:
    """The folder of a first build that ended after two of five batches; the corpus beside it is c.jsonl."""
    interrupt_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "c", write(tmp_path / "c.jsonl", 50))
    return tmp_path / "c"


@pytest.fixture
def collection(tmp_path) -> Path:
    build(tmp_path / "c", write(tmp_path / "c.jsonl", 25))
    return tmp_path / "c"


def journal_of(collection: Path) -> Path:
    (job,) = jobs(collection)
    return job / "journal.json"


def test_an_interrupted_build_resumes_unless_it_is_to_restart(interrupted, tmp_path):
    assert unfinished_jobs(interrupted) == 1
    shutil.copytree(interrupted, tmp_path / "copy")
    assert build(interrupted, tmp_path / "c.jsonl").resumed_documents == 20
    assert build(tmp_path / "copy", tmp_path / "c.jsonl", restart=True).resumed_documents == 0
    assert not (interrupted / "building").exists() and not (tmp_path / "copy" / "building").exists()


def test_a_damaged_journal_says_what_to_do_and_restarting_does_it(interrupted, tmp_path):
    journal = journal_of(interrupted)
    journal.write_bytes(journal.read_bytes()[:-9])
    assert unfinished_jobs(interrupted) == 0
    with pytest.raises(CorruptError, match=r"journal\.json: .*forget that run with --restart"):
        build(interrupted, tmp_path / "c.jsonl")
    report = build(interrupted, tmp_path / "c.jsonl", restart=True)
    assert (report.resumed_documents, report.n_documents) == (0, 50)
    assert not (interrupted / "building").exists()


@pytest.mark.parametrize("verb", ["compact", "add"])
def test_restarting_mends_other_verbs_too(collection, tmp_path, monkeypatch, verb):
    delete_documents(collection, ["d3"])

    def write_it(**how: bool) -> None:
        compact(collection, **how) if verb == "compact" else add_representation(collection, WIDE, **how)

    interrupt_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        write_it()
    journal_of(collection).write_text("{}")
    with pytest.raises(CorruptError, match="--restart"):
        write_it()
    write_it(restart=True)
    assert not (collection / "building").exists()


def test_whatever_no_run_can_resume_is_swept(interrupted, tmp_path):
    """Batches without a journal, a damaged journal, and the remains of a removal that was killed."""
    target = tmp_path / "swept"
    build(target, write(tmp_path / "s.jsonl", 5))
    (job,) = jobs(interrupted)
    for name, spoil in (("0" * 16, "missing"), ("1" * 16, "damaged"), (f"{'2' * 16}.gone", "none")):
        shutil.copytree(job, target / "building" / name)
        journal = target / "building" / name / "journal.json"
        if spoil == "missing":
            journal.unlink()
        elif spoil == "damaged":
            journal.write_text("?")
    delete_documents(target, ["d1"])
    assert not (target / "building").exists()


def test_a_removal_that_is_killed_leaves_nothing_that_looks_resumable(interrupted, tmp_path, monkeypatch):
    (job,) = jobs(interrupted)
    real = shutil.rmtree

    def half(path, **how):
        if path.exists():
            real(path / "batch-000000" / "vectors-dense")
            raise KeyboardInterrupt

    monkeypatch.setattr(staging.shutil, "rmtree", half)
    with pytest.raises(KeyboardInterrupt):
        Staging.remove(job)
    monkeypatch.setattr(staging.shutil, "rmtree", real)
    assert unfinished_jobs(interrupted) == 0
    assert all(plan_of(folder) is None for folder in jobs(interrupted))
    assert build(interrupted, tmp_path / "c.jsonl").resumed_documents == 0
    assert Collection.open(interrupted).snapshot().n_documents == 50
    assert not (interrupted / "building").exists()


@pytest.mark.parametrize("bad", ["{bad", '{"_id": "d1", "text": "again"}', '{"text": 5}'])
def test_a_first_build_of_bad_data_leaves_nothing(tmp_path, bad):
    corpus = write(tmp_path / "c.jsonl", 5, bad)
    with pytest.raises(FormatError):
        build(tmp_path / "c", corpus)
    assert not (tmp_path / "c").exists()
    (tmp_path / "c").mkdir()
    with pytest.raises(FormatError):
        build(tmp_path / "c", corpus)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["writer.lock"], (
        "the folder was there before"
    )
    with pytest.raises(ConfigError, match="no collection here"):
        Collection.open(tmp_path / "c")
    assert build(tmp_path / "c", write(tmp_path / "c.jsonl", 5)).n_documents == 5


def test_an_addition_of_bad_data_leaves_the_collection_as_it_was(collection, tmp_path):
    before = Collection.open(collection).commit()
    with pytest.raises(FormatError, match="already in the collection"):
        add_documents(open_corpus(write(tmp_path / "m.jsonl", 5)), collection, WriteOptions())
    assert not (collection / "building").exists()
    assert Collection.open(collection).commit() == before
    assert Collection.open(collection).snapshot().info()["unfinished_builds"] == 0


def test_batches_before_the_bad_line_are_kept_for_the_same_corpus(tmp_path):
    corpus = write(tmp_path / "c.jsonl", 15, "{bad")
    for _ in range(2):
        with pytest.raises(FormatError, match=r"c\.jsonl:16"):
            build(tmp_path / "c", corpus)
        assert unfinished_jobs(tmp_path / "c") == 1


def test_vectors_that_were_refused_leave_nothing(collection):
    vectors = np.ones((25, 8), dtype=np.float32)
    vectors[24, 0] = np.nan
    with pytest.raises(FormatError, match="NaN"):
        add_representation(collection, WIDE, vectors=Dense(vectors))
    assert not (collection / "building").exists()


def test_encoded_vectors_outlive_everything_before_their_commit(collection, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    real = adding.write_commit
    monkeypatch.setattr(adding, "write_commit", killed)
    with pytest.raises(KeyboardInterrupt):
        add_representation(collection, WIDE)
    monkeypatch.setattr(adding, "write_commit", real)
    assert unfinished_jobs(collection) == 1

    def refuse(self, documents):
        raise AssertionError("they are encoded already")

    monkeypatch.setattr(HashingEncoder, "encode_documents", refuse)
    add_representation(collection, WIDE)
    assert not (collection / "building").exists()
    assert len(Collection.open(collection).snapshot().segments[0].vectors("wide")) == 25
