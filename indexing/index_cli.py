"""`tercet index`: a new collection of a corpus, or a further representation or index of a collection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexing.cli_options import (
    CORPUS_FIELDS,
    DUPLICATES,
    JSON,
    MEMORY,
    OWN_MODELS,
    QUIET,
    RESTART,
    corpus_options,
    encoder_options,
    encoding_given,
    memory_bytes,
    models_given,
    named_values,
    open_source,
    show,
    show_report,
)
from indexing.command_line import HELP, reading_options, refuse_given
from retrieval.errors import ConfigError

if TYPE_CHECKING:
    from indexing.commit import Representation
    from indexing.options import RepresentationOptions

_ANALYSIS = ("language", "fields")
_ONLY_FOR = {
    "bm25": _ANALYSIS,
    "dense": ("model", "encoder_option"),
    **{name: (f"{name}_model", f"{name}_option") for name in OWN_MODELS},
}
"""Representation -> the parameters of this command that say how it is encoded."""
_ENCODING = tuple(parameter for parameters in _ONLY_FOR.values() for parameter in parameters)


@click.command("index", context_settings=HELP)
@click.argument("corpus")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the new collection.")
@click.option(
    "--with",
    "with_",
    metavar="NAMES",
    help="Representations, comma separated, each NAME or NAME:KIND (bm25, dense, dense:hnsw, sparse, late, late:fde, "
    "slim, multivariate, hypencoder); of several kinds of one NAME all are built and the first is searched by "
    "default.  [default: bm25,dense]",
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
@encoder_options
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
    "-p",
    "--parameter",
    multiple=True,
    metavar="NAME=VALUE",
    help="With --add: index parameter; with --query-bank: beta or k (repeatable).",
)
@click.option(
    "--query-bank",
    type=click.Path(path_type=Path),
    help="Give the existing collection CORPUS names sample queries, JSONL with text or one a line, against documents "
    "that answer too many queries; `tercet search --query-bank` uses them.",
)
@click.option(
    "--using",
    default="dense",
    show_default=True,
    metavar="NAME",
    help="With --query-bank: the representation.",
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
    query_bank: Path | None,
    using: str,
    on_duplicate: str,
    memory: str,
    restart: bool,
    as_json: bool,
    quiet: bool,
    **fields_and_encoders: Any,
) -> None:
    """Make a collection of CORPUS.

    CORPUS is JSONL (.gz, .zst), CSV, Parquet, a BEIR folder, a folder of .txt/.md, or the name python-docs.

    A build that was interrupted resumes when the same command is run again.

    \b
      tercet index corpus.jsonl -o my-collection
      tercet index notes/ -o my-notes --with bm25
      tercet index my-collection --add dense:hnsw
      tercet index my-collection --add sparse --sparse-model naver/splade-v3
      tercet index my-collection --add late
      tercet index my-collection --query-bank queries.jsonl
    """  # noqa: D301 - click looks for the control character
    from indexing.progress import progress_bars

    if query_bank is not None:
        _store_bank(Path(corpus), query_bank, using, parameter, as_json, quiet)
        return
    refuse_given(("using",), "goes with --query-bank")
    given = _Encoding(
        {"dense": model, **models_given(fields_and_encoders)},
        {
            "bm25": _analysis(language, fields),
            "dense": named_values(encoder_option, "--encoder-option"),
            **encoding_given(fields_and_encoders),
        },
    )
    if add is not None:
        from indexing.adding import add_representation
        from indexing.corpora import read_vectors

        options = _to_add(Path(corpus), add, given, parameter, stored=vectors is not None)
        budget, stored = memory_bytes(memory), None if vectors is None else read_vectors(vectors)
        with progress_bars(quiet=quiet) as progress:
            add_representation(
                corpus, options, vectors=stored, memory_bytes=budget, restart=restart, progress=progress
            )
        name = f"{options.name}-{options.indexes[0].kind}"
        show({"added": name}, as_json, f"added {name} to {corpus}")
        return
    refuse_given(("vectors", "parameter"), "goes with --add")
    if output is None:
        raise click.UsageError("say where the collection goes: -o FOLDER")
    from indexing.builder import build_collection
    from indexing.chunking import Chunking
    from indexing.options import BuildOptions, WriteOptions, options_from_file

    source = open_source(corpus, **{name: fields_and_encoders[name] for name in CORPUS_FIELDS})
    writing = WriteOptions(on_duplicate, memory_bytes(memory), restart=restart)
    if config is not None:
        refuse_given(("with_", *_ENCODING), "has no effect with --config; write it into that file")
        representations = options_from_file(config)
    else:
        representations = _representations(with_, given)
    with reading_options():
        chunking = Chunking.default() if chunk is None else Chunking.parse(chunk)
        built = BuildOptions(representations, chunking, writing)
    with progress_bars(quiet=quiet) as progress:
        report = build_collection(source, output, built, progress)
    show_report(report, as_json)


def _store_bank(
    collection: Path, queries: Path, using: str, parameter: tuple[str, ...], as_json: bool, quiet: bool
) -> None:
    """What --query-bank asks for."""
    from dataclasses import asdict

    from indexing.progress import progress_bars
    from indexing.query_banks import store_query_bank
    from indexing.query_texts import read_queries

    building = ("output", "with_", "config", "chunk", "add", "vectors", "on_duplicate", "memory", "restart")
    why = "has no effect with --query-bank, which only stores queries"
    refuse_given((*building, *_ENCODING, *CORPUS_FIELDS), why)
    parameters = named_values(parameter, "--parameter")
    with progress_bars(quiet=quiet) as progress:
        stored = store_query_bank(collection, using, read_queries(queries), parameters, progress)
    judged = stored.hubness
    lines = [f"stored {stored.queries:,} queries as the query bank of {using} in {collection}"]
    if stored.left_out:
        lines.append(f"  {stored.left_out:,} more were left out, evenly spaced")
    lines.append(
        f"  their first {judged.k} hits: {judged.hubs:.1%} of the rows take {judged.hub_hits:.1%} of them, "
        f"{judged.anti_hubs:.1%} take none; skewness {judged.skewness:.2f}, Robin Hood index {judged.robin_hood:.2f}"
    )
    show(asdict(stored), as_json, "\n".join(lines))


def _analysis(language: str | None, fields: str | None) -> dict[str, Any]:
    """Options of BM25's encoder."""
    options: dict[str, Any] = {}
    if language is not None:
        options["language"] = language
    if fields is not None:
        options["fields"] = [name.strip() for name in fields.split(",")]
    return options


@dataclass(frozen=True)
class _Encoding:
    """How to encode, as the options say.

    Attributes:
        models: by representation, what --model, --sparse-model and so on name; those that are not given left out.
        options: of the encoder, by representation.
    """

    models: Mapping[str, str]
    options: Mapping[str, Mapping[str, Any]]


def _representations(with_: str | None, given: _Encoding) -> tuple[RepresentationOptions, ...]:
    """What --with asks for; several indexes of one representation become one with all of them."""
    from indexing.options import DEFAULT_REPRESENTATIONS, merge_representations, representation_options

    parts = []
    with reading_options():
        for text in (with_ or ",".join(DEFAULT_REPRESENTATIONS)).split(","):
            name = text.strip().partition(":")[0]
            parts.append(
                representation_options(text.strip(), given.models.get(name), given.options.get(name))
            )
        merged = merge_representations(parts)
    for name, options in _ONLY_FOR.items():
        if name not in (part.name for part in merged):
            refuse_given(options, f"is for {name}, which --with leaves out")
    return merged


def _to_add(
    collection: Path,
    add: str,
    given: _Encoding,
    parameter: tuple[str, ...],
    *,
    stored: bool,
) -> RepresentationOptions:
    """What --add asks for, checked against what the collection has."""
    from indexing.assembly import index_spec
    from indexing.commit import read_commit
    from indexing.options import RepresentationOptions, default_kind

    refuse_given(
        ("output", "with_", "config", "chunk", "on_duplicate", *CORPUS_FIELDS),
        "has no effect with --add, which works on what the collection holds",
    )
    name, _, kind = add.partition(":")
    known = read_commit(collection).representations.get(name)
    if known is not None and not kind and not stored:
        raise ConfigError(f"{collection} already has {name!r}; name an index kind to add: --add {name}:KIND")
    with reading_options():
        encoder = _encoder_to_add(name, known, given)
        spec = index_spec(kind or default_kind(encoder), named_values(parameter, "--parameter"))
        return RepresentationOptions(name, encoder, (spec,))


def _encoder_to_add(name: str, known: Representation | None, given: _Encoding) -> Mapping[str, Any]:
    from indexing.options import KNOWN_REPRESENTATIONS

    if known is not None:
        refuse_given(_ENCODING, f"has no effect: {name!r} is there, and its stored vectors are indexed")
        return known.encoder
    like = _like(name, given)
    options = given.options[like]
    if like == "bm25":
        refuse_given(
            _foreign(like, keep="encoder_option"), f"has no effect: {name!r} is a BM25 representation"
        )
        options = {**given.options["dense"], **options}
    else:
        refuse_given(
            _ANALYSIS, f"has no effect: {name!r} is no BM25 representation; those have names like bm25-german"
        )
        refuse_given(_foreign(like), f"has no effect: {name!r} is a {like} representation")
    return KNOWN_REPRESENTATIONS[like].encoder(like, given.models.get(like), options)


def _like(name: str, given: _Encoding) -> str:
    """The known representation a new one is encoded like: whose name it begins with, or whose model is given."""
    return next(
        (known for known in _ONLY_FOR if name.startswith(known)),
        next((known for known in OWN_MODELS if known in given.models), "dense"),
    )


def _foreign(like: str, keep: str = "") -> list[str]:
    """The parameters that say how others are encoded."""
    return [parameter for parameter in _ENCODING if parameter not in (*_ONLY_FOR[like], keep)]
