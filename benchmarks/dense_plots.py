"""Plots of the dense benchmarks: recall against speed, and against what is multiplied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.dense_measure import Point, frontier
from benchmarks.dense_prefixes import multiplied


def plot_engines(points: dict[str, list[Point]], path: Path) -> None:
    """Recall against queries a second, a panel for each data set and a line for each engine and kind."""
    pyplot = _pyplot()
    columns = min(4, len(points))
    lines = -(-len(points) // columns)
    figure, panels = pyplot.subplots(lines, columns, figsize=(5 * columns, 4 * lines), squeeze=False)
    for panel in panels.flat[len(points) :]:
        panel.set_axis_off()
    for panel, (name, mine) in zip(panels.flat, points.items(), strict=False):
        for group in dict.fromkeys(p.variant.group for p in mine if not p.variant.name.startswith("bare")):
            front = frontier([p for p in mine if p.variant.group == group])
            style = "-" if group.startswith("tercet") else "--"
            _line(panel, [(p.recall, p.qps) for p in front], group, style)
        _finish(panel, name, "queries a second, one thread")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def plot_prefixes(points: list[Point], n: int, path: Path) -> None:
    """Recall against queries a second for graph and lists, and for lists against numbers multiplied."""
    pyplot = _pyplot()
    figure, panels = pyplot.subplots(1, 3, figsize=(15, 4))
    for name in dict.fromkeys(point.variant.name for point in points):
        mine = [point for point in points if point.variant.name == name]
        style = "-" if name.endswith("all") else "--"
        lists = mine[0].variant.kind == "ivf"
        _line(panels[1 if lists else 0], [(p.recall, p.qps) for p in frontier(mine)], name, style)
        if lists:
            _line(panels[2], _least([(p.recall, multiplied(p, n)) for p in mine]), name, style)
    _finish(panels[0], "graph", "queries a second, one thread")
    _finish(panels[1], "lists", "queries a second, one thread")
    _finish(panels[2], "lists", "numbers multiplied for a query")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _least(points: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Those for which no other has at least the recall with less, by ascending recall."""
    kept: list[tuple[float, int]] = []
    for recall, cost in sorted(points, key=lambda point: (-point[0], point[1])):
        if not kept or cost < kept[-1][1]:
            kept.append((recall, cost))
    return kept[::-1]


def _line(panel: Any, points: list[tuple[float, float]], label: str, style: str) -> None:
    panel.plot(*zip(*points, strict=True), marker="o", markersize=3, linestyle=style, label=label)


def _finish(panel: Any, title: str, what: str) -> None:
    panel.set(title=title, xlabel="recall@10", ylabel=what, yscale="log")
    panel.set_xlim(0.8, 1.002)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
