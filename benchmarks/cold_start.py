"""From process start to an answer on the terminal: `tercet search` with bm25, dense and hybrid, `--help` and `info`.

    python benchmarks/cold_start.py [--quick] [--json]

A small collection (2,000 generated documents, default encoder replaced by nothing: the real one) is built once; each
command is then run as a whole process several times, and the median wall time reported. Files are in the page cache and
kernels compiled, as on the second use of an installed tool.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.corpora import Corpus

LIMITS = {"search bm25": 1.0, "search dense": 3.0, "search hybrid": 3.0}
"""Seconds that docs promise."""


def seconds(arguments: list[str], rounds: int) -> list[float]:
    """Wall time of whole processes."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three rounds instead of nine")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    given = parser.parse_args()
    folder = Path(".bench/cold_start")
    folder.mkdir(parents=True, exist_ok=True)
    tercet = str(Path(sys.executable).parent / "tercet")
    collection = folder / "collection"
    if not (collection / "collection.json").exists():
        corpus = folder / "corpus.jsonl"
        lines = (
            json.dumps({"_id": str(n), "text": text}) for n, text in enumerate(Corpus(seed=0).texts(2_000))
        )
        corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
        subprocess.run(
            [tercet, "index", str(corpus), "-o", str(collection), "-q"], check=True, stdout=subprocess.DEVNULL
        )
    query = next(iter(Corpus(seed=0).texts(1)))[:40]
    commands = {
        "--help": [tercet, "--help"],
        "info": [tercet, "info", str(collection)],
        **{
            f"search {using}": [tercet, "search", str(collection), query, "--using", using]
            for using in ("bm25", "dense", "hybrid")
        },
    }
    for command in commands.values():
        seconds(command, 1)
    rows = []
    for name, command in commands.items():
        times = seconds(command, 3 if given.quick else 9)
        rows.append(
            {
                "bench": "cold_start",
                "data": "generated-2000",
                "engine": "tercet",
                "setting": name,
                "threads": len(os.sched_getaffinity(0)),
                "ms_p50": round(1000 * statistics.median(times), 1),
                "ms_max": round(1000 * max(times), 1),
                "limit_ms": 1000 * LIMITS[name] if name in LIMITS else None,
            }
        )
    for row in rows:
        print(
            json.dumps(row)
            if given.json
            else f"{row['setting']:<16}{row['ms_p50']:>8} ms  (max {row['ms_max']})"
        )


if __name__ == "__main__":
    main()
