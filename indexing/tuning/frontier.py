"""Measured settings, those among them that nothing beats, and the one that a target asks for. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from retrieval.errors import ConfigError

_ALIKE = 1.1  # times so near are within what a second measurement changes
_ANY_RECALL = 1e-9


@dataclass(frozen=True)
class Target:
    """What is asked of an index.

    Attributes:
        recall: mean share of the exact k best that is to be found, above 0; 1 leaves only exact kinds.
        k: results of a query.
        memory_bytes: the most an index may take (``indexing.tuning.measuring.resident_bytes``); None: any amount.
        p95_ms: what 95 of 100 searches may take at most, without the encoding of the query; None: any time.
    """

    recall: float = 0.95
    k: int = 10
    memory_bytes: int | None = None
    p95_ms: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise ConfigError(f"recall {self.recall} cannot be asked for; it lies above 0 and up to 1")
        if self.k < 1:
            raise ConfigError(f"k is {self.k}; it must be at least 1")
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise ConfigError(f"{self.memory_bytes} bytes of memory hold no index; allow more")
        if self.p95_ms is not None and not self.p95_ms > 0:
            raise ConfigError(f"no search takes {self.p95_ms} ms; allow more")


@dataclass(frozen=True)
class Point:
    """One setting and what was measured of it.

    Attributes:
        kind: of the index.
        number: which of the kind's builds in ``indexing.tuning.grid``.
        build: the parameters it was built with.
        search: those that a search may change without building anew.
        recall: mean over the queries.
        recall_at_least: the lower bound of that mean (``indexing.tuning.recall.lower_bound``).
        p50_ms, p95_ms: of single searches of encoded queries.
        memory_bytes: resident while searching.
        build_s: seconds it took to build.
    """

    kind: str
    number: int
    build: Mapping[str, Any]
    search: Mapping[str, int]
    recall: float
    recall_at_least: float
    p50_ms: float
    p95_ms: float
    memory_bytes: int
    build_s: float

    @property
    def index(self) -> tuple[str, int]:
        """Which index it is a setting of, among those of one tuning."""
        return self.kind, self.number

    @property
    def parameters(self) -> dict[str, Any]:
        """All that the index is made and searched with."""
        return {**self.build, **self.search}


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats: none has at least their recall in no more time and memory. By recall."""
    kept = [point for point in points if not any(_beats(other, point) for other in points)]
    return sorted(kept, key=lambda point: (point.recall, point.p50_ms))


def _beats(left: Point, right: Point) -> bool:
    as_good = (
        left.recall >= right.recall
        and left.p50_ms <= right.p50_ms
        and left.memory_bytes <= right.memory_bytes
    )
    return as_good and _figures(left) != _figures(right)


def _figures(point: Point) -> tuple[float, float, int]:
    return point.recall, point.p50_ms, point.memory_bytes


def shortfall(point: Point, target: Target) -> float:
    """By how much a point misses the worst of its limits, as a share of that limit; 0 where it keeps all."""
    misses = [(target.recall - point.recall_at_least) / target.recall]
    if target.memory_bytes is not None:
        misses.append(point.memory_bytes / target.memory_bytes - 1)
    if target.p95_ms is not None:
        misses.append(point.p95_ms / target.p95_ms - 1)
    return max(0.0, *misses)


def ranked(points: Sequence[Point], target: Target) -> list[Point]:
    """The points that keep every limit, the most wanted first.

    The fastest by median; of those within a tenth of it the smallest. Where a time is given (``p95_ms``), any that
    keeps it is fast enough: then the smallest, and of equals the fastest.
    """
    good = [point for point in points if shortfall(point, target) == 0]
    if target.p95_ms is not None:
        return sorted(good, key=lambda point: (point.memory_bytes, point.p50_ms))
    order: list[Point] = []
    left = sorted(good, key=lambda point: point.p50_ms)
    while left:
        alike = [point for point in left if point.p50_ms <= _ALIKE * left[0].p50_ms]
        best = min(alike, key=lambda point: (point.memory_bytes, point.p50_ms))
        order.append(best)
        left.remove(best)
    return order


def first_of_each_index(points: Sequence[Point]) -> list[Point]:
    """Of every index the point that comes first."""
    firsts: dict[tuple[str, int], Point] = {}
    for point in points:
        firsts.setdefault(point.index, point)
    return list(firsts.values())


def closest(points: Sequence[Point], target: Target) -> Point:
    """The point that misses its worst limit by least; the faster of equals."""
    return min(points, key=lambda point: (shortfall(point, target), point.p50_ms))


def remedy(points: Sequence[Point], target: Target) -> str:
    """Each single option that would let a point keep all limits, with its least value; "" where none does."""
    ways = []
    anywhere = ranked(points, replace(target, memory_bytes=None))
    if target.memory_bytes is not None and anywhere:
        ways.append(f"--memory {math.ceil(min(point.memory_bytes for point in anywhere) / 1e6)}MB")
    anytime = ranked(points, replace(target, p95_ms=None))
    if target.p95_ms is not None and anytime:
        ways.append(f"--p95 {min(point.p95_ms for point in anytime) * _ALIKE:.2g}ms")
    inside = [point for point in points if shortfall(point, replace(target, recall=_ANY_RECALL)) == 0]
    reached = math.floor(100 * max((point.recall_at_least for point in inside), default=0.0)) / 100
    if reached > 0:
        ways.append(f"--recall {reached:.2f}")
    return " or ".join(ways)
