"""Building and opening collections: peak memory, time, size, resident memory after opening.

    python benchmarks/collection.py [--quick] [--json]

A generated corpus (benchmarks/corpora.py) is written as JSON lines and built with bm25 + flat over the hashing
encoder (256 dimensions) by the `tercet` command in a process of its own, whose peak resident memory the operating
system reports; mapped file pages count. Opening is timed in a fresh process after its imports, `tercet info` as a whole
process. The limit is 1 GB + 24 bytes a document.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.corpora import Corpus

OPEN = """
import json, resource, sys, time
from indexing.collection import Collection
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) // 1024
before = resident()
started = time.perf_counter()
snapshot = Collection.open(sys.argv[1]).snapshot()
opened = time.perf_counter() - started
after = resident()
from retrieval.protocols import SearchRequest
times = {}
for using in ("bm25", "dense"):
    searcher = snapshot.searcher(using)
    started = time.perf_counter()
    searcher.search([sys.argv[2]], SearchRequest())
    times[using] = time.perf_counter() - started
print(json.dumps({"open_s": opened, "opened_mb": after - before, "searched_mb": resident(), "first": times}))
"""


def write_corpus(path: Path, n: int) -> None:
    """A generated corpus as JSON lines, kept between runs."""
    if path.exists():
        return
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        for number, text in enumerate(Corpus(seed=0).texts(n)):
            stream.write(json.dumps({"_id": f"doc-{number}", "title": "", "text": text}) + "\n")
    temporary.rename(path)


def child(arguments: list[str]) -> tuple[float, float, str]:
    """Run a process: seconds, peak resident MB (its own, by wait4), stdout."""
    started = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} failed with {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024, output


def measure(n: int, folder: Path) -> dict:
    """Build, open and search a collection of n documents."""
    corpus, collection = folder / f"generated-{n}.jsonl", folder / f"collection-{n}"
    write_corpus(corpus, n)
    shutil.rmtree(collection, ignore_errors=True)
    tercet = [sys.executable, "-m", "service.cli"]
    build_s, peak_mb, _ = child(
        [
            *tercet,
            "index",
            str(corpus),
            "-o",
            str(collection),
            "-m",
            "hashing:256",
            "--chunk",
            "none",
            "-q",
            "--json",
        ]
    )
    query = next(iter(Corpus(seed=0).texts(1)))[:60]
    _, _, opened = child([sys.executable, "-c", OPEN, str(collection), query])
    info_s, _, _ = child([*tercet, "info", str(collection)])
    facts = json.loads(opened)
    size = sum(file.stat().st_size for file in collection.rglob("*") if file.is_file())
    shutil.rmtree(collection)
    return {
        "bench": "collection",
        "data": f"generated-{n}",
        "engine": "tercet",
        "setting": "bm25 + flat, hashing:256",
        "k": 10,
        "threads": len(os.sched_getaffinity(0)),
        "qps": None,
        "ms_p50": None,
        "ms_p95": None,
        "recall": None,
        "ndcg10": None,
        "index_bytes": size,
        "build_s": round(build_s, 1),
        "peak_rss_mb": round(peak_mb, 1),
        "limit_mb": round((1e9 + 24 * n) / 2**20, 1),
        "docs_per_s": round(n / build_s),
        "open_s": round(facts["open_s"], 4),
        "opened_mb": facts["opened_mb"],
        "first_search_s": {name: round(value, 3) for name, value in facts["first"].items()},
        "info_s": round(info_s, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="100,000 documents only")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    given = parser.parse_args()
    folder = Path(".bench/collection")
    folder.mkdir(parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    rows = [measure(n, folder) for n in ((100_000,) if given.quick else (100_000, 1_000_000))]
    if given.json:
        for row in rows:
            print(json.dumps(row))
        return
    print(f"{platform.machine()}, Python {platform.python_version()}, {rows[0]['threads']} cores")
    columns = (
        "data",
        "build_s",
        "docs_per_s",
        "peak_rss_mb",
        "limit_mb",
        "open_s",
        "opened_mb",
        "index_bytes",
    )
    for line in (columns, *([str(row[name]) for name in columns] for row in rows)):
        print("  ".join(f"{item:>18}" for item in line))


if __name__ == "__main__":
    main()
