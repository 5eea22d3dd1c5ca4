"""Rows read from disk: the file, the budget, reading ahead, and an index of kind plaid whose residuals stay there."""

import errno
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic, sleep

import numpy as np
import pytest

from indexing.assembly import index_spec
from indexing.builder import build_collection
from indexing.chunking import Chunking
from indexing.collection import Collection
from indexing.corpora import open_corpus
from indexing.options import BuildOptions, WriteOptions, representation_options
from indexing.plaid.index import PlaidIndex
from indexing.token_disk import direct_file
from indexing.token_disk.direct_file import BLOCK, DirectFile
from indexing.token_disk.kept_rows import KeptRows
from indexing.token_disk.row_reader import RowReader
from indexing.token_disk.statistics import DiskStatistics
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, CorruptError
from retrieval.protocols import SearchRequest
from retrieval.values import MultiVector

DIM = 32


# --- the file


@pytest.fixture
def content(tmp_path):
    path = tmp_path / "bytes"
    values = np.random.default_rng(0).integers(0, 256, 3 * BLOCK + 77, dtype=np.uint8)
    path.write_bytes(values.tobytes())
    return path, values


@pytest.fixture(params=["direct", "buffered"])
def way(request, monkeypatch):
    if request.param == "buffered":
        monkeypatch.delattr(os, "O_DIRECT", raising=False)
    return request.param


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 1),
        (0, BLOCK),
        (BLOCK - 1, BLOCK + 1),
        (5, 3 * BLOCK + 77),
        (3 * BLOCK, 3 * BLOCK + 77),
        (2 * BLOCK, 3 * BLOCK),
    ],
)
def test_any_bytes_of_a_file_are_read(content, way, start, stop):
    path, values = content
    file = DirectFile(path)
    if way == "buffered":
        assert not file.direct
    assert np.array_equal(file.read(start, stop), values[start:stop])


def test_a_file_system_that_opens_with_o_direct_and_refuses_to_read_is_read_through_the_cache(
    content, monkeypatch
):
    if not hasattr(os, "O_DIRECT"):
        pytest.skip("no O_DIRECT here")
    path, values = content
    whole = os.preadv

    def refuse(descriptor, buffers, offset):
        import fcntl

        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return whole(descriptor, buffers, offset)

    monkeypatch.setattr(direct_file.os, "preadv", refuse)
    file = DirectFile(path)
    assert not file.direct
    assert np.array_equal(file.read(10, 20), values[10:20])


def test_a_read_that_fails_once_is_tried_again_and_twice_is_damage(content, monkeypatch):
    path, values = content
    file, whole, failures = DirectFile(path), os.preadv, []

    def failing(descriptor, buffers, offset):
        if failures:
            return failures.pop()()
        return whole(descriptor, buffers, offset)

    def broken():
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(direct_file.os, "preadv", failing)
    for trouble in (broken, lambda: 512):
        failures = [trouble]
        assert np.array_equal(file.read(600, 700), values[600:700])
    failures = [broken, broken]
    with pytest.raises(CorruptError, match=r"bytes: bytes 600 to 700 cannot be read .*Input/output error"):
        file.read(600, 700)
    failures = [lambda: 650, lambda: 650]
    with pytest.raises(CorruptError, match=r"only 50 of 100 bytes are there"):
        file.read(600, 700)


def test_a_file_that_is_missing_is_damage_and_one_that_is_gone_is_closed(content, way):
    path, _ = content
    with pytest.raises(CorruptError, match=r"absent: cannot be opened"):
        DirectFile(path.with_name("absent"))
    file = DirectFile(path)
    descriptor = file._descriptor
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


# --- the budget


def test_rows_unused_for_longest_go_first():
    array = np.zeros(100, dtype=np.uint8)
    each = 100 + 256
    kept = KeptRows(3 * each)
    assert [kept.put(row, array) for row in (1, 2, 3)] == [[], [], []]
    assert kept.get(1) is array
    assert kept.put(4, array) == [2]
    assert kept.get(2) is None
    assert (len(kept), kept.used) == (3, 3 * each)
    assert kept.put(5, np.zeros(100 + each, dtype=np.uint8)) == [3, 1]
    assert kept.put(6, np.zeros(10 * each, dtype=np.uint8)) == [4, 5, 6]
    assert (len(kept), kept.used) == (0, 0)


# --- the reader


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """A ragged array on disk: its path, where rows begin, and a list of the rows."""
    path = tmp_path_factory.mktemp("lines") / "lines.npy"
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 200, 900)
    lengths[[3, 4, 899]] = 0
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = rng.integers(0, 256, (int(indptr[-1]), 16), dtype=np.uint8)
    np.save(path, values)
    return path, indptr, np.split(values, indptr[1:-1])


def expected(rows, held):
    return np.concatenate([held[row] for row in rows]) if len(rows) else np.empty((0, 16), np.uint8)


@pytest.mark.parametrize("budget", [0, 20_000, 10**9])
def test_taken_rows_are_those_of_the_file_whatever_was_read_ahead(lines, budget):
    path, indptr, held = lines
    reader, rng = RowReader(path, indptr, budget), np.random.default_rng(2)
    for _ in range(30):
        rows = rng.choice(900, rng.integers(0, 60), replace=False)
        reader.prefetch(rng.choice(rows, len(rows) // 2, replace=False))
        assert np.array_equal(reader.take(rows), expected(rows, held))
        assert reader.statistics().used <= budget
    assert np.array_equal(reader.take(np.arange(900)), expected(range(900), held))
    assert np.array_equal(reader.take(np.array([7, 3, 7])), expected([7, 3, 7], held))


def test_rows_that_are_neighbours_are_read_at_once(lines):
    path, indptr, _ = lines
    reader = RowReader(path, indptr, 0)
    reader.take(np.arange(900))
    seen = reader.statistics()
    assert seen.reads == -(-path.stat().st_size // (1 << 20))
    assert path.stat().st_size <= seen.bytes_read <= path.stat().st_size + 2 * BLOCK * seen.reads
    far = RowReader(path, indptr, 0)
    far.take(np.array([0, 450, 451, 898]))
    assert far.statistics().reads == 3


def test_counts_tell_rows_kept_foreseen_and_missed(lines):
    path, indptr, _ = lines
    reader = RowReader(path, indptr, 10**8)
    reader.prefetch(np.array([10, 20, 3]))  # row 3 has nothing to read
    reader.take(np.array([10, 30, 3, 40]))
    deadline = monotonic() + 30
    while reader.statistics().reads < 4 and monotonic() < deadline:  # row 20 may still be on its way
        sleep(0.001)
    first = reader.statistics()
    assert (first.takes, first.kept, first.prefetched, first.missed, first.ahead) == (1, 0, 1, 2, 2)
    assert first.reads == 4
    assert first.bytes_read % BLOCK == 0
    assert first.seconds_waited > 0
    reader.prefetch(np.array([10, 20, 30]))  # all there or on their way
    reader.take(np.array([10, 20, 30]))
    second = reader.statistics()
    assert (second.takes, second.kept, second.prefetched, second.missed, second.ahead) == (2, 2, 2, 2, 2)
    assert (second.reads, second.bytes_read) == (first.reads, first.bytes_read)
    assert (second.hit_rate, second.prefetch_rate) == (4 / 6, 2 / 4)
    assert second.used == sum((indptr[row + 1] - indptr[row]) * 16 + 256 for row in (10, 20, 30, 40))
    assert first.takes == 1


def test_rates_of_nothing_are_whole():
    nothing = DiskStatistics(direct=True, budget=1)
    assert (nothing.hit_rate, nothing.prefetch_rate) == (1.0, 1.0)


def test_reading_ahead_does_not_wait(lines, monkeypatch):
    path, indptr, held = lines
    reader, gate, whole = RowReader(path, indptr, 10**8), threading.Event(), os.preadv

    def slow(descriptor, buffers, offset):
        assert gate.wait(30)
        return whole(descriptor, buffers, offset)

    monkeypatch.setattr(direct_file.os, "preadv", slow)
    rows = np.array([50, 600, 601])
    reader.prefetch(rows)
    assert reader.statistics().reads == 0
    gate.set()
    assert np.array_equal(reader.take(rows), expected(rows, held))
    seen = reader.statistics()
    assert (seen.prefetched, seen.missed) == (3, 0)


def test_eight_threads_read_what_one_does(lines):
    path, indptr, held = lines
    reader = RowReader(path, indptr, 50_000)

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(40):
            rows = rng.choice(900, 40, replace=False)
            reader.prefetch(rows[:30])
            if not np.array_equal(reader.take(rows), expected(rows, held)):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    seen = reader.statistics()
    assert seen.takes == 320
    assert seen.used <= 50_000
    assert not reader._flying


def test_rows_behind_the_end_of_a_file_cut_short_are_damage_and_the_others_are_not(lines, tmp_path):
    whole, indptr, held = lines
    path = tmp_path / "lines.npy"
    path.write_bytes(whole.read_bytes())
    reader = RowReader(path, indptr, 10**8)
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2)
    reader.prefetch(np.array([5, 890]))
    with pytest.raises(CorruptError, match=r"lines\.npy: bytes .* cannot be read"):
        reader.take(np.array([5, 890]))
    with pytest.raises(CorruptError, match="build the index again"):
        reader.take(np.array([890]))
    assert np.array_equal(reader.take(np.array([5])), held[5])
    assert not reader._flying
    with pytest.raises(CorruptError, match=r"not a complete \.npy"):
        RowReader(path, indptr, 10**8)


def test_a_file_without_lines_has_nothing_to_read(tmp_path):
    np.save(tmp_path / "none.npy", np.empty((0, 4), dtype=np.uint8))
    reader = RowReader(tmp_path / "none.npy", np.zeros(4, dtype=np.int64), 100)
    reader.prefetch(np.arange(3))
    assert reader.take(np.arange(3)).shape == (0, 4)
    assert reader.statistics().reads == 0


def test_a_forked_child_has_readers_of_its_own(lines):
    script = """
import os, sys
from pathlib import Path
import numpy as np
from indexing.token_disk.row_reader import RowReader

reader = RowReader(Path(sys.argv[1]), np.array([0, 5, 9, 2000]), 0)
rows = reader.take(np.arange(3))
child = os.fork()
if not child:
    os._exit(0 if np.array_equal(reader.take(np.arange(3)), rows) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore", "-c", script, str(lines[0])]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


# --- the index


def joined(rows):
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return MultiVector(indptr, np.concatenate(rows).astype(np.float16))


def texts(n, seed, longest=12):
    """Rows of tokens near the centres of a topic of the row's own; some have none."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(3).standard_normal((40, 20, DIM))
    rows = []
    for size in rng.integers(0, longest + 1, n):
        tokens = centres[rng.integers(40), rng.integers(0, 20, size)] + 0.6 * rng.standard_normal((size, DIM))
        rows.append(tokens / np.linalg.norm(tokens, axis=1, keepdims=True))
    return joined(rows)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """What opens an index of 3000 rows with given parameters."""
    folder, vectors = tmp_path_factory.mktemp("plaid"), texts(3000, 1)
    parameters = PlaidIndex.parameters({"bits": 2, "centroids": 512})
    shared, built = folder / "shared", folder / "index"
    shared.mkdir()
    built.mkdir()
    work = {"memory_bytes": 10**8, "progress": lambda steps: None}
    PlaidIndex.train(vectors, parameters, shared, **work)
    PlaidIndex.build(vectors, built, parameters, shared=shared, **work)

    def opener(where=built, **given):
        return PlaidIndex.load(where, vectors, parameters | given, shared=shared)

    return opener


@pytest.fixture(scope="module")
def queries():
    return texts(30, 2, longest=20)


@pytest.mark.parametrize("budget", [1, 3000, 10**8])
@pytest.mark.parametrize("k", [1, 10, 3000])
def test_hits_are_those_of_the_index_in_memory(opened, queries, budget, k):
    mapped, disk = opened(), opened(resident_bytes=budget)
    some = Bitmap.from_rows(list(range(0, 3000, 3)), 3000)
    for request in (SearchRequest(k=k), SearchRequest(k=k, allowed=some)):
        for way in ("search", "exact_search"):
            hits, same = (getattr(index, way)(queries, request) for index in (mapped, disk))
            assert np.array_equal(hits.rows, same.rows)
            assert np.array_equal(hits.scores, same.scores)
    assert disk.disk.statistics().used <= budget


def test_explanations_and_decoded_rows_are_those_of_the_index_in_memory(opened, queries):
    mapped, disk = opened(), opened(resident_bytes=5000)
    rows = np.array([2, 2999, 5, 700])
    assert mapped.explain(queries[3:4], rows) == disk.explain(queries[3:4], rows)
    for index in (mapped, disk):
        assert np.array_equal(index.documents.decode(rows).indptr, mapped.documents.decode(rows).indptr)
    assert np.array_equal(disk.documents.decode(rows).values, mapped.documents.decode(rows).values)


def test_most_rows_are_foreseen_and_few_in_vain(opened, queries):
    disk = opened(resident_bytes=1)
    for number in range(len(queries)):
        disk.search(queries[number : number + 1], SearchRequest(k=10))
    seen = disk.disk.statistics()
    assert seen.kept == 0  # one byte keeps nothing
    assert seen.ahead <= 2.5 * (seen.prefetched + seen.missed)
    index = opened(resident_bytes=10**8)
    for number in range(len(queries)):
        index.search(queries[number : number + 1], SearchRequest(k=10))
    seen = index.disk.statistics()
    assert seen.prefetch_rate > 0.9
    assert seen.missed + seen.ahead <= 3000


def test_views_share_the_reader(opened, queries):
    disk = opened(resident_bytes=10**7)
    wider = replace(disk, ndocs=500)
    wider.search(queries, SearchRequest(k=10))
    assert disk.disk.statistics().takes > 0


def test_eight_threads_find_what_one_does(opened, queries):
    disk = opened(resident_bytes=20_000)
    serial = disk.search(queries, SearchRequest(k=10))
    lines = [queries[n : n + 1] for n in range(len(queries))] * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda query: disk.search(query, SearchRequest(k=10)), lines))
    for number, hits in enumerate(found):
        assert np.array_equal(hits.rows[0], serial.rows[number % len(queries)])
        assert np.array_equal(hits.scores[0], serial.scores[number % len(queries)])


def test_a_disk_that_fails_is_named_and_the_next_search_reads_anew(opened, queries, monkeypatch):
    disk, whole = opened(resident_bytes=10**7), os.preadv
    right = opened().search(queries, SearchRequest(k=10))

    def broken(descriptor, buffers, offset):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(direct_file.os, "preadv", broken)
    for way in (disk.search, disk.exact_search):
        with pytest.raises(CorruptError, match=r"buckets\.npy: .*Input/output error"):
            way(queries, SearchRequest(k=10))
    monkeypatch.setattr(direct_file.os, "preadv", whole)
    assert np.array_equal(disk.search(queries, SearchRequest(k=10)).scores, right.scores)


@pytest.mark.parametrize("budget", [0, -5, 1.5, True, "1GB"])
def test_an_impossible_budget_is_refused(budget):
    with pytest.raises(ConfigError, match="resident_bytes of plaid"):
        PlaidIndex.parameters({"resident_bytes": budget})


def test_a_collection_is_searched_from_disk(tmp_path, tiny_bert):
    words = "cat dog bird fish red green blue fast slow old new river mountain search".split()
    rows = [" ".join(words[(n * i) % 14] for i in range(1, 9)) for n in range(1, 40)]
    lines = [json.dumps({"_id": str(n), "text": text}) for n, text in enumerate(rows)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    late = representation_options("late:plaid", str(tiny_bert), {"dim": 16})
    from_disk = replace(late, indexes=(index_spec("plaid", {"resident_bytes": 4000}),))
    answers = []
    for name, options in (("memory", late), ("disk", from_disk)):
        corpus = open_corpus(tmp_path / "a.jsonl")
        build_collection(corpus, tmp_path / name, BuildOptions((options,), Chunking.none(), WriteOptions()))
        snapshot = Collection.open(tmp_path / name).snapshot()
        answers.append(snapshot.searcher("late").search(["old red fish"], SearchRequest(k=5)))
    assert np.array_equal(answers[0].rows, answers[1].rows)
    assert np.array_equal(answers[0].scores, answers[1].scores)
    seen = snapshot.segments[0].index("late", "plaid").disk.statistics()
    assert (seen.budget, seen.takes) == (4000, 1)
    assert 0 < seen.used <= 4000
