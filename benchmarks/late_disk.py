"""Late interaction with its token vectors on disk, beside the same index in memory.

    python benchmarks/late_disk.py [--quick] [--json] [--documents N]

Data: 1,000,000 generated documents of 64 tokens of width 128 (--quick: 20,000), made as they are asked for, so that
neither memory nor disk ever holds them uncompressed (16 GB). An index of kind plaid with 2 bits is built in a process
of its own, whose peak memory is `peak_rss_mb`, and kept under `.bench/late_disk` from run to run. The same files are
then searched twice: memory-mapped, all of it read beforehand, and with `resident_bytes` such that what memory holds of
the token store (centroid numbers and residuals) is a fifth of it. Queries take turns, are all different, and each is
searched once, by one thread beside the reading ones; hits must agree to the last bit.

Reads bypass the page cache (O_DIRECT; `direct` says so). `iops_1` and `iops_16` are random reads of 4 KiB from the same
file, one and 16 at a time, in threads of Python as the index uses them. `prefetch_rate` is the share of the rows taken
and not kept from earlier queries that had been asked for ahead, `hit_rate` the same with those that were kept.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import mmap
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["TERCET_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from indexing.plaid.index import PlaidIndex
from retrieval.protocols import SearchRequest
from retrieval.values import MultiVector

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".bench" / "late_disk"
TOKENS, DIM, BITS = 64, 128, 2
BLOCK = 1_000  # documents generated at a time
WARM, QUERIES = 20, 300
MEMORY = 1 << 30  # for the build
SHARE = 5  # the memory-resident part of the token store is one in so many bytes


# --- data


class Tokens:
    """Token vectors of documents without end, an array (N * TOKENS, DIM) of float16 that is made where it is read.

    A token has a type, of which there are 20,000, and a document a topic, one in 200 documents. Six in ten of its
    tokens are of the topic's 300 types, Zipf-distributed; the rest of any. A vector is its type's centre, moved towards
    its topic's, and noise of its own. One document in five repeats most of the types of the one before it.
    """

    ndim = 2
    dtype = np.dtype(np.float16)

    def __init__(self, n_documents: int, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, 0])
        self.shape = (n_documents * TOKENS, DIM)
        self.seed = seed
        spectrum = (np.arange(1, DIM + 1) ** -0.25).astype(np.float32)
        self.types, self.noise = (unit(_normal(rng, n) * spectrum) for n in (20_000, 50_000))
        self.topics = unit(_normal(rng, max(20, n_documents // 200)) * spectrum)
        self.topic_types = rng.integers(0, len(self.types), (len(self.topics), 300))
        self.general, self.topical = _zipf(len(self.types)), _zipf(300)
        self._block = functools.lru_cache(2)(self._make)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, tokens: slice | np.ndarray) -> np.ndarray:
        """A range of tokens, or ascending ones."""
        size = BLOCK * TOKENS
        if isinstance(tokens, slice):
            start, stop, _ = tokens.indices(len(self))
            blocks = range(start // size, -(-stop // size))
            parts = [self._block(b)[max(0, start - b * size) : stop - b * size] for b in blocks]
        else:
            blocks, starts = np.unique(tokens // size, return_index=True)
            groups = np.split(tokens, starts[1:])
            parts = [self._block(int(b))[group - b * size] for b, group in zip(blocks, groups, strict=True)]
        return np.concatenate(parts) if parts else np.empty((0, DIM), np.float16)

    def topic(self, block: int) -> np.ndarray:
        """(BLOCK,) the topic of each document of a block; a repetition has that of its original."""
        drawn = np.random.default_rng([self.seed, 1, block]).integers(0, len(self.topics), BLOCK)
        return drawn[np.arange(BLOCK) - self._repeats()]

    def kinds(self, block: int) -> np.ndarray:
        """(BLOCK, TOKENS) the types of a block."""
        rng = np.random.default_rng([self.seed, 2, block])
        kinds = self._draw(rng, self.topic(block), TOKENS, 0.6)
        copied = self._repeats()[:, None] & (rng.random(kinds.shape) < 0.8)
        return np.where(copied, np.roll(kinds, 1, axis=0), kinds)

    def queries(self, n: int) -> MultiVector:
        """Of 32 tokens, half of them of a document's types, half of its topic's."""
        rng = np.random.default_rng([self.seed, 3])
        rows = []
        for document in rng.choice(len(self) // TOKENS, n, replace=False):
            block, row = divmod(int(document), BLOCK)
            topic = self.topic(block)[row : row + 1]
            own = rng.choice(self.kinds(block)[row], 16, replace=False)
            drawn = np.concatenate([own, self._draw(rng, topic, 16, 1.0)[0]])
            rows.append(self._vectors(rng, drawn, np.repeat(topic, 32)))
        return MultiVector(np.arange(0, 32 * n + 1, 32, dtype=np.int64), np.concatenate(rows))

    def _make(self, block: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, 4, block])
        return self._vectors(rng, self.kinds(block).ravel(), np.repeat(self.topic(block), TOKENS))

    def _repeats(self) -> np.ndarray:
        return np.arange(BLOCK) % 5 == 4

    def _draw(self, rng: np.random.Generator, topics: np.ndarray, size: int, share: float) -> np.ndarray:
        shape = (len(topics), size)
        ranks = np.searchsorted(self.topical, rng.random(shape))
        general = np.searchsorted(self.general, rng.random(shape))
        return np.where(rng.random(shape) < share, self.topic_types[topics[:, None], ranks], general)

    def _vectors(self, rng: np.random.Generator, kinds: np.ndarray, topics: np.ndarray) -> np.ndarray:
        noise = self.noise[rng.integers(0, len(self.noise), len(kinds))]
        return unit(self.types[kinds] + 0.4 * self.topics[topics] + 0.5 * noise).astype(np.float16)


def _normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal((n, DIM), dtype=np.float32)


def _zipf(n: int) -> np.ndarray:
    weights = 1.0 / (np.arange(n) + 10.0) ** 0.8
    return np.cumsum(weights) / weights.sum()


def unit(values: np.ndarray) -> np.ndarray:
    """Vectors of length 1."""
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def documents(n: int) -> MultiVector:
    """The first n documents."""
    return MultiVector(np.arange(0, n * TOKENS + 1, TOKENS, dtype=np.int64), Tokens(n))


# --- building


def build(n: int, folder: Path) -> None:
    """Train and build; keep what it took."""
    vectors, parameters = documents(n), PlaidIndex.parameters({"bits": BITS})
    for name in ("shared", "index"):
        (folder / name).mkdir(parents=True)
    start = time.perf_counter()
    PlaidIndex.train(
        vectors, parameters, folder / "shared", memory_bytes=MEMORY, progress=told("k-means rounds", 1)
    )
    PlaidIndex.build(
        vectors,
        folder / "index",
        parameters,
        memory_bytes=MEMORY,
        progress=told("documents", 100_000),
        shared=folder / "shared",
    )
    facts = {
        "build_s": round(time.perf_counter() - start),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "index_bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    }
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def told(what: str, each: int):
    """Progress on stderr, a line for so many."""
    done = 0

    def progress(amount: int) -> None:
        nonlocal done
        if done // each != (done + amount) // each:
            print(f"{done + amount:,} {what}", file=sys.stderr, flush=True)
        done += amount

    return progress


def built(n: int) -> Path:
    """The folder of the index; made where the recipe has changed."""
    recipe = hashlib.sha256(Path(__file__).read_bytes().split(b"# --- measuring")[0]).hexdigest()[:8]
    folder = CACHE / f"{n}-{recipe}"
    if not (folder / "facts.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, __file__, "--build", str(folder), "--documents", str(n)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return folder


# --- measuring


def device_iops(path: Path, depth: int, seconds: float = 1.0) -> int:
    """Random 4 KiB reads a second, so many at a time, past the page cache."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    blocks = path.stat().st_size // 4096
    counts = [0] * depth
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        space, rng = mmap.mmap(-1, 4096), np.random.default_rng(number)
        places = (rng.integers(0, blocks, 200_000) * 4096).tolist()
        while time.perf_counter() < end:
            os.preadv(descriptor, [space], places[counts[number]])
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(depth)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(descriptor)
    return round(sum(counts) / seconds)


def measure(folder: Path, n: int, k: int) -> list[dict[str, object]]:
    """Both ways of searching."""
    vectors = documents(n)
    stores = [(folder / "index" / f"{name}.npy").stat().st_size for name in ("codes", "buckets")]
    budget = sum(stores) // SHARE - stores[0]
    parameters = PlaidIndex.parameters({"bits": BITS})
    mapped, disk = (
        PlaidIndex.load(folder / "index", vectors, parameters | given, shared=folder / "shared")
        for given in ({}, {"resident_bytes": budget})
    )
    buckets = folder / "index" / "buckets.npy"
    with buckets.open("rb") as stream:  # into the page cache, for the index in memory
        while stream.read(1 << 24):
            pass
    queries, request = vectors.values.queries(WARM + QUERIES), SearchRequest(k=k)
    seconds: dict[str, list[float]] = {"memory": [], "disk": []}
    before = disk.disk.statistics()
    for number in range(WARM + QUERIES):
        query, hits = queries[number : number + 1], []
        if number == WARM:
            before = disk.disk.statistics()
        turns = [("memory", mapped), ("disk", disk)]
        for name, index in turns if number % 2 else reversed(turns):
            start = time.perf_counter()
            hits.append(index.search(query, request))
            if number >= WARM:
                seconds[name].append(time.perf_counter() - start)
        if not (
            np.array_equal(hits[0].rows, hits[1].rows) and np.array_equal(hits[0].scores, hits[1].scores)
        ):
            raise SystemExit(f"query {number}: the hits from disk are not those from memory")
    after = disk.disk.statistics()
    taken = {name: getattr(after, name) - getattr(before, name) for name in COUNTED}
    needed = taken["prefetched"] + taken["missed"]
    common = {"bench": "late_disk", "data": f"generated-{n}", "engine": "tercet", "k": k, "threads": 1}
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    rows = [
        common
        | {
            "setting": setting,
            "ms_p50": round(1e3 * float(np.median(seconds[name])), 3),
            "ms_p95": round(1e3 * float(np.percentile(seconds[name], 95)), 3),
            "store_bytes": sum(stores),
            "resident_bytes": resident,
        }
        | facts
        for name, setting, resident in (
            ("memory", "in memory", sum(stores)),
            ("disk", f"a {SHARE}th in memory", stores[0] + budget),
        )
    ]
    rows[1] |= {
        "slowdown": round(rows[1]["ms_p50"] / rows[0]["ms_p50"], 3),
        "prefetch_rate": round(taken["prefetched"] / needed, 4),
        "hit_rate": round((taken["prefetched"] + taken["kept"]) / (needed + taken["kept"]), 4),
        "rows_ahead": round(taken["ahead"] / QUERIES, 1),
        "rows_taken": round((needed + taken["kept"]) / QUERIES, 1),
        "reads": round(taken["reads"] / QUERIES, 1),
        "bytes_read": round(taken["bytes_read"] / QUERIES),
        "ms_waited": round(1e3 * taken["seconds_waited"] / QUERIES, 3),
        "direct": after.direct,
        "iops_1": device_iops(buckets, 1),
        "iops_16": device_iops(buckets, 16),
    }
    return rows


COUNTED = ("kept", "prefetched", "missed", "ahead", "reads", "bytes_read", "seconds_waited")
"""Counters that a query adds to; the rows report them a query."""


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20,000 documents")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--documents", type=int, help="how many instead")
    parser.add_argument("--build", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    n = given.documents or (20_000 if given.quick else 1_000_000)
    if given.build:
        build(n, given.build)
        return
    folder = built(n)
    for k in (10, 100):
        for row in measure(folder, n, k):
            if given.json:
                print(json.dumps(row))
            else:
                print("  ".join(f"{name} {value}" for name, value in row.items() if name not in HIDDEN))


HIDDEN = ("bench", "engine", "threads")


if __name__ == "__main__":
    main()
