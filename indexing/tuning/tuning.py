"""`tercet tune COLLECTION`: settings measured on a sample, the best built over all rows, verified and committed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from indexing.commit import Commit, read_commit, write_commit
from indexing.fitting import with_indexes
from indexing.lock import writer_lock
from indexing.progress import Progress, Silent
from indexing.sweeping import sweep
from indexing.tuning.bench import Bench, open_bench
from indexing.tuning.clock import Clock
from indexing.tuning.frontier import Point, Target, closest, first_of_each_index, ranked, remedy, shortfall
from indexing.tuning.grid import shown, tunable_kinds
from indexing.tuning.installing import EXACT, Verified, build_and_verify, sealed_anew
from indexing.tuning.options import TuneOptions
from indexing.tuning.queries import TuningQueries
from indexing.tuning.trials import measure_all
from retrieval.compute import threads


@dataclass(frozen=True)
class TuneReport:
    """What was measured and what became of it.

    Attributes:
        name: the representation.
        queries: what it was measured with, in words.
        sample_rows: rows that settings were tried on.
        rows: live rows of the collection.
        points: every setting, with times and bytes as they are to be expected of the whole collection.
        skipped: candidate -> why it was not measured.
        chosen: the point that is built, or would be in a dry run; None where no setting keeps every limit.
        installed: what was measured of the new default index, over all rows; None where nothing was changed.
        failed: why there is no new index, and what to do; "" where there is one or none was wanted.
        search_s: seconds spent on the sample, with the encoding of queries.
    """

    name: str
    target: Target
    queries: str
    sample_rows: int
    rows: int
    points: tuple[Point, ...]
    skipped: dict[str, str]
    chosen: Point | None
    installed: Point | None
    failed: str
    search_s: float


def tune(path: str | Path, options: TuneOptions, progress: Progress | None = None) -> TuneReport:
    """Find the index that keeps a target and make it the representation's default.

    The first of ``frontier.ranked`` on a sample is built over the stored vectors of all rows, its search parameter
    found anew and verified there with queries that chose nothing. Nothing is encoded but queries. A flat index stays
    beside it for exact answers; an index that an earlier tuning chose goes, indexes that were asked for stay. Deleted
    rows are neither sampled nor found. The writer lock is held from the beginning; a kill at any time leaves the last
    commit.

    Raises:
        ConfigError: there are no dense vectors, no file of queries of use, or fewer documents than k.
        LockedError: another process writes.
    """
    path = Path(path)
    progress = progress or Silent()
    read_commit(path)
    with writer_lock(path):
        commit = read_commit(path)
        name = options.representation(path, commit)
        started = time.monotonic()
        try:
            with open_bench(path, commit, name, options, progress) as bench:
                report = _search(bench, name, options, started, progress)
            if not options.dry_run and report.chosen is not None:
                report = _install(path, commit, bench.queries, report, options, progress)
        finally:
            sweep(path, read_commit(path))
    return report


def _search(bench: Bench, name: str, options: TuneOptions, started: float, progress: Progress) -> TuneReport:
    """Measure the candidates on the sample and choose."""
    target = options.target
    clock = Clock(started + options.seconds)
    points, skipped = measure_all(bench, options.kinds or tunable_kinds(), clock, progress)
    chosen = next(iter(ranked(points, target)), None)
    return TuneReport(
        name=name,
        target=target,
        queries=bench.queries.described,
        sample_rows=len(bench.vectors),
        rows=bench.live,
        points=tuple(points),
        skipped=skipped,
        chosen=chosen,
        installed=None,
        failed="" if chosen else no_solution(points, target),
        search_s=time.monotonic() - started,
    )


def _install(
    path: Path,
    commit: Commit,
    queries: TuningQueries,
    report: TuneReport,
    options: TuneOptions,
    progress: Progress,
) -> TuneReport:
    """Commit the most wanted index that keeps its promise over all rows; the first of each build."""
    target = report.target
    tried: list[Point] = []
    for point in first_of_each_index(ranked(report.points, target)):
        verified = build_and_verify(
            path,
            commit,
            report.name,
            point,
            queries,
            target,
            memory_bytes=options.build_memory,
            progress=progress,
        )
        if verified is not None and shortfall(verified.point, target) == 0:
            write_commit(path, _final(path, verified, queries, report))
            return replace(report, chosen=point, installed=verified.point)
        progress.note(f"{shown(point.kind, point.build)} does not keep its promise over all rows")
        tried += [verified.point] if verified else []
        sweep(path, commit)
    return replace(report, failed=no_solution(tried or report.points, target))


def _final(path: Path, verified: Verified, queries: TuningQueries, report: TuneReport) -> Commit:
    """The commit of a verified index: it comes first, a flat one stays, earlier choices go."""
    name, point, commit = report.name, verified.point, verified.commit
    spec = sealed_anew(path, commit, name, point.kind, point.search)
    spec = replace(spec, measured=measured_facts(point, queries, report))
    others = [
        replace(other, measured=None)
        for other in commit.representations[name].indexes
        if other.kind != spec.kind and (other.kind == EXACT or other.measured is None)
    ]
    specs = (spec, *others)
    keys = {f"{name}-{other.kind}" for other in commit.representations[name].indexes} - {
        f"{name}-{other.kind}" for other in specs
    }
    entries = tuple(
        replace(entry, indexes={key: at for key, at in entry.indexes.items() if key not in keys})
        for entry in commit.segments
    )
    return with_indexes(replace(commit, segments=entries), name, specs)


def measured_facts(point: Point, queries: TuningQueries, report: TuneReport) -> dict[str, Any]:
    """What the commit keeps of a verified index and `tercet info` shows ever after."""
    return {
        "recall": round(point.recall, 4),
        "recall_at_least": round(point.recall_at_least, 4),
        "target": report.target.recall,
        "k": report.target.k,
        "p50_ms": round(point.p50_ms, 4),
        "p95_ms": round(point.p95_ms, 4),
        "memory_bytes": point.memory_bytes,
        "threads": threads(),
        "queries": len(queries.halves()[1]),
        "kind_of_queries": queries.kind,
        "rows": report.rows,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def no_solution(points: Sequence[Point], target: Target) -> str:
    """Why no setting is good enough, the one that comes closest, and what would have to be allowed."""
    if not points:
        return "nothing could be measured; give it more time (--minutes) or memory (--build-memory)"
    point = closest(points, target)
    ways = remedy(points, target)
    return (
        f"no setting keeps every limit; the closest, {shown(point.kind, point.parameters)}, finds at least "
        f"{point.recall_at_least:.3f} with {point.memory_bytes / 1e6:,.0f} MB in {point.p95_ms:.2f} ms (95%)"
        + (f"; allow {ways}" if ways else "; allow more of each limit")
    )
