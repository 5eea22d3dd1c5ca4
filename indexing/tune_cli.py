"""`tercet tune`: the index that keeps a target on one's own vectors, found by measurement."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexing.cli_options import COLLECTION, JSON, QUIET, memory_bytes, show
from indexing.command_line import HELP, reading_options
from retrieval.errors import ConfigError

if TYPE_CHECKING:
    from indexing.tuning.options import TuneOptions


@click.command("tune", context_settings=HELP)
@COLLECTION
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.95,
    show_default=True,
    help="Mean share of the exact k best documents to find; its lower bound (95%) has to reach this on queries that "
    "chose nothing. 1 leaves exact kinds only.",
)
@click.option(
    "-k", "--k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Results of a query."
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="The most the index may take: all its files, and the stored vectors that searches scan, or of those that they "
    "only score at last the pages that 1,000 queries read.  [default: any]",
)
@click.option(
    "--p95",
    metavar="TIME",
    help="What 95% of single searches may take (5ms, 0.1s), encoding not counted. Then the smallest index that keeps "
    "it is chosen; without it the fastest by median, and the smallest of those within a tenth of that.",
)
@click.option("--using", default="", metavar="NAME", help="The representation.  [default: the dense one]")
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    help='File of real queries: JSONL with "text", or a query a line.  [default: pseudo-queries made of documents]',
)
@click.option(
    "--sample",
    type=click.IntRange(1, 100_000),
    default=100_000,
    show_default=True,
    help="Rows that settings are tried on; the chosen index is built and verified over all.",
)
@click.option("--kinds", metavar="NAMES", help="Index kinds to try, comma separated.  [default: all]")
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="How long settings may be tried on the sample.",
)
@click.option(
    "--build-memory",
    metavar="SIZE",
    help="What an index build may hold in memory.  [default: half of the machine's]",
)
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Draw the frontier into this file (.png, .svg)."
)
@click.option(
    "--orders",
    is_flag=True,
    help="Instead: what the order of insertion does to a graph's recall on the sample.",
)
@click.option("--dry-run", is_flag=True, help="Measure and choose, change nothing.")
@click.option("--threads", type=click.IntRange(1), help="Threads of searches and builds.")
@JSON
@QUIET
def tune_command(
    collection: Path,
    recall: float,
    k: int,
    memory: str | None,
    p95: str | None,
    using: str,
    queries: Path | None,
    sample: int,
    kinds: str | None,
    minutes: float,
    build_memory: str | None,
    plot: Path | None,
    orders: bool,
    dry_run: bool,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find the index that keeps a recall on COLLECTION's own vectors, build it, verify it.

    Kinds and parameters are measured on a sample against exact search. The best is built from the stored vectors of
    all rows (nothing is encoded again), its search parameter raised until queries that chose nothing confirm the
    recall, and it becomes what the representation is searched by; `tercet info` shows what was measured. A flat
    index stays beside it (--using NAME-flat answers exactly), an index that an earlier `tune` chose is dropped.

    \b
      tercet tune my-collection --recall 0.95
      tercet tune my-collection --recall 0.99 --memory 2GB --queries queries.jsonl
      tercet tune my-collection --p95 5ms --kinds hnsw,ivf --plot frontier.png --dry-run
    """  # noqa: D301 - click looks for the control character
    if threads is not None:
        from retrieval.compute import set_threads

        set_threads(threads)
    from indexing.progress import progress_bars
    from indexing.tuning.frontier import Target
    from indexing.tuning.options import TuneOptions
    from indexing.tuning.picture import check_picture, save_picture
    from indexing.tuning.report import as_json_values, as_text
    from indexing.tuning.tuning import tune

    with reading_options():
        target = Target(
            recall,
            k,
            None if memory is None else memory_bytes(memory),
            None if p95 is None else milliseconds(p95),
        )
        given: dict[str, Any] = {} if build_memory is None else {"build_memory": memory_bytes(build_memory)}
        names = tuple(name.strip() for name in kinds.split(",")) if kinds else ()
        options = TuneOptions(target, using, queries, sample, names, 60 * minutes, dry_run=dry_run, **given)
        if plot is not None:
            check_picture(plot)
    if orders:
        _show_orders(collection, options, as_json, quiet)
        return
    with progress_bars(quiet=quiet) as progress:
        report = tune(collection, options, progress)
    if plot is not None and report.points:
        save_picture(report, plot)
    show(as_json_values(report), as_json, as_text(report))
    if report.failed:
        raise ConfigError(f"{collection} is unchanged: {report.failed}")


def _show_orders(collection: Path, options: TuneOptions, as_json: bool, quiet: bool) -> None:
    from indexing.progress import progress_bars
    from indexing.tuning.orders import as_table, measure_orders

    with progress_bars(quiet=quiet) as progress:
        found = measure_orders(collection, options, progress)
    show([vars(one) for one in found], as_json, as_table(found))


def milliseconds(text: str) -> float:
    """From "5ms", "0.1s" or "5", which are milliseconds.

    Raises:
        ConfigError: it is none of these.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|)\s*", text)
    if found is None:
        raise ConfigError(f"--p95 {text!r} is no time; write it like 5ms or 0.1s")
    return float(found[1]) * (1000 if found[2] == "s" else 1)
