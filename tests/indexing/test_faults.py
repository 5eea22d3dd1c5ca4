"""Processes killed, disks full, bits flipped: the last commit stays searchable and damage is named."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from indexing.builder import build_collection
from indexing.chunking import Chunking
from indexing.collection import Collection
from indexing.compaction import compact
from indexing.corpora import open_corpus
from indexing.deleting import delete_documents
from indexing.metadata import load_metadata, pack_metadata, write_metadata
from indexing.options import BuildOptions, WriteOptions, representation_options
from indexing.verification import verify
from retrieval.errors import ConfigError, CorruptError
from retrieval.protocols import SearchRequest

KILLER = """
import os, signal, sys
point, arguments = int(sys.argv[1]), sys.argv[2:]
calls = 0

def fatal(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

for name in ("fsync", "replace", "mkdir", "unlink", "rmdir"):
    setattr(os, name, fatal(getattr(os, name)))
from indexing.cli import COMMANDS
import click
from indexing.command_line import run
code = run(click.Group("t", commands=list(COMMANDS)), arguments)
print(calls)
sys.exit(code)
"""


def records(n: int, start: int = 0) -> list[dict]:
    return [
        {
            "_id": f"d{number}",
            "text": f"alpha{number % 7} beta{number % 11} gamma{number}",
            "metadata": {"n": number},
        }
        for number in range(start, start + n)
    ]


def write(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run_killed(point: int, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", KILLER, str(point), *map(str, arguments)], capture_output=True, text=True
    )


def snapshot_answers(path: Path) -> list:
    snapshot = Collection.open(path).snapshot()
    out = []
    for using in snapshot.representations:
        hits = snapshot.searcher(using).search(["alpha3 beta4", "gamma12"], SearchRequest(k=100))
        out.append(
            [
                list(zip(i, s.tolist(), strict=False))
                for i, s in zip(snapshot.ids(hits.rows), hits.scores, strict=True)
            ]
        )
    return out


LATE = ["--late-option", "dim=8"]  # narrower than the model, so that a projection is learned


def arguments_of(operation: str, folder: Path) -> list[str]:
    corpus, more = folder / "corpus.jsonl", folder / "more.jsonl"
    return {
        "index": ["index", corpus, "-o", folder / "c", "--with", "bm25,dense", "-m", "hashing:32", "-q"],
        "add": ["add", folder / "c", more, "--on-duplicate", "replace", "-q"],
        "delete": ["delete", folder / "c", "d1", "d5", "d30"],
        "compact": ["compact", folder / "c", "-q"],
        "metadata": ["add", folder / "c", folder / "updates.jsonl", "--metadata-only"],
        "late": ["index", folder / "c", "--add", "late", "--late-model", folder / "model", *LATE, "-q"],
    }[operation]


@pytest.fixture(scope="module")
def scene(tmp_path_factory, tiny_bert):
    """A folder with corpora and, for every operation, the state before it and the answers after it."""
    folder = tmp_path_factory.mktemp("scene")
    (folder / "model").symlink_to(tiny_bert)
    write(folder / "corpus.jsonl", records(40))
    write(folder / "more.jsonl", records(10, start=35))
    write(folder / "updates.jsonl", [{"_id": "d2", "n": 77}])
    options = BuildOptions(
        (representation_options("bm25"), representation_options("dense", model="hashing:32")),
        Chunking.default(),
        WriteOptions(),
    )
    build_collection(open_corpus(folder / "corpus.jsonl"), folder / "before", options)
    delete_documents(folder / "before", ["d20", "d21"])
    return folder


def stage(scene: Path, tmp_path: Path, operation: str) -> Path:
    for name in ("corpus.jsonl", "more.jsonl", "updates.jsonl"):
        shutil.copy(scene / name, tmp_path / name)
    (tmp_path / "model").symlink_to(scene / "model")
    if operation != "index":
        shutil.copytree(scene / "before", tmp_path / "c", dirs_exist_ok=True)
    return tmp_path


def kill_everywhere(scene: Path, tmp_path: Path, operation: str, most_points: int) -> None:
    whole = stage(scene, tmp_path / "whole" if (tmp_path / "whole").mkdir() is None else tmp_path, operation)
    done = run_killed(0, *arguments_of(operation, whole))
    assert done.returncode == 0, done.stderr
    total = int(done.stdout.split()[-1])
    after = snapshot_answers(whole / "c")
    before = None if operation == "index" else snapshot_answers(scene / "before")
    points = range(1, total + 1)
    chosen = points if total <= most_points else sorted(random.Random(operation).sample(points, most_points))
    for point in chosen:
        folder = tmp_path / f"at-{point}"
        folder.mkdir()
        stage(scene, folder, operation)
        killed = run_killed(point, *arguments_of(operation, folder))
        assert killed.returncode == -signal.SIGKILL
        committed = after
        if operation == "index":
            if not (folder / "c" / "collection.json").exists():
                with pytest.raises(ConfigError):
                    Collection.open(folder / "c")
                committed = None
        else:
            now = snapshot_answers(folder / "c")
            assert now in (before, after), f"killed at call {point} of {operation}"
            committed = now if now != before else None
        if committed is None or operation in ("compact", "metadata"):
            again = run_killed(0, *arguments_of(operation, folder))
            assert again.returncode == 0, again.stderr
        assert snapshot_answers(folder / "c") == after
        assert not verify(folder / "c").problems
        shutil.rmtree(folder)


@pytest.mark.parametrize("operation", ["index", "add", "delete", "compact", "metadata"])
def test_a_kill_leaves_the_last_commit_and_the_command_can_be_repeated(scene, tmp_path, operation):
    kill_everywhere(scene, tmp_path, operation, most_points=4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("operation", ["index", "add", "delete", "compact", "metadata"])
def test_a_kill_at_any_moment_leaves_the_last_commit(scene, tmp_path, operation):
    kill_everywhere(scene, tmp_path, operation, most_points=10_000)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_kill_while_token_vectors_are_added_loses_nothing(scene, tmp_path):
    """Where a projection and centroids are learned; every process loads a model, so not every moment is tried."""
    kill_everywhere(scene, tmp_path, "late", most_points=25)


def test_a_killed_build_resumes_after_its_last_batch(tmp_path, monkeypatch):
    corpus = write(tmp_path / "corpus.jsonl", records(50))
    options = BuildOptions(
        (representation_options("dense", model="hashing:32"),),
        Chunking.default(),
        WriteOptions(batch_rows=10),
    )
    from indexing import staging

    sealed = 0
    real = staging.write_manifest

    def stop_after_three(folder, facts):
        nonlocal sealed
        real(folder, facts)
        sealed += facts["component"] == "batch"
        if sealed == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(staging, "write_manifest", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        build_collection(open_corpus(corpus), tmp_path / "c", options)
    monkeypatch.setattr(staging, "write_manifest", real)
    report = build_collection(open_corpus(corpus), tmp_path / "c", options)
    assert (report.resumed_documents, report.n_documents) == (30, 50)
    build_collection(open_corpus(corpus), tmp_path / "fresh", options)
    assert snapshot_answers(tmp_path / "c") == snapshot_answers(tmp_path / "fresh")
    assert not (tmp_path / "c" / "building").exists()


@pytest.mark.parametrize("operation", ["delete", "compact"])
def test_a_full_disk_keeps_the_last_commit(scene, tmp_path, monkeypatch, operation):
    path = stage(scene, tmp_path, operation) / "c"
    before = snapshot_answers(path)
    real, left = os.fsync, 1

    def full(handle):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        delete_documents(path, ["d1"]) if operation == "delete" else compact(path)
    monkeypatch.setattr(os, "fsync", real)
    assert snapshot_answers(path) == before
    assert compact(path)
    assert len(list((path / "segments").iterdir())) == 1


def files_of(path: Path) -> list[Path]:
    return sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and file.name != "writer.lock" and file.stat().st_size
    )


def test_every_flipped_bit_is_found(scene, tmp_path):
    path = stage(scene, tmp_path, "delete") / "c"
    chance = random.Random(7)
    for file in files_of(path):
        content = file.read_bytes()
        for _ in range(3):
            spoiled = bytearray(content)
            spoiled[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            file.write_bytes(spoiled)
            problems = verify(path).problems
            assert len(problems) >= 1 and str(file) in problems[0]
        file.write_bytes(content)
    assert not verify(path).problems


def test_every_cut_file_is_found_at_opening(scene, tmp_path):
    path = stage(scene, tmp_path, "delete") / "c"
    for file in files_of(path):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(CorruptError, match=file.name.replace(".", r"\.")):
            snapshot_answers(path)
        file.unlink()
        with pytest.raises((CorruptError, ConfigError)):
            snapshot_answers(path)
        file.write_bytes(content)
    snapshot_answers(path)


@pytest.mark.parametrize("spoil", ["cut", "garbled", "missing", "of other documents"])
def test_a_damaged_table_is_named_when_a_filter_reads_it(tmp_path, spoil):
    """Opening checks sizes alone of large files, so a filter may be the first to read a changed one."""
    metadata = tmp_path / "metadata-1"
    lines = pack_metadata({"n": n} for n in range(50))
    write_metadata(metadata, [lines], {"n": "integer"})
    stored = load_metadata(metadata)
    table = metadata / "table-0000.parquet"
    content = table.read_bytes()
    if spoil == "missing":
        table.unlink()
    elif spoil == "of other documents":
        write_metadata(tmp_path / "other", [lines, lines], {"n": "integer"})
        shutil.copy(tmp_path / "other" / table.name, table)
    else:
        table.write_bytes(
            content[:-20] if spoil == "cut" else content[:4] + b"\xff" * (len(content) - 8) + b"PAR1"
        )
    named = "metadata-1" if spoil == "of other documents" else r"table-0000\.parquet"
    with pytest.raises(CorruptError, match=rf"{named}: .*`tercet verify`"):
        stored.frame(["n"])
    table.write_bytes(content)
    assert stored.frame(["n"])["n"].to_list() == list(range(50))
