"""The verbs that make and tend collections: index, add, delete, compact, verify, info, upgrade, encode, warm.

python -m indexing index corpus.jsonl -o my-collection
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from retrieval.errors import ConfigError

COLLECTION = click.argument("collection", type=click.Path(path_type=Path))
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print machine-readable JSON on stdout and nothing else."
)
QUIET = click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
MEMORY = click.option(
    "--memory", default="512MB", show_default=True, help="What an index build may hold in memory."
)
DUPLICATES = click.option(
    "--on-duplicate",
    type=click.Choice(["error", "replace", "skip"]),
    default="error",
    show_default=True,
    help="What a repeated document id means: an error, the later wins, or the earlier wins.",
)
RESTART = click.option("--restart", is_flag=True, help="Forget an interrupted run instead of resuming it.")


def corpus_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How a corpus is read, the same for every verb that reads one."""
    for option in (
        click.option(
            "--format", "format_", metavar="NAME", help="Corpus format, where the file name does not tell it."
        ),
        click.option("--id-field", metavar="NAME", help="Column that holds the document id."),
        click.option("--title-field", metavar="NAME", help="Column that holds the title."),
        click.option("--text-field", metavar="NAME", help="Column that holds the text."),
        click.option(
            "--ignore-field",
            "ignore_fields",
            multiple=True,
            metavar="NAME",
            help="Field that is not to become metadata (repeatable).",
        ),
    ):
        command = option(command)
    return command


def _corpus(path: str, *, format_: str | None, **fields: Any) -> Any:
    from indexing.corpora import open_corpus

    return open_corpus(path, format=format_, **fields)


def _echo(facts: Any, as_json: bool, text: str) -> None:
    click.echo(json.dumps(facts) if as_json else text)


def _encoder_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--encoder-option")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


@click.command("index")
@click.argument("corpus")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the new collection.")
@click.option(
    "--with",
    "with_",
    metavar="NAMES",
    help="Representations, comma separated, each NAME or NAME:KIND (bm25, dense, dense:hnsw).  [default: bm25,dense]",
)
@click.option(
    "-m",
    "--model",
    default="default",
    show_default=True,
    help="Dense encoder: a sentence-transformers folder or Hub id, 'hashing:256', or 'endpoint:MODEL'.",
)
@click.option(
    "--encoder-option", multiple=True, metavar="NAME=VALUE", help="Option of the dense encoder (repeatable)."
)
@click.option("--language", help="Language of BM25's analysis (english, german, ...).  [default: english]")
@click.option(
    "--fields", help="BM25 fields, comma separated: contents (title and text as one), or title,text."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="collection.toml with representations, instead of --with.",
)
@click.option(
    "--chunk",
    default=None,
    metavar="none|WORDS/OVERLAP",
    help="Split long documents at sentence ends.  [default: fits the default encoder's 256 tokens]",
)
@click.option(
    "--add",
    metavar="NAME[:KIND]",
    help="Add a representation or index to the existing collection CORPUS names.",
)
@click.option(
    "--vectors",
    type=click.Path(path_type=Path),
    help="With --add: stored vectors (.npy) instead of encoding.",
)
@click.option(
    "-p", "--parameter", multiple=True, metavar="NAME=VALUE", help="With --add: index parameter (repeatable)."
)
@DUPLICATES
@MEMORY
@RESTART
@corpus_options
@JSON
@QUIET
def index_command(
    corpus: str,
    output: Path | None,
    with_: str | None,
    model: str,
    encoder_option: tuple[str, ...],
    language: str | None,
    fields: str | None,
    config: Path | None,
    chunk: str | None,
    add: str | None,
    vectors: Path | None,
    parameter: tuple[str, ...],
    on_duplicate: str,
    memory: str,
    restart: bool,
    as_json: bool,
    quiet: bool,
    **corpus_fields: Any,
) -> None:
    r"""Make a collection of CORPUS.

    CORPUS is JSONL (.gz, .zst), CSV, Parquet, a BEIR folder, a folder of .txt/.md, or the name python-docs.

    A build that was interrupted resumes when the same command is run again.

    \b
      tercet index corpus.jsonl -o my-collection
      tercet index notes/ -o my-notes --with bm25
      tercet index my-collection --add dense:hnsw
    """
    from indexing.chunking import Chunking
    from indexing.options import BuildOptions, WriteOptions, parse_memory
    from indexing.progress import progress_bars

    if add is not None:
        _add_to(Path(corpus), add, model, encoder_option, vectors, parameter, memory, as_json, quiet)
        return
    if output is None:
        raise click.UsageError("say where the collection goes: -o FOLDER")
    source = _corpus(corpus, **corpus_fields)
    representations = _representations(with_, model, encoder_option, language, fields, config)
    options = BuildOptions(
        representations,
        Chunking.default() if chunk is None else Chunking.parse(chunk),
        WriteOptions(on_duplicate, parse_memory(memory), restart=restart),
    )
    from indexing.builder import build_collection

    with progress_bars(quiet=quiet) as progress:
        report = build_collection(source, output, options, progress)
    _report(report, as_json)


def _representations(
    with_: str | None,
    model: str,
    encoder_option: tuple[str, ...],
    language: str | None,
    fields: str | None,
    config: Path | None,
) -> tuple[Any, ...]:
    from indexing.options import DEFAULT_REPRESENTATIONS, options_from_file, representation_options

    if config is not None:
        if with_ is not None:
            raise click.UsageError("--config already names the representations; leave --with out")
        return options_from_file(config)
    dense = _encoder_options(encoder_option)
    analysis: dict[str, Any] = {}
    if language:
        analysis["language"] = language
    if fields:
        analysis["fields"] = [name.strip() for name in fields.split(",")]
    names = [name.strip() for name in (with_ or ",".join(DEFAULT_REPRESENTATIONS)).split(",")]
    return tuple(
        representation_options(
            name, dense_model=model, options=analysis if name.partition(":")[0] == "bm25" else dense
        )
        for name in names
    )


def _add_to(
    collection: Path,
    add: str,
    model: str,
    encoder_option: tuple[str, ...],
    vectors: Path | None,
    parameter: tuple[str, ...],
    memory: str,
    as_json: bool,
    quiet: bool,
) -> None:
    from indexing.adding import add_representation
    from indexing.assembly import index_spec
    from indexing.commit import read_commit
    from indexing.corpora import read_vectors
    from indexing.options import RepresentationOptions, encoder_spec, parse_memory
    from indexing.progress import progress_bars

    name, _, kind = add.partition(":")
    known = read_commit(collection).representations
    if name in known and not kind and vectors is None:
        raise ConfigError(f"{collection} already has {name!r}; name an index kind to add: --add {name}:hnsw")
    terms = (name in known and known[name].value == "terms") or (
        name not in known and name.startswith("bm25")
    )
    encoder = (
        {"family": "terms", "model": "", "options": _encoder_options(encoder_option)}
        if terms
        else encoder_spec(model, _encoder_options(encoder_option))
    )
    spec = index_spec(kind or ("bm25" if terms else "flat"), _encoder_options(parameter))
    stored = None if vectors is None else read_vectors(vectors)
    with progress_bars(quiet=quiet) as progress:
        add_representation(
            collection,
            RepresentationOptions(name, encoder, (spec,)),
            vectors=stored,
            memory_bytes=parse_memory(memory),
            progress=progress,
        )
    _echo({"added": f"{name}-{spec.kind}"}, as_json, f"added {name}-{spec.kind} to {collection}")


def _report(report: Any, as_json: bool) -> None:
    facts = {**vars(report), "path": str(report.path)}
    lines = [
        f"{report.n_documents:,} documents ({report.n_rows:,} rows) in {report.seconds:.1f} s -> {report.path}"
    ]
    if report.resumed_documents:
        lines.append(f"  {report.resumed_documents:,} of them were encoded by the earlier, interrupted run")
    for count, what in (
        (report.replaced, "replaced an earlier document of the same id"),
        (report.skipped, "skipped, their id was there already"),
        (report.empty, "without title and text"),
    ):
        if count:
            lines.append(f"  {count:,} {what}")
    for name, count in report.truncated.items():
        lines.append(
            f"  {count:,} texts were longer than the {name} encoder reads and were cut (see --chunk)"
        )
    _echo(facts, as_json, "\n".join(lines))


@click.command("add")
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
        from indexing.metadata_update import update_metadata

        count = update_metadata(collection, corpus)
        _echo({"updated": count}, as_json, f"changed the metadata of {count:,} documents")
        return
    from indexing.builder import add_documents
    from indexing.options import WriteOptions, parse_memory
    from indexing.progress import progress_bars

    source = _corpus(corpus, **corpus_fields)
    with progress_bars(quiet=quiet) as progress:
        report = add_documents(
            source, collection, WriteOptions(on_duplicate, parse_memory(memory), restart=restart), progress
        )
    _report(report, as_json)


@click.command("delete")
@COLLECTION
@click.argument("ids", nargs=-1)
@click.option(
    "--ids-from", type=click.File("r", encoding="utf-8"), help="File with an id a line; - reads stdin."
)
@click.option("--where", metavar="EXPR", help="Delete what satisfies a filter expression.")
@click.option("--ignore-missing", is_flag=True, help="Ids that are not there are no error.")
@JSON
def delete_command(
    collection: Path,
    ids: tuple[str, ...],
    ids_from: Any,
    where: str | None,
    ignore_missing: bool,
    as_json: bool,
) -> None:
    """Delete documents by id or by filter, in one commit."""
    from indexing.deleting import delete_documents

    wanted = [*ids, *(line.rstrip("\n") for line in ids_from or () if line.strip())]
    if not wanted and where is None:
        raise click.UsageError("name ids, --ids-from or --where")
    count = delete_documents(collection, wanted, where, ignore_missing=ignore_missing)
    _echo({"deleted": count}, as_json, f"deleted {count:,} documents")


@click.command("compact")
@COLLECTION
@MEMORY
@JSON
@QUIET
def compact_command(collection: Path, memory: str, as_json: bool, quiet: bool) -> None:
    """Merge all segments into one and drop deleted rows; nothing is encoded again."""
    from indexing.compaction import compact
    from indexing.options import parse_memory
    from indexing.progress import progress_bars

    with progress_bars(quiet=quiet) as progress:
        changed = compact(collection, memory_bytes=parse_memory(memory), progress=progress)
    _echo(
        {"compacted": changed},
        as_json,
        "compacted" if changed else "nothing to do: one segment, no deleted rows",
    )


@click.command("verify")
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
    _echo(facts, as_json, "\n".join(result.problems) or sound)
    return 1 if result.problems else 0


@click.command("info")
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
    fields = ", ".join(f"{name} ({kind})" for name, kind in facts["fields"].items())
    click.echo(f"  fields       {fields or 'none'}")
    for component, n_bytes in facts["bytes"].items():
        click.echo(f"  {component:<24} {n_bytes:>15,} bytes")
    click.echo(f"  {'total':<24} {facts['total_bytes']:>15,} bytes")
    if facts["unfinished_builds"]:
        click.echo(
            f"  {facts['unfinished_builds']} interrupted write(s) can be resumed by repeating the command"
        )


@click.command("upgrade")
@COLLECTION
@JSON
def upgrade_command(collection: Path, as_json: bool) -> None:
    """Rewrite a collection of an older format version in the current one."""
    from indexing.upgrading import upgrade

    before, after = upgrade(collection)
    text = f"format {after}: up to date" if before == after else f"upgraded from format {before} to {after}"
    _echo({"before": before, "after": after}, as_json, text)


@click.command("encode")
@click.argument("input", metavar="INPUT")
@click.option("-m", "--model", default="default", show_default=True, help="Encoder, as for `tercet index`.")
@click.option(
    "--encoder-option", multiple=True, metavar="NAME=VALUE", help="Option of the encoder (repeatable)."
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The .npy file to write."
)
@click.option("--queries", is_flag=True, help="Encode the texts as queries, not as documents.")
@corpus_options
@JSON
@QUIET
def encode_command(
    input: str,  # noqa: A002 - the name of the argument on the command line
    model: str,
    encoder_option: tuple[str, ...],
    output: Path,
    queries: bool,
    as_json: bool,
    quiet: bool,
    **corpus_fields: Any,
) -> None:
    """Encode the texts of INPUT into a .npy of dense vectors, one row a text, in order."""
    from indexing.encoding import encode_corpus
    from indexing.options import encoder_spec
    from indexing.progress import progress_bars

    source = _corpus(input, **corpus_fields)
    with progress_bars(quiet=quiet) as progress:
        report = encode_corpus(
            source,
            encoder_spec(model, _encoder_options(encoder_option)),
            output,
            queries=queries,
            progress=progress,
        )
    text = f"{report.rows:,} x {report.dim} -> {output}"
    if report.truncated:
        text += f"  ({report.truncated:,} texts were longer than the encoder reads and were cut)"
    _echo({**vars(report), "path": str(output)}, as_json, text)


@click.command("warm")
@click.argument("collection", required=False, type=click.Path(path_type=Path))
@JSON
def warm_command(collection: Path | None, as_json: bool) -> None:
    """Compile every kernel once, so that no later command waits for it; with COLLECTION, read its files too."""
    from indexing.warming import warm

    seconds = warm(collection)
    _echo(seconds, as_json, "\n".join(f"{name:<20} {value:6.2f} s" for name, value in seconds.items()))


COMMANDS = (
    index_command,
    add_command,
    delete_command,
    compact_command,
    verify_command,
    info_command,
    upgrade_command,
    encode_command,
    warm_command,
)
"""The verbs of this package, in the order help lists them."""
