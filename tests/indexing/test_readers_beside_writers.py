"""Readers that open a collection while a writer commits and sweeps."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from indexing import collection as collection_module
from indexing import sweeping, verification
from indexing.builder import add_documents, build_collection
from indexing.collection import Collection
from indexing.compaction import compact
from indexing.corpora import open_corpus
from indexing.deleting import delete_documents
from indexing.durable import verify_component
from indexing.lock import hold_segment, unheld, writer_lock
from indexing.metadata_update import update_metadata
from indexing.options import BuildOptions, WriteOptions, representation_options
from indexing.verification import verify
from retrieval.errors import CorruptError, LockedError


@pytest.fixture
def path(tmp_path) -> Path:
    folder = tmp_path / "c"
    for number in (0, 1):
        corpus = tmp_path / f"{number}.jsonl"
        lines = [{"_id": f"{number}-{n}", "text": f"word{n}", "year": n} for n in range(20)]
        corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "u.jsonl").write_text('{"_id": "0-1", "year": 77}\n')
    build_collection(
        open_corpus(tmp_path / "0.jsonl"), folder, BuildOptions((representation_options("bm25"),))
    )
    add_documents(open_corpus(tmp_path / "1.jsonl"), folder, WriteOptions())
    return folder


WRITERS = {
    "metadata": lambda path: update_metadata(path, path.parent / "u.jsonl"),
    "compact": compact,
    "delete": lambda path: delete_documents(path, ["1-2"]),
}


def write_after_reading_the_commit(monkeypatch, module, writer, path: Path) -> None:
    """Let a writer commit and sweep between a reader's first look at the commit and its next step."""
    real, waiting = module.read_commit, [writer]

    def reading(folder):
        commit = real(folder)
        if waiting:
            waiting.pop()(path)
        return commit

    monkeypatch.setattr(module, "read_commit", reading)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_snapshot_that_was_overtaken_is_taken_again(path, monkeypatch, writer):
    delete_documents(path, ["1-1"])
    expected = Collection.open(path).commit().generation + 1
    write_after_reading_the_commit(monkeypatch, collection_module, WRITERS[writer], path)
    snapshot = Collection(path).snapshot()
    assert snapshot.commit.generation == expected
    assert snapshot.document("0-2").text == "word2"


def test_damage_of_the_current_commit_is_no_race(path):
    (path / "segments" / "00000002" / "metadata-1" / "manifest.json").unlink()
    with pytest.raises(CorruptError, match="metadata-1"):
        Collection(path).snapshot()
    with unheld(path / "segments" / "00000001") as free:
        assert free, "a snapshot that could not be opened must not keep its segments"


@pytest.mark.parametrize("writer", WRITERS)
def test_verifying_an_overtaken_commit_starts_over(path, monkeypatch, writer):
    write_after_reading_the_commit(monkeypatch, verification, WRITERS[writer], path)
    assert verify(path).problems == ()


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_being_verified_is_not_swept(path, monkeypatch, writer):
    real, waiting = verification.verify_component, [WRITERS[writer]]

    def verifying(folder):
        if waiting:
            waiting.pop()(path)
        return real(folder)

    monkeypatch.setattr(verification, "verify_component", verifying)
    assert verify(path).problems == ()


def test_a_missing_segment_is_a_problem_and_not_waited_for(path):
    shutil.rmtree(path / "segments" / "00000001")
    problems = verify(path).problems
    assert problems and all("00000001" in problem and "missing" in problem for problem in problems)


def test_nobody_can_take_hold_of_what_is_being_removed(path, monkeypatch):
    real, removed = shutil.rmtree, []

    def removing(folder, **how):
        for segment in (folder, *folder.parents):
            if segment.parent.name == "segments":
                handle = os.open(segment, os.O_RDONLY)
                with pytest.raises(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                os.close(handle)
                removed.append(folder.name)
        real(folder, **how)

    monkeypatch.setattr(sweeping.shutil, "rmtree", removing)
    update_metadata(path, path.parent / "u.jsonl")
    compact(path)
    assert removed == ["metadata-1", "00000001", "00000002"]


def test_a_hold_that_waited_for_a_removal_says_that_the_segment_is_gone(path):
    segment = path / "segments" / "00000001"
    outcome: list[object] = []

    def hold():
        try:
            outcome.append(hold_segment(segment))
        except FileNotFoundError as error:
            outcome.append(error)

    with unheld(segment) as free:
        assert free
        reader = threading.Thread(target=hold)
        reader.start()
        time.sleep(0.1)
        assert not outcome
        shutil.rmtree(segment)
    reader.join()
    assert isinstance(outcome[0], FileNotFoundError)


def test_a_held_segment_stays(path):
    segment = path / "segments" / "00000001"
    handle = hold_segment(segment)
    with unheld(segment) as free:
        assert not free
    compact(path)
    assert not verify_component(segment / "documents")[1]
    os.close(handle)
    compact(path)
    assert not segment.exists()


def test_a_lock_file_that_is_gone_locks_nothing(tmp_path, monkeypatch):
    real = fcntl.flock

    def replaced(handle, operation):
        real(handle, operation)
        (tmp_path / "writer.lock").unlink()

    monkeypatch.setattr(fcntl, "flock", replaced)
    with pytest.raises(LockedError, match="try again"), writer_lock(tmp_path):
        raise AssertionError("two writers could be here")
