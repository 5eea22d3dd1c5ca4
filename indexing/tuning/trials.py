"""Every candidate there is time for, built over the sample and measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from indexing.kinds import kind_class
from indexing.progress import Progress
from indexing.tuning.bench import Bench
from indexing.tuning.clock import BuildTimes, Clock, OutOfTime
from indexing.tuning.frontier import Point, first_of_each_index, ranked
from indexing.tuning.grid import Candidate, candidates
from indexing.tuning.measuring import build_candidate, timed_in_turns, walk
from retrieval.errors import ConfigError, TercetError


@dataclass(eq=False)
class _Trials:
    """What was measured so far, and the indexes it was measured of."""

    points: list[Point] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    indexes: dict[tuple[str, int], Any] = field(default_factory=dict)
    build_times: BuildTimes = field(default_factory=BuildTimes)


def measure_all(
    bench: Bench, kinds: Sequence[str], clock: Clock, progress: Progress
) -> tuple[list[Point], dict[str, str]]:
    """The settings of every candidate in the order of the grid, as far as the time goes.

    At the end the wanted setting of each index is timed again, all in turns, since its time decides.

    Returns:
        The points, and by candidate why it has none.
    """
    trials = _Trials()
    for candidate in candidates(kinds, len(bench.vectors), bench.vectors.dim, bench.target.k):
        try:
            _check_time(trials.build_times, candidate, clock)
            _check_memory(bench, candidate)
            _measure(bench, candidate, trials, progress, clock)
        except (TercetError, OutOfTime) as error:
            trials.skipped[candidate.name] = str(error)
    wanted = first_of_each_index(ranked(trials.points, bench.target))
    again = timed_in_turns(bench, wanted, [trials.indexes[point.index] for point in wanted])
    others = [point for point in trials.points if point not in wanted]
    return [*again, *others], trials.skipped


def _measure(bench: Bench, candidate: Candidate, trials: _Trials, progress: Progress, clock: Clock) -> None:
    folder = bench.folder / f"{candidate.kind}-{candidate.number}"
    folder.mkdir()
    started = time.monotonic()
    index = build_candidate(bench, candidate, folder, progress, clock)
    seconds = time.monotonic() - started
    trials.build_times.add(candidate, seconds)
    trials.indexes[candidate.kind, candidate.number] = index
    trials.points += walk(bench, candidate, index, folder, seconds, clock)


def _check_time(build_times: BuildTimes, candidate: Candidate, clock: Clock) -> None:
    """Refuse a build that is going to end after the time.

    Raises:
        OutOfTime: says how long it takes.
    """
    expected = build_times.expected(candidate)
    if clock.left <= expected:
        about = f"its build takes about {expected:.0f} s, " if expected else ""
        raise OutOfTime(f"{about}{max(0.0, clock.left):.0f} s are left")


def _check_memory(bench: Bench, candidate: Candidate) -> None:
    """Refuse what could not be built over a segment of the collection.

    Raises:
        ConfigError: says what it takes.
    """
    kind = kind_class(candidate.kind)
    if not hasattr(kind, "memory_needed"):
        return
    parameters = kind.parameters(candidate.build)
    half = bench.vectors.values.itemsize == 2
    needed = kind.memory_needed(max(bench.segments), bench.vectors.dim, parameters, half=half)
    if needed > bench.memory_bytes:
        raise ConfigError(
            f"building it over the collection takes {needed / 1e9:.2f} GB, {bench.memory_bytes / 1e9:.2f} GB are "
            "allowed (--build-memory)"
        )
