"""The verbs that make and tend collections: index, add, delete, compact, verify, info, tune, upgrade, encode, warm.

python -m indexing index corpus.jsonl -o my-collection
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import click

from indexing.cli_options import (
    COLLECTION,
    CORPUS_FIELDS,
    DUPLICATES,
    JSON,
    MEMORY,
    QUIET,
    RESTART,
    corpus_options,
    memory_bytes,
    named_values,
    open_source,
    show,
    show_report,
)
from indexing.command_line import HELP, reading_options, refuse_given
from indexing.index_cli import index_command
from indexing.tune_cli import tune_command


@click.command("add", context_settings=HELP)
@COLLECTION
@click.argument("corpus")
@click.option(
    "--metadata-only", is_flag=True, help="CORPUS is JSONL with _id and fields to change; nothing is encoded."
)
@DUPLICATES
@MEMORY
@RESTART
@corpus_options
@JSON
@QUIET
def add_command(
    collection: Path,
    corpus: str,
    metadata_only: bool,
    on_duplicate: str,
    memory: str,
    restart: bool,
    as_json: bool,
    quiet: bool,
    **corpus_fields: Any,
) -> None:
    """Add the documents of CORPUS to COLLECTION as a new segment (or change metadata only)."""
    if metadata_only:
        from indexing.corpora.fields import FieldNames
        from indexing.metadata_update import update_metadata

        unused = {*CORPUS_FIELDS, "on_duplicate", "memory", "restart"} - {"id_field", "ignore_fields"}
        refuse_given(unused, "has no effect with --metadata-only, which reads JSONL and encodes nothing")
        names = FieldNames(id=corpus_fields["id_field"], ignore=corpus_fields["ignore_fields"])
        count = update_metadata(collection, corpus, names)
        show({"updated": count}, as_json, f"changed the metadata of {count:,} documents")
        return
    from indexing.builder import add_documents
    from indexing.options import WriteOptions
    from indexing.progress import progress_bars

    options = WriteOptions(on_duplicate, memory_bytes(memory), restart=restart)
    source = open_source(corpus, **corpus_fields)
    with progress_bars(quiet=quiet) as progress:
        report = add_documents(source, collection, options, progress)
    show_report(report, as_json)


@click.command("delete", context_settings=HELP)
@COLLECTION
@click.argument("ids", nargs=-1)
@click.option("--ids-from", type=click.File("rb"), help="File with an id a line; - reads stdin.")
@click.option("--where", metavar="EXPR", help="Delete what satisfies a filter expression.")
@click.option("--ignore-missing", is_flag=True, help="Ids that are not there are no error.")
@JSON
def delete_command(
    collection: Path,
    ids: tuple[str, ...],
    ids_from: IO[bytes] | None,
    where: str | None,
    ignore_missing: bool,
    as_json: bool,
) -> None:
    """Delete documents by id or by filter, in one commit."""
    from indexing.deleting import delete_documents, read_ids

    wanted = [*ids, *(read_ids(ids_from, ids_from.name) if ids_from else ())]
    if not wanted and where is None:
        raise click.UsageError("name ids, --ids-from or --where")
    count = delete_documents(collection, wanted, where, ignore_missing=ignore_missing)
    show({"deleted": count}, as_json, f"deleted {count:,} documents")


@click.command("compact", context_settings=HELP)
@COLLECTION
@MEMORY
@RESTART
@JSON
@QUIET
def compact_command(collection: Path, memory: str, restart: bool, as_json: bool, quiet: bool) -> None:
    """Merge all segments into one and drop deleted rows; nothing is encoded again."""
    from indexing.compaction import compact
    from indexing.progress import progress_bars

    budget = memory_bytes(memory)
    with progress_bars(quiet=quiet) as progress:
        changed = compact(collection, memory_bytes=budget, restart=restart, progress=progress)
    show(
        {"compacted": changed},
        as_json,
        "compacted" if changed else "nothing to do: one segment, no deleted rows",
    )


@click.command("verify", context_settings=HELP)
@COLLECTION
@JSON
@QUIET
def verify_command(collection: Path, as_json: bool, quiet: bool) -> int:
    """Read every stored byte and hold it against its checksum."""
    from indexing.progress import progress_bars
    from indexing.verification import verify

    with progress_bars(quiet=quiet) as progress:
        result = verify(collection, progress)
    facts = {"components": result.components, "bytes": result.n_bytes, "problems": list(result.problems)}
    sound = f"{result.components} components, {result.n_bytes:,} bytes: sound"
    show(facts, as_json, "\n".join(result.problems) or sound)
    return 1 if result.problems else 0


@click.command("info", context_settings=HELP)
@COLLECTION
@JSON
def info_command(collection: Path, as_json: bool) -> None:
    """What a collection holds: documents, representations, fields, bytes."""
    from indexing.collection import Collection

    facts = Collection.open(collection).snapshot().info()
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(
        f"{facts['path']}  (commit {facts['commit']}, format {facts['format']}, made {facts['created']})"
    )
    click.echo(f"  source       {facts['source']}")
    click.echo(
        f"  documents    {facts['documents']:,}  rows {facts['rows']:,}"
        + (f"  deleted rows {facts['deleted_rows']:,}" if facts["deleted_rows"] else "")
        + f"  segments {facts['segments']}  chunking {facts['chunking']}"
    )
    for name, part in facts["representations"].items():
        encoder = part["encoder"]
        kinds = "; ".join(
            f"{spec['kind']} {json.dumps(spec['parameters'])}" if spec["parameters"] else spec["kind"]
            for spec in part["indexes"]
        )
        click.echo(f"  {name:<12} {encoder['family']} {encoder['model']}  indexes: {kinds}")
        for spec in part["indexes"]:
            if spec["measured"]:
                click.echo(f"  {'':<12} {name}-{spec['kind']} {_measured(spec['measured'])}")
    fields = ", ".join(f"{name} ({kind})" for name, kind in facts["fields"].items())
    click.echo(f"  fields       {fields or 'none'}")
    for component, n_bytes in facts["bytes"].items():
        click.echo(f"  {component:<24} {n_bytes:>15,} bytes")
    click.echo(f"  {'total':<24} {facts['total_bytes']:>15,} bytes")
    if facts["unfinished_builds"]:
        click.echo(
            f"  {facts['unfinished_builds']} interrupted write(s) can be resumed by repeating the command"
        )


def _measured(facts: dict[str, Any]) -> str:
    """What `tercet tune` measured of an index."""
    kinds = {
        "given": "queries",
        "crops": "pseudo-queries from texts",
        "vectors": "pseudo-queries from vectors",
    }
    return (
        f"measured: recall@{facts['k']} {facts['recall']:.4f} (at least {facts['recall_at_least']:.4f}, asked "
        f"{facts['target']:g}), {facts['p50_ms']:.3f} ms, 95% {facts['p95_ms']:.3f} ms on {facts['threads']} threads, "
        f"{facts['memory_bytes'] / 1e6:,.1f} MB; {facts['queries']:,} {kinds[facts['kind_of_queries']]}, "
        f"{facts['rows']:,} rows, {facts['date']}"
    )


@click.command("upgrade", context_settings=HELP)
@COLLECTION
@JSON
def upgrade_command(collection: Path, as_json: bool) -> None:
    """Rewrite a collection of an older format version in the current one."""
    from indexing.upgrading import upgrade

    before, after = upgrade(collection)
    text = f"format {after}: up to date" if before == after else f"upgraded from format {before} to {after}"
    show({"before": before, "after": after}, as_json, text)


@click.command("encode", context_settings=HELP)
@click.argument("input", metavar="INPUT")
@click.option("-m", "--model", default="default", show_default=True, help="Encoder, as for `tercet index`.")
@click.option(
    "--encoder-option", multiple=True, metavar="NAME=VALUE", help="Option of the encoder (repeatable)."
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The .npy file to write."
)
@click.option("--queries", is_flag=True, help="Encode the texts as queries, not as documents.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT where it exists.")
@corpus_options
@JSON
@QUIET
def encode_command(
    input: str,  # noqa: A002 - the name of the argument on the command line
    model: str,
    encoder_option: tuple[str, ...],
    output: Path,
    queries: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    **corpus_fields: Any,
) -> None:
    """Encode the texts of INPUT into a .npy of dense vectors, one row a text, in order."""
    from indexing.encoding import encode_corpus
    from indexing.options import encoder_spec
    from indexing.progress import progress_bars

    source = open_source(input, **corpus_fields)
    with reading_options():
        spec = encoder_spec(model, named_values(encoder_option, "--encoder-option"))
    with progress_bars(quiet=quiet) as progress:
        report = encode_corpus(source, spec, output, queries=queries, overwrite=overwrite, progress=progress)
    text = f"{report.rows:,} x {report.dim} -> {output}"
    if report.truncated:
        text += f"  ({report.truncated:,} texts were longer than the encoder reads and were cut)"
    show({**vars(report), "path": str(output)}, as_json, text)


@click.command("warm", context_settings=HELP)
@click.argument("collection", required=False, type=click.Path(path_type=Path))
@JSON
def warm_command(collection: Path | None, as_json: bool) -> None:
    """Compile every kernel once, so that no later command waits for it; with COLLECTION, read its files too."""
    from indexing.warming import warm

    seconds = warm(collection)
    show(seconds, as_json, "\n".join(f"{name:<20} {value:6.2f} s" for name, value in seconds.items()))


COMMANDS = (
    index_command,
    add_command,
    delete_command,
    compact_command,
    verify_command,
    info_command,
    tune_command,
    upgrade_command,
    encode_command,
    warm_command,
)
"""The verbs of this package, in the order help lists them."""
