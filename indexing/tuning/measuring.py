"""One candidate on the sample: built, searched with more and more effort, and every setting measured."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.commit import IndexSpec
from indexing.fitting import fitted, shared_folder
from indexing.kinds import kind_class
from indexing.planner import planned_search
from indexing.progress import Progress
from indexing.tuning.bench import Bench
from indexing.tuning.clock import Clock, OutOfTime
from indexing.tuning.frontier import Point
from indexing.tuning.grid import GRID, Candidate
from indexing.tuning.ladder import first_reaching
from indexing.tuning.recall import lower_bound, recalls
from retrieval.protocols import SearchRequest
from retrieval.values import Dense, Hits

WARM_UP = 5
_TIMED = 200  # queries, and seconds, of one measurement of latency
_TIMED_S = 1.0
_ROUNDS = 3
_PAGE = 4096
_RESCORED_QUERIES = 1000


def build_candidate(
    bench: Bench, candidate: Candidate, folder: Path, progress: Progress, clock: Clock
) -> Any:
    """The candidate's index over the sample, opened.

    Args:
        folder: an empty one that stays while the index is used.

    Raises:
        ConfigError: it cannot be built of these vectors or in this memory.
        OutOfTime: the clock ran out.
    """
    kind = kind_class(candidate.kind)
    spec = IndexSpec(candidate.kind, kind.parameters(candidate.build))
    (spec,) = fitted(
        folder, "sample", [spec], bench.vectors, memory_bytes=bench.memory_bytes, progress=progress
    )
    shared = shared_folder(folder, "sample", spec)
    built = folder / "index"
    built.mkdir()
    progress.start(f"build {candidate.kind} ({candidate.number + 1})", len(bench.vectors), "rows")
    kind.build(
        bench.vectors,
        built,
        spec.parameters,
        memory_bytes=bench.memory_bytes,
        progress=clock.watched(progress.advance),
        **shared,
    )
    return kind.load(built, bench.vectors, spec.parameters, **shared)


def walk(
    bench: Bench, candidate: Candidate, index: Any, folder: Path, build_s: float, clock: Clock
) -> list[Point]:
    """The settings that were measured on the way to the least effort that finds enough, for every variant.

    Those that there was time for.
    """
    points: list[Point] = []
    on_disk = folder_bytes(folder)
    for variant in GRID[candidate.kind].variants:

        def reaches(place: int, variant: Mapping[str, Any] = variant) -> bool:
            if clock.left <= 0:
                raise OutOfTime("its settings were not measured in time")
            search = candidate.search(variant, place)
            points.append(_measured(bench, candidate, replace(index, **search), search, on_disk, build_s))
            return points[-1].recall_at_least >= bench.target.recall

        try:
            first_reaching(len(candidate.values), 0, reaches)
        except OutOfTime:
            break
    return points


def _measured(
    bench: Bench, candidate: Candidate, index: Any, search: Mapping[str, int], on_disk: int, build_s: float
) -> Point:
    """One setting: recall of the sample, times and bytes as they are to be expected of the collection."""
    request = SearchRequest(k=bench.target.k)
    milliseconds = single_searches(_searching(index, request), bench.choosing)
    memory = resident_bytes(
        round(on_disk * bench.times),
        sum(bench.segments),
        bench.vectors.dim * bench.vectors.values.itemsize,
        scored_at_last(candidate, index, request.k),
    )
    return point_of(
        candidate,
        search,
        recalls(planned_search(index, bench.choosing, request).rows, bench.truth),
        milliseconds * bench.slowdown(candidate.kind),
        memory,
        build_s,
        request.k,
    )


def _searching(index: Any, request: SearchRequest) -> Callable[[Dense], Hits]:
    return lambda query: planned_search(index, query, request)


def timed_in_turns(bench: Bench, points: Sequence[Point], indexes: Sequence[Any]) -> list[Point]:
    """The points with times taken anew in several rounds, so that all of them meet the same disturbances.

    The lowest median of the rounds counts, and the lowest of their 95th percentiles: whatever else runs makes a search
    slower, never faster.

    Args:
        indexes: of each point.
    """
    request = SearchRequest(k=bench.target.k)
    rounds = np.empty((_ROUNDS, len(points), 2))
    for number, (place, point) in itertools.product(range(_ROUNDS), enumerate(points)):
        index = replace(indexes[place], **point.search)
        taken = single_searches(_searching(index, request), bench.choosing)
        rounds[number, place] = np.percentile(taken, (50, 95)) * bench.slowdown(point.kind)
    best = rounds.min(axis=0)
    return [
        replace(point, p50_ms=float(p50), p95_ms=float(p95))
        for point, (p50, p95) in zip(points, best, strict=True)
    ]


def point_of(
    candidate: Candidate,
    search: Mapping[str, Any],
    shares: NDArray[np.float64],
    milliseconds: NDArray[np.float64],
    memory: int,
    build_s: float,
    k: int,
) -> Point:
    """What was measured of a setting.

    Args:
        shares: (Q,) recalls.
        milliseconds: of single searches.
        memory: bytes resident while searching.
        build_s: seconds the index took to build.
        k: results of a query.
    """
    return Point(
        kind=candidate.kind,
        number=candidate.number,
        build=dict(candidate.build),
        search=dict(search),
        recall=float(shares.mean()),
        recall_at_least=1.0 if kind_class(candidate.kind).exact else lower_bound(shares, k),
        p50_ms=float(np.percentile(milliseconds, 50)),
        p95_ms=float(np.percentile(milliseconds, 95)),
        memory_bytes=memory,
        build_s=build_s,
    )


def scored_at_last(candidate: Candidate, index: Any, k: int) -> int | None:
    """How many stored vectors a search reads where it does not make its way through all of them (None).

    A kind that keeps more candidates than it scores says so by a method ``scored``.
    """
    if GRID[candidate.kind].scans(candidate.build):
        return None
    scored: int = getattr(index, "scored", index.candidates)(k)
    return scored


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def resident_bytes(index_bytes: int, n: int, row_bytes: int, rescored: int | None) -> int:
    """What a search needs in memory to run at its speed.

    All files of the index; and all stored vectors where a search scans them or walks from one to another, otherwise
    the pages that ``_RESCORED_QUERIES`` different queries read of them to score their candidates at last. Pages of
    mapped files are the system's to take back, so that a process may be seen with more, and goes on with less.

    Args:
        index_bytes: of the index's files and of what it was trained to.
        n: stored vectors.
        row_bytes: of one of them.
        rescored: candidates a query scores at last; None where it reads all vectors.
    """
    stored = n * row_bytes
    if rescored is None:
        return index_bytes + stored
    return index_bytes + min(stored, _RESCORED_QUERIES * rescored * (row_bytes + _PAGE))


def single_searches(search: Callable[[Dense], Hits], queries: Dense) -> NDArray[np.float64]:
    """Milliseconds of searches with one query each, after a few that are not timed."""
    for place in range(min(WARM_UP, len(queries))):
        search(queries[place : place + 1])
    times: list[float] = []
    end = time.perf_counter() + _TIMED_S
    for place in range(min(_TIMED, len(queries))):
        started = time.perf_counter()
        search(queries[place : place + 1])
        stopped = time.perf_counter()
        times.append((stopped - started) * 1e3)
        if stopped > end:
            break
    return np.array(times)
