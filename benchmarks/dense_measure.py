"""Measuring dense indexes: builds and memory in processes of their own, curves of recall against speed in rounds."""

from __future__ import annotations

import ctypes
import gc
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dense_data import DenseData, K
from benchmarks.dense_peers import BUILD_THREADS, Knobs, Variant, Vectors
from retrieval.compute import set_threads

Row = dict[str, Any]

SCRIPT = Path(__file__).with_name("dense.py")
_WORTH = 1.15  # a setting that others beat by more, at no less recall, is not measured again


# --- builds


def build(variant: Variant, data_folder: Path) -> None:
    """Build a variant in this process and keep what it took."""
    target = data_folder / variant.folder
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    vectors = np.asarray(np.load(data_folder / "documents.npy", mmap_mode="r"))
    set_threads(BUILD_THREADS)
    variant.warm(vectors, target / "warm")
    start = time.perf_counter()
    variant.build(vectors, target)
    facts = {
        "build_s": round(time.perf_counter() - start, 2),
        "peak_rss_mb": round(_bytes_of("status", "VmHWM") / 2**20),
        "index_bytes": _read_bytes(variant, target),
    }
    (target / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def built(variant: Variant, data: DenseData, reuse: bool) -> Row:
    """Figures of a build; a peer's is kept from run to run, ours with ``reuse``."""
    facts = data.folder / variant.folder / "facts.json"
    cached = facts.exists() and (reuse or variant.engine != "tercet")
    if not cached:
        print(f"{data.name}: building {variant.engine} {variant.name}", file=sys.stderr, flush=True)
        _child("--build", variant, data, {})
    return json.loads(facts.read_text(encoding="utf-8")) | ({"cached": True} if cached else {})


def _read_bytes(variant: Variant, target: Path) -> int:
    if variant.kind:
        from benchmarks.dense_tercet import read_bytes

        return read_bytes(target, variant.kind)
    return sum(file.stat().st_size for file in target.rglob("*") if file.is_file())


def _child(option: str, variant: Variant, data: DenseData, knobs: Knobs) -> str:
    command = [sys.executable, str(SCRIPT), option, variant.engine, variant.name, str(data.folder)]
    done = subprocess.run([*command, json.dumps(knobs)], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


# --- curves


@dataclass
class Point:
    """One setting of a variant: what it finds and, over the rounds, the seconds a query takes."""

    variant: Variant
    knobs: Knobs
    recall: float
    seconds: list[float]

    @property
    def qps(self) -> float:
        """Queries a second."""
        return 1 / statistics.median(self.seconds)

    @property
    def setting(self) -> str:
        """The variant with its knobs, for people."""
        return ", ".join([self.variant.name, *(f"{name} {value}" for name, value in self.knobs.items())])


def curves(data: DenseData, variants: Sequence[Variant], rounds: int) -> list[Point]:
    """All settings of all variants, in interleaved rounds; those far from worth it are in the first round only.

    Each variant is opened anew in each round, so that memory holds one at a time, and answers all queries once
    before it is timed, so that what it maps is mapped.
    """
    points: dict[str, list[Point]] = {}
    for round_ in range(rounds):
        for variant in variants:
            search = variant.open(data.folder / variant.folder)
            queries, number = data.queries, f"{variant.engine} {variant.name}"
            if round_ == 0:
                points[number] = [
                    Point(variant, knobs, data.recall(search(queries, K, knobs)), [])
                    for knobs in variant.ladder
                ]
            else:
                points[number] = _worth_it(points[number])
                search(queries, K, points[number][-1].knobs)
            for point in points[number]:
                start = time.perf_counter()
                search(queries, K, point.knobs)
                point.seconds.append((time.perf_counter() - start) / len(queries))
            if round_ == 0:
                best = max(points[number], key=lambda point: point.recall)
                print(
                    f"  {number}: recall up to {best.recall:.4f} at {best.qps:,.0f}/s",
                    file=sys.stderr,
                    flush=True,
                )
            del search
            gc.collect()
    return [point for group in points.values() for point in group]


def _worth_it(points: Sequence[Point]) -> list[Point]:
    return [
        point
        for point in points
        if not any(o.recall >= point.recall and o.qps > _WORTH * point.qps for o in points)
    ]


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in both, by ascending recall."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.recall, -p.qps)):
        if not best or point.qps > best[-1].qps:
            best.append(point)
    return best[::-1]


@dataclass(frozen=True)
class AtTarget:
    """How fast a group is at a recall: interpolated, and the slower setting it can be had with.

    Attributes:
        qps: on the line between the neighbouring settings, in recall and the logarithm of queries a second.
        point: the fastest setting that reaches the recall.
    """

    qps: float
    point: Point


def at_target(points: Sequence[Point], target: float) -> AtTarget | None:
    """The speed at a recall; None where no setting reaches it, the fastest setting where all do."""
    front = frontier(points)
    above = next((number for number, point in enumerate(front) if point.recall >= target), None)
    if above is None:
        return None
    high = front[above]
    low = next((p for p in reversed(front[:above]) if p.variant is high.variant), None)
    if low is None:
        return AtTarget(high.qps, high)
    share = (target - low.recall) / (high.recall - low.recall)
    return AtTarget(float(np.exp((1 - share) * np.log(low.qps) + share * np.log(high.qps))), high)


# --- memory and single calls


def resident(variant: Variant, data: DenseData, knobs: Knobs) -> Row:
    """``resident_mb``, ``ms_p50`` and ``ms_p95`` of one setting, from a process of its own."""
    return json.loads(_child("--resident", variant, data, knobs).splitlines()[-1])


def resident_here(variant: Variant, data_folder: Path, knobs: Knobs) -> Row:
    """The same, measured in this process: what answering all queries adds to it once the code is loaded and compiled.

    Pages of mapped files count as far as the queries touched them.
    """
    folder, queries = data_folder / variant.folder, np.load(data_folder / "queries.npy")
    variant.open(folder)(queries[:5], K, knobs)  # loads and compiles; what it opened is closed again
    _give_back()
    before = _bytes_of("smaps_rollup", "Rss")
    search = variant.open(folder)
    search(queries, K, knobs)
    ms = np.empty(len(queries))
    for query in range(len(queries)):
        start = time.perf_counter()
        search(queries[query : query + 1], K, knobs)
        ms[query] = 1e3 * (time.perf_counter() - start)
    _give_back()
    added = _bytes_of("smaps_rollup", "Rss") - before
    return {"resident_mb": round(added / 2**20, 1), **latencies(ms)}


def latencies(ms: Vectors) -> Row:
    """Percentiles as they stand in every row."""
    return {f"ms_p{share}": round(float(np.percentile(ms, share)), 4) for share in (50, 95)}


def _give_back() -> None:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def _bytes_of(file: str, name: str) -> int:
    """A figure of this process in /proc/self; the peak there is its own, that of getrusage its parent's too."""
    for line in Path("/proc/self", file).read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/{file} has no line {name}")
