"""``tercet eval``: the scores of retrievers on data sets in BEIR's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexing.cli_options import encoder_options, encoding_given, models_given
from indexing.command_line import HELP

if TYPE_CHECKING:
    from eval.beir import BeirDataset
    from eval.evaluate import Conditions, Evaluation
    from indexing.chunking import Chunking
    from indexing.progress import Progress


@click.command("eval", context_settings=HELP)
@click.argument("datasets", metavar="DATASET...", nargs=-1, required=True)
@click.option(
    "--using",
    default="bm25,dense,hybrid",
    show_default=True,
    help="Retrievers, separated by commas: bm25, dense, dense-hnsw, sparse, late, plaid, fde, slim, "
    "multivariate, hypencoder, hypencoder-graph, hybrid; "
    "a+b fuses two.",
)
@click.option("--split", default="test", show_default=True, help="Judgements: qrels/SPLIT.tsv.")
@click.option("--metrics", default="", help="Further metrics, such as MAP,P@5,Success@1.")
@click.option(
    "-k", "k", type=click.IntRange(1), default=1000, show_default=True, help="Length of the rankings."
)
@click.option(
    "--depth",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Candidates of each part of a hybrid.",
)
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Where data sets lie, by name."
)
@click.option(
    "--collection", type=click.Path(path_type=Path), help="Search this collection instead of building one."
)
@click.option(
    "--query-bank",
    is_flag=True,
    help="With --collection: measure retrievers also with their query bank (see `tercet index --query-bank`).",
)
@click.option(
    "--run",
    "runs",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Measure a TREC run file; may be repeated.",
)
@click.option(
    "--encoder",
    default="default",
    show_default=True,
    help="Dense encoder: default, a folder, a Hub id, FAMILY:MODEL.",
)
@encoder_options
@click.option(
    "--chunk",
    "chunk",
    metavar="none|WORDS/OVERLAP",
    default="none",
    show_default=True,
    help="Split long documents as `tercet index` does (default there: 150/30); a document counts by its best chunk.",
)
@click.option(
    "--drop-self/--keep-self",
    default=None,
    help="Drop a query's own document; as the data set asks by default.",
)
@click.option(
    "--timed-queries",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    help="Queries timed one by one.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the timed sample and the significance test."
)
@click.option(
    "-o",
    "output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write run files, per-query values, results here.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a retriever on stdout, and nothing else there."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
def command(
    datasets: Sequence[str],
    using: str,
    split: str,
    metrics: str,
    k: int,
    depth: int,
    data_dir: Path | None,
    collection: Path | None,
    query_bank: bool,
    runs: Sequence[Path],
    encoder: str,
    chunk: str,
    drop_self: bool | None,
    timed_queries: int,
    seed: int,
    output: Path | None,
    as_json: bool,
    quiet: bool,
    **encoders: Any,
) -> None:
    """Measure retrievers on DATASET: a folder in BEIR's form or a BEIR name.

    A name is looked up under --data-dir and TERCET_DATA, then in the cache, then downloaded. nDCG@10,
    Recall@100 and MRR@10 are always computed; --metrics adds nDCG@k, Recall@k, MRR@k, MAP, MAP@k, P@k and
    Success@k for any k.
    """
    from eval.beir import open_datasets, override_self
    from eval.evaluate import Conditions, group_mean
    from eval.metrics import DEFAULT_METRICS, parse_metrics
    from indexing.chunking import Chunking
    from indexing.command_line import reading_options, refuse_given
    from indexing.progress import progress_bars

    if collection is None or runs:
        refuse_given(("query_bank",), "goes with --collection, whose query bank it uses")
    if collection is not None or runs:
        refuse_given(
            ("encoder", "chunk", *encoders),
            "has no effect with --collection or --run, which are encoded already",
        )
    with reading_options():
        wanted = parse_metrics([*DEFAULT_METRICS, *_names(metrics)])
    models = {"dense": encoder, **models_given(encoders)}
    with reading_options():
        options = encoding_given(encoders)
        chunking = Chunking.parse(chunk)
    conditions = Conditions(metrics=wanted, k=k, depth=depth, timed_queries=timed_queries, seed=seed)
    evaluations: list[Evaluation] = []
    with progress_bars(quiet=quiet) as progress:
        groups = [open_datasets(name, split, data_dir, progress) for name in datasets]
        if (collection or runs) and sum(map(len, groups)) > 1:
            raise click.UsageError("--collection and --run belong to one data set; name a single one")
        for name, group in zip(datasets, groups, strict=True):
            found = [
                _evaluate(
                    override_self(dataset, drop_self),
                    _names(using),
                    models,
                    options,
                    collection,
                    runs,
                    conditions,
                    progress,
                    chunking=chunking,
                    query_bank=query_bank,
                )
                for dataset in group
            ]
            evaluations += [one for part in found for one in part]
            if len(group) > 1:
                evaluations += [group_mean(Path(name).name, same) for same in zip(*found, strict=True)]
    _show(evaluations, as_json)
    if output is not None:
        from eval.report import write_reports

        written = write_reports(output, evaluations)
        click.echo(f"{len(written)} files written to {output}", err=True)


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _evaluate(
    dataset: BeirDataset,
    using: Sequence[str],
    models: Mapping[str, str],
    options: Mapping[str, Mapping[str, Any]],
    collection: Path | None,
    runs: Sequence[Path],
    conditions: Conditions,
    progress: Progress,
    *,
    chunking: Chunking,
    query_bank: bool,
) -> list[Evaluation]:
    from eval.collection_cache import cached_collection, open_retrievers, required_representations
    from eval.evaluate import evaluate, evaluate_run, with_p_values
    from eval.runs import read_run
    from indexing.command_line import reading_options

    with reading_options():  # a wrong split or retriever shows before anything is built
        dataset.qrels()
        if not runs and collection is None:
            required_representations(using, models, options)
    if runs:
        return with_p_values([evaluate_run(dataset, read_run(path), path.name, conditions) for path in runs])
    if collection is not None:
        _check_collection(collection, dataset, using)
    path = collection or cached_collection(dataset, using, models, options, progress, chunking=chunking)
    return evaluate(dataset, open_retrievers(path, using, query_bank=query_bank), conditions, progress)


def _check_collection(path: Path, dataset: BeirDataset, using: Sequence[str]) -> None:
    """Refuse a collection that cannot answer or is of other documents; warn where some of them are missing."""
    from eval.collection_cache import missing_documents
    from indexing.collection import Collection
    from indexing.command_line import reading_options
    from indexing.searching import parse_using

    snapshot = Collection.open(path).snapshot()
    if not using:
        raise click.UsageError("no retriever given; name at least one, such as --using bm25,dense,hybrid")
    with reading_options():
        for name in using:
            parse_using(snapshot.representations, name)
    missing, judged = missing_documents(snapshot, dataset)
    if missing:
        click.echo(
            f"tercet: warning: {path} lacks {missing:,} of the {judged:,} documents that {dataset.name} "
            f"judges ({missing / judged:.1%}); they count as not found",
            err=True,
        )


def _show(evaluations: Sequence[Evaluation], as_json: bool) -> None:
    from eval import report

    if as_json:
        import json

        for one in evaluations:
            click.echo(json.dumps(report.as_json(one), ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    if console.width < 100 and not console.is_terminal:
        console = Console(width=200)  # a pipe has no width of its own; cut cells would be lost numbers
    console.print(report.terminal_table(evaluations))
    for line in report.notes(evaluations):
        click.echo(line)


COMMANDS = (command,)
