"""Runs the benchmarks one after another and writes docs/benchmarks.md from what they print.

    python benchmarks/run_all.py [NAME ...] [--quick]

Every benchmark's JSON lines are kept in docs/benchmarks/NAME.jsonl with the command and the machine, so that one can be
run again without the others; the page is always written from all of them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"

BENCHMARKS = {
    "quality": "Retrieval quality on BEIR collections, zero-shot",
    "bm25": "BM25 search beside bm25s and Lucene",
    "sparse": "Learned-sparse search beside bmp, Seismic and kANNolo",
    "sparse_large": "Learned-sparse search of a million documents",
    "late": "Late-interaction search beside fast-plaid and a plain scan",
    "late_shares": "Late interaction: what fixed dimensional encodings find",
    "late_curve": "Late interaction: nDCG@10 against bytes a token",
    "late_disk": "Late interaction with token vectors on disk",
    "late_engines": "Late interaction: which engine for which size of corpus",
    "dense": "Dense search beside hnswlib, FAISS, usearch and kANNolo",
    "dense_vectors": "Dense search: real and generated vectors",
    "dense_filters": "Dense search under filters",
    "dense_prefixes": "Dense search with fewer dimensions in the first stage",
    "dense_order": "Dense search: the order of insertion into a graph",
    "hubness": "Dense search: hubs, and normalisation by a query bank",
    "encode": "Encoding beside SentenceTransformer.encode",
    "training": "Training beside sentence-transformers' trainers",
    "training_memory": "Training: memory with GradCache",
    "collection": "Building and opening collections",
    "service": "The HTTP API beside the same search in process",
    "cold_start": "From process start to an answer",
}
"""Name -> heading, in the order of the page."""

WRITTEN = {
    "training_quality": "Training: what the recipes gain",
    "matryoshka": "Dense vectors cut short",
}
"""The same for measurements of hours, whose figures stand in docs/benchmarks/NAME.md as they were written down."""

STUDIES = {
    "sparse_large": ("sparse", "--large"),
    "late_shares": ("late", "--shares"),
    "late_curve": ("late", "--curve"),
    "dense_vectors": ("dense", "--likeness"),
    "dense_filters": ("dense", "--filters", "--reuse"),
    "dense_prefixes": ("dense", "--prefixes"),
    "training_memory": ("training", "--memory"),
}
"""Name -> script and options, where the script has another name."""

ALWAYS = ("bench", "versions", "seed")


def machine() -> str:
    """The processor, cores and Python this ran on."""
    name = platform.processor() or platform.machine()
    cores = 0
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            cores += 1
    flags = (
        "with bfloat16 instructions" if "avx512_bf16" in Path("/proc/cpuinfo").read_text() else "no bfloat16"
    )
    return f"{cores} cores of {name} ({flags}), Python {platform.python_version()}"


def run(name: str, quick: bool) -> None:
    """Run one benchmark and keep its lines."""
    script, *options = STUDIES.get(name, (name,))
    command = ["python", f"benchmarks/{script}.py", *options, *(["--quick"] if quick else []), "--json"]
    print(f"$ {' '.join(command)}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    about = {"command": " ".join(command), "machine": machine(), "date": datetime.date.today().isoformat()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"about": about}), *(json.dumps(row) for row in rows)]
    (RESULTS / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def cell(value: object) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1 else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {cell(item)}" for key, item in value.items())
    return str(value)


def section(name: str) -> str:
    """One benchmark as Markdown: where and how it ran, and a table of the columns that say something."""
    path = RESULTS / f"{name}.jsonl"
    if not path.exists():
        return ""
    about, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    about = about["about"]
    columns = [
        key
        for key in dict.fromkeys(key for row in rows for key in row)
        if key not in ALWAYS and any(row.get(key) is not None for row in rows)
    ]
    table = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    table += ["| " + " | ".join(cell(row.get(key)) for key in columns) + " |" for row in rows]
    notes = RESULTS / f"{name}.md"
    said = notes.read_text(encoding="utf-8").strip() + "\n\n" if notes.exists() else ""
    return (
        f"## {BENCHMARKS[name]}\n\n{said}`{about['command']}` · {about['machine']} · {about['date']}\n\n"
        + "\n".join(table)
        + "\n"
    )


def written(name: str) -> str:
    """One that is kept as Markdown."""
    return f"## {WRITTEN[name]}\n\n{(RESULTS / f'{name}.md').read_text(encoding='utf-8').strip()}\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", choices=[*BENCHMARKS, []], help="which ones; all when none is named"
    )
    parser.add_argument("--quick", action="store_true", help="small data, a few minutes")
    parser.add_argument(
        "--page-only", action="store_true", help="run nothing, write the page from kept results"
    )
    given = parser.parse_args()
    if not given.page_only:
        for name in given.names or BENCHMARKS:
            run(name, given.quick)
    intro = (
        "# Benchmarks\n\nWritten by `make bench` from the JSON lines in docs/benchmarks/. Each table is one run on one "
        "machine; engines were interleaved, threads pinned alike, medians reported. Times are not comparable between "
        "tables of different machines.\n"
    )
    parts = [intro, *filter(None, map(section, BENCHMARKS)), *map(written, WRITTEN)]
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
