"""Which engine late interaction is searched with, by the size of the corpus: maxsim, plaid and fde beside one another.

    python benchmarks/late_engines.py [--quick] [--large] [--json]

Data: generated documents of 64 tokens of width 128 (those of late_disk.py), 1,000, 10,000 and 100,000 of them, with
--large also 1,000,000 (16 GB of token vectors, kept under `.bench/late_engines`), and SciFact as the default late
encoder makes it (5,183 documents of 240 tokens; left out where absent). --quick: 1,000 and 10,000 generated ones.

A row is one engine with all its knobs set, on both cores. `ms_p50` and `ms_p95` are of single queries, which all
settings answer in turn; of 1,000,000 documents with few of them. `recall` is the overlap with the exact top 10, that of
`maxsim`, and `below_exact` how far nDCG@10 lies below it on SciFact. Each index is built in a process of its own, whose
peak memory is `peak_rss_mb`. `index_bytes` is what a search reads: codes, lists and centroids, and for maxsim and fde
the float16 token vectors. `chosen` marks the fastest index as it is searched by default whose recall is at least 0.95,
or where there are judgements whose nDCG@10 is at most 0.003 below the exact one.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["TERCET_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "2"

import numpy as np

from benchmarks import late_disk  # sets one thread, and benchmarks.late two again
from benchmarks.late import build_index, table
from benchmarks.late_data import K, late_data
from benchmarks.late_fast_plaid import peak_rss_mb
from indexing.growing import GrowingArray
from indexing.kinds import kind_class
from retrieval.protocols import SearchRequest
from retrieval.values import MultiVector
from retrieval.values.storage import write_facts

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".bench" / "late_engines"
SIZES = {1_000: 200, 10_000: 100, 100_000: 30, 1_000_000: 10}
"""Generated documents -> queries."""
AT_ONCE = 64_000  # tokens written
RECALL, BELOW = 0.95, 0.003

Row = dict[str, Any]

INDEXES: dict[str, tuple[str, dict[str, Any]]] = {
    "maxsim": ("maxsim", {}),
    "plaid, 4 bits": ("plaid", {"bits": 4}),
    "plaid, 2 bits": ("plaid", {"bits": 2}),
    "fde": ("fde", {}),
    "fde, pq": ("fde", {"storage": "pq"}),
}
"""Name -> index kind and parameters."""

SWEPT: dict[str, list[dict[str, int]]] = {
    "maxsim": [{}],
    "plaid, 4 bits": [{}, {"nprobe": 32, "ndocs": 256}],
    "plaid, 2 bits": [{}, {"nprobe": 32, "ndocs": 256}],
    "fde": [{}, {"rescored": 100}, {"rescored": 1000}],
    "fde, pq": [{}, {"rescored": 100}, {"rescored": 1000}],
}
"""Name -> what is searched with, beside the defaults."""


# --- data


@dataclass(frozen=True)
class Corpus:
    """Token vectors, and what tells how good an answer is.

    Attributes:
        name: of the data.
        folder: where they lie, and indexes go.
        queries: asked one by one.
        ndcg: of (Q, K) rows; None where nothing is judged.
    """

    name: str
    folder: Path
    queries: MultiVector
    ndcg: Callable[[np.ndarray], float | None] | None = None

    @property
    def documents(self) -> MultiVector:
        """The rows, memory-mapped."""
        return MultiVector.load(self.folder / "documents")


def generated(n: int) -> Corpus:
    """The first n documents of late_disk.py, written where they are not there yet."""
    recipe = hashlib.sha256(inspect.getsource(late_disk.Tokens).encode()).hexdigest()[:8]
    folder, vectors = CACHE / f"{n}-{recipe}", late_disk.documents(n)
    target = folder / "documents"
    if not (target / "value.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        target.mkdir(parents=True)
        with GrowingArray(target / "values.npy", np.float16, (late_disk.DIM,)) as values:
            for start in range(0, len(vectors.values), AT_ONCE):
                values.append(vectors.values[start : start + AT_ONCE])
        np.save(target / "indptr.npy", vectors.indptr, allow_pickle=False)
        write_facts(target, "multivector", {}, ["indptr", "values"])  # last: all of it is there
    return Corpus(f"generated-{n}", folder, vectors.values.queries(SIZES.get(n, 30)))


def corpora(quick: bool, large: bool, sizes: list[int] | None) -> Iterator[Corpus]:
    """What is measured, small before large."""
    wanted = sizes or [n for n in SIZES if n <= (10_000 if quick else 1_000_000 if large else 100_000)]
    yield from map(generated, wanted)
    if quick or sizes:
        return
    data = late_data("scifact")
    if data is None:
        print("scifact is not there; left out", file=sys.stderr)
        return
    yield Corpus(data.name, data.folder, data.queries, data.ndcg)


# --- builds, each in a process of its own


def build(name: str, folder: Path) -> None:
    """Build one index; keep what it took."""
    target, documents = folder / name, MultiVector.load(folder / "documents")
    few = documents[:200]
    _build_into(name, few, target / "warm")  # compiled and read before it is timed
    shutil.rmtree(target / "warm")
    start = time.perf_counter()
    _build_into(name, documents, target)
    facts = {"build_s": round(time.perf_counter() - start, 2), "peak_rss_mb": peak_rss_mb()}
    (target / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def _build_into(name: str, documents: MultiVector, target: Path) -> None:
    build_index(*_made(name), documents, target)


def built(name: str, corpus: Corpus) -> Row:
    """Figures of a build, made anew."""
    target = corpus.folder / name
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, __file__, "--build", name, str(corpus.folder)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    facts = json.loads((target / "facts.json").read_text("utf-8"))
    vectors = corpus.folder / "documents"
    read = vectors / "indptr.npy" if name.startswith("plaid") else vectors
    return facts | {"index_bytes": sum(map(_bytes, (target / "index", target / "shared", read)))}


def _made(name: str) -> tuple[Any, dict[str, Any]]:
    """The class of an index, and all its parameters."""
    kind, given = INDEXES[name]
    return kind_class(kind), kind_class(kind).parameters(given)


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


# --- searches


def settings(corpus: Corpus) -> Iterator[tuple[str, dict[str, int], Any]]:
    """Name of the index, knobs beside the defaults, and the index with these."""
    documents = corpus.documents
    for name in INDEXES:
        (index_class, parameters), target = _made(name), corpus.folder / name
        shared = {"shared": target / "shared"} if hasattr(index_class, "train") else {}
        index = index_class.load(target / "index", documents, parameters, **shared)
        for knobs in SWEPT[name]:
            yield name, knobs, replace(index, **knobs)


def measured(corpus: Corpus) -> list[Row]:
    """A row for each setting; maxsim, the first, is the exact ranking."""
    facts = {name: built(name, corpus) for name in INDEXES}
    tried, queries, request = list(settings(corpus)), corpus.queries, SearchRequest(k=K)
    for _, _, index in tried:  # not timed: compiles and reads
        for query in range(3):
            index.search(queries[query : query + 1], request)
    taken = np.zeros((len(tried), len(queries)))
    found = np.zeros((len(tried), len(queries), K), dtype=np.int64)
    for query in range(len(queries)):
        asked = queries[query : query + 1]
        for number, (_, _, index) in enumerate(tried):
            start = time.perf_counter()
            hits = index.search(asked, request)
            taken[number, query] = time.perf_counter() - start
            found[number, query] = hits.rows[0]
    rows = [
        _row(corpus, name, knobs, 1e3 * taken[number], found[number], found[0]) | facts[name]
        for number, (name, knobs, _) in enumerate(tried)
    ]
    return _judged(rows)


def _row(
    corpus: Corpus, name: str, knobs: dict[str, int], ms: np.ndarray, found: np.ndarray, exact: np.ndarray
) -> Row:
    shown = ", ".join(f"{knob} {value}" for knob, value in knobs.items())
    shares = [len(np.intersect1d(mine, best)) / K for mine, best in zip(found, exact, strict=True)]
    return {
        "bench": "late_engines", "data": corpus.name, "engine": "tercet",
        "setting": f"{name}, {shown}" if shown else name,
        "k": K, "threads": 2, "documents": len(corpus.documents), "queries": len(ms),
        "ms_p50": round(float(np.median(ms)), 3), "ms_p95": round(float(np.percentile(ms, 95)), 3),
        "recall": round(float(np.mean(shares)), 4), "ndcg10": corpus.ndcg(found) if corpus.ndcg else None,
    }  # fmt: skip


def _judged(rows: list[Row]) -> list[Row]:
    """The rows with how far they are below the exact ranking, and which of the defaults to choose."""
    for row in rows:
        if row["ndcg10"] is not None:
            row["below_exact"] = round(rows[0]["ndcg10"] - row["ndcg10"], 4)
    best = min((row for row in rows if _good(row)), key=lambda row: row["ms_p50"])
    return [row | ({"chosen": True} if row is best else {}) for row in rows]


def _good(row: Row) -> bool:
    """Whether it is an index as it is searched by default, and accurate enough."""
    if row["setting"] not in INDEXES:
        return False
    return row["below_exact"] <= BELOW if "below_exact" in row else row["recall"] >= RECALL


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1,000 and 10,000 documents")
    parser.add_argument("--large", action="store_true", help="1,000,000 documents too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--documents", type=int, action="append", help="how many instead; may be repeated")
    parser.add_argument("--build", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.build:
        build(given.build[0], Path(given.build[1]))
        return
    rows = (row for corpus in corpora(given.quick, given.large, given.documents) for row in measured(corpus))
    if given.json:
        for row in rows:
            print(json.dumps(row), flush=True)
    else:
        table(rows)


if __name__ == "__main__":
    main()
