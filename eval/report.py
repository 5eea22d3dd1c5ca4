"""Results for people (terminal, Markdown), for programs (JSON) and for other tools (TREC run files)."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.evaluate import Evaluation
from eval.runs import write_run

if TYPE_CHECKING:
    from rich.table import Table

PACKAGES = (
    "tercet",
    "numpy",
    "numba",
    "torch",
    "tokenizers",
    "faiss-cpu",
    "hnswlib",
    "PyStemmer",
    "pytrec-eval-terrier",
)
SIGNIFICANT = 0.05


@cache
def versions() -> dict[str, str]:
    """What was installed: Python and the packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """One retriever on one data set, as the JSON object of ``tercet eval --json``.

    Null stands where something does not apply: a run read from a file has no latency and no index. The
    latency (``ms_per_query`` is the mean) is of single calls from text to the first ``timed_k`` hits,
    encoding included, over ``timed_queries`` queries after a warm-up; ``queries_per_second`` is of batches at
    full depth.
    """
    one = evaluation
    return {
        "dataset": one.dataset,
        "split": one.split,
        "retriever": one.retriever,
        "n_docs": one.n_docs,
        "n_queries": one.n_queries,
        **{name: round(value, 6) for name, value in one.metrics.items()},
        "ms_per_query": None if one.latency is None else round(one.latency.mean, 4),
        "ms_p50": None if one.latency is None else round(one.latency.percentile(50), 4),
        "ms_p95": None if one.latency is None else round(one.latency.percentile(95), 4),
        "timed_queries": 0 if one.latency is None else len(one.latency.milliseconds),
        "timed_k": None if one.latency is None else one.latency.k,
        "queries_per_second": None if one.queries_per_second is None else round(one.queries_per_second, 2),
        "index_bytes": one.index_bytes,
        "k": one.k,
        "depth": one.depth,
        "drop_self": one.drop_self,
        "n_dropped_self": one.n_dropped,
        "n_unanswered": one.n_unanswered,
        "mean_of": one.parts,
        "baseline": one.baseline or None,
        "p_values": {name: round(value, 5) for name, value in one.p_values.items()},
        "seed": one.seed,
        "versions": versions(),
    }


def table_rows(evaluations: Sequence[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the table; a dagger marks what differs from the first retriever."""
    metrics = list(dict.fromkeys(name for one in evaluations for name in one.metrics))
    headings = ["data set", "retriever", *metrics, "ms/query", "p95", "index MB"]
    rows = []
    for one in evaluations:
        dataset = one.dataset if one.split == "test" else f"{one.dataset} ({one.split})"
        cells = [dataset if one.parts == 1 else f"{dataset} (mean of {one.parts})", one.retriever]
        for name in metrics:
            mark = "†" if one.p_values.get(name, 1.0) < SIGNIFICANT else ""
            cells.append(f"{one.metrics[name]:.4f}{mark}" if name in one.metrics else "")
        cells += _milliseconds(one)
        cells.append("-" if one.index_bytes is None else f"{one.index_bytes / 1e6:.1f}")
        rows.append(cells)
    return headings, rows


def _milliseconds(one: Evaluation) -> list[str]:
    return (
        ["-", "-"]
        if one.latency is None
        else [f"{one.latency.mean:.2f}", f"{one.latency.percentile(95):.2f}"]
    )


def notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """What the reader of the table has to know."""
    lines = []
    first = evaluations[0]
    if any(one.p_values for one in evaluations):
        lines.append(
            f"† differs from {first.retriever}: p < {SIGNIFICANT}, two-sided paired randomisation test over "
            "queries (not corrected for several comparisons)"
        )
    depths = "" if first.depth is None else f", {first.depth} candidates from each part of a fused retriever"
    lines.append(f"Rankings of {first.k} documents{depths}; seed {first.seed}.")
    timed = next((one.latency for one in evaluations if one.latency is not None), None)
    if timed is not None:
        lines.append(
            f"ms/query: one query at a time, from text to the first {timed.k} hits, encoding included; "
            f"mean of {len(timed.milliseconds)}."
        )
    for dataset in dict.fromkeys(one.dataset for one in evaluations if one.drop_self):
        counts = [f"{one.retriever} {one.n_dropped}" for one in evaluations if one.dataset == dataset]
        lines.append(
            f"{dataset}: a query's own document (the one with its id) was dropped from its results; "
            f"queries where it was found: {', '.join(counts)}."
        )
    lines += [
        f"{one.dataset} {one.retriever}: {one.n_unanswered} of {one.n_queries} queries found nothing and count 0."
        for one in evaluations
        if one.n_unanswered
    ]
    return lines


def terminal_table(evaluations: Sequence[Evaluation]) -> Table:
    """The table for a terminal."""
    from rich.table import Table

    headings, rows = table_rows(evaluations)
    table = Table()
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=True)
    for number, row in enumerate(rows):
        last = number + 1 == len(rows) or rows[number + 1][0] != row[0]
        table.add_row(*row, end_section=last)
    return table


def markdown(evaluations: Sequence[Evaluation]) -> str:
    """The table in Markdown, with its notes."""
    headings, rows = table_rows(evaluations)
    lines = [
        "| " + " | ".join(headings) + " |",
        "|" + "|".join("---" if place < 2 else "---:" for place in range(len(headings))) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *notes(evaluations),
    ]
    return "\n".join(lines) + "\n"


def write_reports(folder: Path, evaluations: Sequence[Evaluation]) -> list[Path]:
    """Write results.json and results.md, and for every retriever a TREC run file and per-query values.

    Returns:
        The files written; a retriever's are ``DATASET.SPLIT.RETRIEVER.trec`` and ``.queries.jsonl``.

    Raises:
        ConfigError: an id cannot stand in a run file; the other files are there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results, table = folder / "results.json", folder / "results.md"
    objects = [as_json(one) for one in evaluations]
    results.write_text(json.dumps(objects, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    table.write_text(markdown(evaluations), encoding="utf-8")
    written = [results, table]
    single = [one for one in evaluations if one.parts == 1]
    for one in single:
        path = folder / f"{_stem(one)}.queries.jsonl"
        with path.open("w", encoding="utf-8") as stream:
            for query, values in one.per_query.items():
                stream.write(json.dumps({"query": query, **values}, ensure_ascii=False) + "\n")
        written.append(path)
    for one in single:
        written.append(folder / f"{_stem(one)}.trec")
        write_run(one.run, written[-1], tag=f"tercet-{one.retriever}".replace(" ", "-"))
    return written


def _stem(one: Evaluation) -> str:
    return f"{one.dataset}.{one.split}.{one.retriever}".replace("/", "-").replace(" ", "-")
