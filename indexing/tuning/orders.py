"""`tercet tune COLLECTION --orders`: what the order of insertion does to a graph's recall on one's own vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from indexing.commit import read_commit
from indexing.hnsw.order_report import EFS, OrderRecall, order_report
from indexing.lock import writer_lock
from indexing.progress import Progress
from indexing.sweeping import sweep
from indexing.tuning.bench import open_bench
from indexing.tuning.options import TuneOptions


def measure_orders(path: Path, options: TuneOptions, progress: Progress) -> list[OrderRecall]:
    """A graph for every order over the sample, searched with the queries; nothing of the collection changes.

    Raises:
        ConfigError, FormatError, LockedError: as ``indexing.tuning.tuning.tune``.
    """
    read_commit(path)
    with writer_lock(path):
        commit = read_commit(path)
        name = options.representation(path, commit)
        try:
            with open_bench(path, commit, name, options, progress) as bench:
                progress.start("build graphs", None, "rows")
                efs = [ef for ef in EFS if ef >= options.target.k] or [options.target.k]
                return order_report(
                    bench.vectors, bench.choosing, bench.truth, efs=efs, progress=progress.advance
                )
        finally:
            sweep(path, commit)


def as_table(found: Sequence[OrderRecall]) -> str:
    """A line for each order, a column for each width of the walk."""
    efs = list(dict.fromkeys(one.ef for one in found))
    recall = {(one.order, one.ef): one.recall for one in found}
    lines = [f"  {f'recall@{found[0].k}':<18}" + "".join(f"{f'ef {ef}':>10}" for ef in efs)]
    for order in dict.fromkeys(one.order for one in found):
        lines.append(f"  {order:<18}" + "".join(f"{recall[order, ef]:>10.4f}" for ef in efs))
    return "\n".join(lines)
