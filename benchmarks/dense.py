"""Dense search beside hnswlib, FAISS, usearch and kANNolo: one thread, the same vectors and queries.

    python benchmarks/dense.py [--quick] [--json] [--likeness | --filters | --prefixes] [--reuse] [--prepare]

Data: the default encoder's vectors (384 dimensions) of eight collections under $TERCET_DATA or ../shared/data, of all
their windows of 40 words (171,163), and 1,000,000 generated from these (``dense_generated``); their own queries.
--quick takes NFCorpus and 100,000 generated vectors, the peers' fewer links and fewer of their settings; --n another
number of generated vectors alone.

Each engine is swept over its settings (``dense_peers``, ``dense_tercet``) in interleaved rounds, all queries in one
call with one thread, two threads to build. A row is the fastest an engine, or a kind of Tercet's, is at a recall@10:
`qps` is interpolated between the settings on both sides of it, `setting` the one above, whose `recall`, memory and
single calls (`ms_p50`, `ms_p95`) stand beside. Tercet's rows are of a collection, through a snapshot and its planner;
"bare" ones of the index alone. Of sets below 50,000 rows each engine has one row. `resident_mb` is what opening and
answering all queries adds to a process, touched pages of mapped files among it, `index_bytes` what a search reads on
disk, Tercet's stored vectors included. `x_peer` is how many times as fast a row is as the fastest peer at that recall,
`memory_x` its memory, `build_x` its building time over that peer's. All settings are in the plot.

--likeness: figures of real and generated vectors side by side. --filters: search under filters (``dense_filters``).
--prefixes: fewer dimensions in the first stage (``dense_prefixes``). --prepare builds all that is missing and measures
nothing. --reuse keeps Tercet's builds of an earlier run too. --only names engines, or engines with the beginning of a
variant.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# before any library that reads them is loaded
os.environ["TERCET_THREADS"] = os.environ["OMP_NUM_THREADS"] = "2" if "--build" in sys.argv else "1"
os.environ["RAYON_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]

import numpy as np

from benchmarks import dense_texts
from benchmarks.dense_data import DenseData, K, generated_set, real_set, window_set
from benchmarks.dense_filters import filtered_rows
from benchmarks.dense_likeness import likeness
from benchmarks.dense_measure import (
    AtTarget,
    Point,
    Row,
    at_target,
    build,
    built,
    curves,
    resident,
    resident_here,
)
from benchmarks.dense_peers import LINKS, Variant, peers
from benchmarks.dense_plots import plot_engines, plot_prefixes
from benchmarks.dense_prefixes import at_targets, prefix_points, prefix_variants
from benchmarks.dense_tercet import bare, make_collection, possible, tercet_variants

ROOT = Path(__file__).resolve().parent.parent
TARGETS = (0.95, 0.99)
ROUNDS = {True: 3, False: 5}  # with and without --quick
N_QUERIES = {True: 500, False: 1_000}
N_FILTERED = {True: 50, False: 200}
FEW = 50_000  # rows below which one number of links, and a row for each engine, is enough
SLOW = (
    "tercet hnsw faiss", "tercet hnsw hnswlib", "usearch f32", "usearch f16", "kannolo rabitq-ext", "kannolo pq",
    "faiss IVF",
)  # fmt: skip
"""Variants that --quick leaves out unless they are asked for."""


# --- which data, which variants


def data_sets(quick: bool, n: int | None) -> Iterator[DenseData]:
    """The data of a comparison."""
    asked = N_QUERIES[quick]
    if n:
        yield generated_set(n, asked)
        return
    for name in dense_texts.present():
        if not quick or name == "eval/nfcorpus":
            yield real_set(name, asked)
    if not dense_texts.present():
        raise SystemExit(f"no collection under {dense_texts.source('')}; set TERCET_DATA")
    if quick:
        yield generated_set(100_000, asked)
    else:
        yield window_set(1_000_000, asked)
        yield generated_set(1_000_000, asked)


def variants_for(n: int, quick: bool, only: Sequence[str] = ()) -> list[Variant]:
    """All that is measured on n rows, or those of them whose engine and name begin with one of ``only``."""
    links = LINKS[:1] if quick or n < FEW else LINKS
    chosen = []
    for variant in (*tercet_variants(n, links), *peers(n, links)):
        name = f"{variant.engine} {variant.name}"
        if name.startswith(tuple(only)) if only else not (quick and name.startswith(SLOW)):
            chosen.append(variant)
    ours = list(possible(variant for variant in chosen if variant.engine == "tercet"))
    return [*ours, *(variant for variant in chosen if variant.engine != "tercet")]


def named_variant(engine: str, name: str, n: int) -> Variant:
    """The variant of a name, for a process that measures only this one."""
    ours = [*tercet_variants(n), *prefix_variants(n)]
    known = [*ours, *map(bare, ours), *peers(n)]
    return next(variant for variant in known if (variant.engine, variant.name) == (engine, name))


# --- the comparison


def prepared(data: DenseData, variants: Sequence[Variant], reuse: bool) -> dict[str, Row]:
    """Figures of all builds by folder."""
    make_collection(data)
    return {variant.folder: built(variant, data, reuse) for variant in variants}


def compared(
    data: DenseData, variants: Sequence[Variant], rounds: int, reuse: bool
) -> tuple[list[Row], list[Point]]:
    """A row for each group at each target, and all points."""
    facts = prepared(data, variants, reuse)
    few = len(data.documents) < FEW
    bares = [] if few else [bare(variant) for variant in variants if variant.engine == "tercet"]
    points = curves(data, [*variants, *bares], rounds)
    rows = []
    for target in TARGETS:
        groups: dict[str, list[Point]] = {}
        for point in points:
            groups.setdefault(point.variant.engine if few else point.variant.group, []).append(point)
        reached = {group: at_target(mine, target) for group, mine in groups.items()}
        mine = [_row(data, target, found, facts) for found in reached.values() if found]
        rows += _against_peers(mine)
    return rows, points


def _row(data: DenseData, target: float, found: AtTarget, facts: dict[str, Row]) -> Row:
    variant = found.point.variant
    measured = resident(variant, data, found.point.knobs)
    row = {
        "bench": "dense", "data": data.name, "engine": variant.engine, "at_recall": target,
        "setting": found.point.setting, "k": K, "threads": 1, "qps": round(found.qps, 1),
        "ms_p50": measured["ms_p50"], "ms_p95": measured["ms_p95"], "recall": round(found.point.recall, 4),
        "ndcg10": None, "resident_mb": measured["resident_mb"], **facts[variant.folder],
    }  # fmt: skip
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def _against_peers(rows: list[Row]) -> list[Row]:
    """The rows of one data set and target, beside the fastest peer's."""
    theirs = [row for row in rows if row["engine"] != "tercet"]
    if theirs:
        best = max(theirs, key=lambda row: row["qps"])
        for row in rows:
            row["x_peer"] = round(row["qps"] / best["qps"], 2)
            row["memory_x"] = round(row["resident_mb"] / best["resident_mb"], 2)
            row["build_x"] = round(row["build_s"] / best["build_s"], 2)
    return rows


# --- the studies


def likeness_rows(quick: bool, n: int | None) -> Iterator[Row]:
    """Figures of real vectors and of generated ones of the same number, then of what the comparison runs on."""
    asked = N_QUERIES[quick]
    held = len(dense_texts.windows())
    size = n or (40_000 if quick else held)
    both = [window_set(size, asked), generated_set(size, asked)]
    for data in [*both, *(() if n else data_sets(quick, None))]:
        yield {
            "bench": "dense_vectors", "data": data.name, "rows": len(data.documents), "real_rows": data.n_real,
            **likeness(np.asarray(data.documents), data.queries, data.n_real % len(data.documents)),
        }  # fmt: skip


def filter_rows(given: argparse.Namespace) -> Iterator[Row]:
    """The filter study on the largest set: every kind of Tercet's at its fastest setting of recall 0.95."""
    *_, data = data_sets(given.quick, given.n)
    only = given.only or ("tercet",)
    ours = variants_for(len(data.documents), given.quick, only)
    prepared(data, ours, given.reuse)
    points = curves(data, ours, ROUNDS[True])
    for kind in dict.fromkeys(variant.kind for variant in ours):
        if found := at_target([p for p in points if p.variant.kind == kind], TARGETS[0]):
            yield from filtered_rows(data, found.point, N_FILTERED[given.quick])


def prefix_rows(given: argparse.Namespace) -> Iterator[Row]:
    """The study of prefixes on the largest set; the curves are in the plot."""
    *_, data = data_sets(given.quick, given.n)
    points = prefix_points(data, given.reuse)
    plot_prefixes(points, len(data.documents), given.plots / "dense_prefixes.png")
    return at_targets(data, points)


# --- the script


def table(rows: list[dict[str, Any]]) -> None:
    """Print the columns that say something."""
    names = [
        name
        for name in dict.fromkeys(n for row in rows for n in row)
        if name not in ("bench", "k", "threads") and any(row.get(name) is not None for row in rows)
    ]
    cells = [names, *([str("" if row.get(name) is None else row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def comparison(given: argparse.Namespace) -> Iterator[Row]:
    """The rows of all data sets; the plot is written at last."""
    points: dict[str, list[Point]] = {}
    for data in data_sets(given.quick, given.n):
        variants = variants_for(len(data.documents), given.quick, given.only)
        if given.prepare:
            prepared(data, variants, reuse=True)
            continue
        rows, points[data.name] = compared(data, variants, ROUNDS[given.quick], given.reuse)
        yield from rows
    if points:
        plot_engines(points, given.plots / "dense.png")


def asked_rows(given: argparse.Namespace) -> Iterator[Row]:
    """What the options ask for."""
    if given.likeness:
        return likeness_rows(given.quick, given.n)
    if given.filters:
        return filter_rows(given)
    if given.prefixes:
        return prefix_rows(given)
    return comparison(given)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--n", type=int, help="generated vectors, instead of the usual data")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="'hnswlib', 'tercet hnsw', ...")
    parser.add_argument("--reuse", action="store_true", help="keep Tercet's builds of an earlier run")
    parser.add_argument("--plots", type=Path, default=ROOT / "docs" / "benchmarks", help="folder")
    study = parser.add_mutually_exclusive_group()
    study.add_argument("--likeness", action="store_true", help="figures of real and generated vectors")
    study.add_argument("--filters", action="store_true", help="search under filters")
    study.add_argument("--prefixes", action="store_true", help="fewer dimensions in the first stage")
    study.add_argument("--prepare", action="store_true", help="build what is missing, measure nothing")
    for option in ("--build", "--resident"):
        parser.add_argument(option, nargs=4, metavar="X", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if one := given.build or given.resident:
        engine, name, folder, knobs = one
        n = len(np.load(Path(folder) / "documents.npy", mmap_mode="r"))
        variant = named_variant(engine, name, n)
        if given.build:
            build(variant, Path(folder))
        else:
            print(json.dumps(resident_here(variant, Path(folder), json.loads(knobs))))
        return
    rows = []
    for row in asked_rows(given):
        rows.append(row)
        if given.json:
            print(json.dumps(row), flush=True)
    if rows and not given.json:
        table(rows)


if __name__ == "__main__":
    main()
