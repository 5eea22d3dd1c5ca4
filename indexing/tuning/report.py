"""What a tuning found, for a terminal: the frontier as a table and as a picture of plain characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from indexing.tuning.frontier import Point, pareto
from indexing.tuning.grid import shown
from indexing.tuning.tuning import TuneReport

_WIDTH, _HEIGHT = 64, 14
_MARKS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def as_text(report: TuneReport) -> str:
    """The whole report but ``failed``."""
    front = pareto(report.points)
    parts = [
        f"{report.name}: {report.queries}; recall@{report.target.k} on {report.sample_rows:,} of "
        f"{report.rows:,} rows in {report.search_s:.0f} s"
        + ("" if report.sample_rows == report.rows else "; times and bytes estimated for all rows")
    ]
    if front:
        parts += [table(front, report.chosen), picture(front, report.chosen)]
    parts += [f"skipped {name}: {why}" for name, why in report.skipped.items()]
    point = report.installed
    if point is not None:
        parts.append(f"{report.name} is now searched by {shown(point.kind, point.parameters)}")
        parts.append(f"  over all {report.rows:,} rows: {_figures(point)}; built in {point.build_s:.1f} s")
    elif report.chosen is not None and not report.failed:
        parts.append(
            f"would build {shown(report.chosen.kind, report.chosen.parameters)} (dry run: nothing changed)"
        )
    return "\n".join(parts)


def as_json_values(report: TuneReport) -> dict[str, Any]:
    """The whole report."""
    front = pareto(report.points)
    facts = asdict(report)
    for values, point in zip(facts["points"], report.points, strict=True):
        values["frontier"] = point in front
    return facts


def table(points: Sequence[Point], chosen: Point | None) -> str:
    """A line for each point, the chosen one starred."""
    lines = [
        f"  {'':2}{'recall':>7} {'at least':>8} {'p50 ms':>9} {'p95 ms':>9} {'MB':>9} {'build s':>8}  setting"
    ]
    letters = kind_marks(points)
    for point in points:
        star = "*" if point is chosen else letters[point.index]
        lines.append(
            f"  {star:2}{point.recall:>7.4f} {point.recall_at_least:>8.4f} {point.p50_ms:>9.3f} {point.p95_ms:>9.3f} "
            f"{point.memory_bytes / 1e6:>9,.1f} {point.build_s:>8.1f}  {shown(point.kind, point.parameters)}"
        )
    return "\n".join(lines)


def picture(points: Sequence[Point], chosen: Point | None) -> str:
    """Recall to the right, time upwards in equal ratios; letters as in the table, the chosen one a star."""
    left = min(point.recall for point in points)
    left = min(left, 0.99)
    times = [math.log(max(point.p50_ms, 1e-6)) for point in points]
    low, high = min(times), max(times)
    grid = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    letters = kind_marks(points)
    for point, log_ms in zip(points, times, strict=True):
        column = round((point.recall - left) / (1 - left) * (_WIDTH - 1))
        row = round((high - log_ms) / (high - low or 1.0) * (_HEIGHT - 1))
        if grid[row][column] != "*":
            grid[row][column] = "*" if point is chosen else letters[point.index]
    labels = {0: math.exp(high), _HEIGHT - 1: math.exp(low)}
    lines = [
        f"{f'{labels[row]:.3f} ms' if row in labels else '':>13} |{''.join(cells)}"
        for row, cells in enumerate(grid)
    ]
    axis = f"{left:.3f}{'recall':^{_WIDTH - 10}}1.000"
    return "\n".join([*lines, f"{'':>13} +{'-' * _WIDTH}", f"{'':>15}{axis}"])


def kind_marks(points: Sequence[Point]) -> dict[tuple[str, int], str]:
    """A letter for each index that was built."""
    builds = dict.fromkeys(point.index for point in points)
    return {build: _MARKS[place % len(_MARKS)] for place, build in enumerate(builds)}


def _figures(point: Point) -> str:
    return (
        f"recall {point.recall:.4f} (at least {point.recall_at_least:.4f}), {point.p50_ms:.3f} ms (95%: "
        f"{point.p95_ms:.3f}), {point.memory_bytes / 1e6:,.1f} MB"
    )
