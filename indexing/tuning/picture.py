"""The frontier of a tuning as a picture in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from indexing.tuning.frontier import pareto
from indexing.tuning.grid import shown
from indexing.tuning.tuning import TuneReport
from retrieval.errors import ConfigError, MissingExtraError


def check_picture(path: Path) -> None:
    """Refuse a file that no picture can be written to, before there is anything to draw.

    Raises:
        ConfigError: its folder is not there, or its ending names no format.
        MissingExtraError: matplotlib is not installed.
    """
    pyplot = _pyplot()
    formats = pyplot.figure().canvas.get_supported_filetypes()
    pyplot.close()
    if path.suffix.lower().removeprefix(".") not in formats:
        raise ConfigError(
            f"{path}: no picture ends in {path.suffix!r}; choose one of {', '.join(sorted(formats))}"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}; make it first")


def save_picture(report: TuneReport, path: Path) -> None:
    """Recall against time: a line for each index, rings on the frontier by memory, the chosen point a star."""
    pyplot = _pyplot()
    figure, panel = pyplot.subplots(figsize=(7, 5))
    for build in dict.fromkeys(point.index for point in report.points):
        points = sorted((point for point in report.points if point.index == build), key=lambda p: p.recall)
        panel.plot(
            [point.recall for point in points],
            [point.p50_ms for point in points],
            marker="o",
            markersize=3,
            linewidth=0.8,
            label=shown(points[0].kind, points[0].build),
        )
    front = pareto(report.points)
    most = max((point.memory_bytes for point in front), default=1)
    panel.scatter(
        [point.recall for point in front],
        [point.p50_ms for point in front],
        s=[20 + 120 * point.memory_bytes / most for point in front],
        facecolors="none",
        edgecolors="grey",
        linewidths=0.6,
    )
    if report.chosen is not None:
        panel.plot(report.chosen.recall, report.chosen.p50_ms, marker="*", markersize=14, color="black")
    panel.axvline(report.target.recall, color="grey", linestyle=":", linewidth=0.8)
    panel.set(xlabel=f"recall@{report.target.k}", ylabel="ms a query (median)", yscale="log")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _pyplot() -> Any:
    """matplotlib.pyplot, drawing without a display."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
