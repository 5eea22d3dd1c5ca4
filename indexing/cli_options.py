"""Options that several verbs of this package share, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from indexing.command_line import reading_options

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
OWN_MODELS = {
    "sparse": "Learned-sparse encoder: a SparseEncoder folder or Hub id, such as naver/splade-v3.  "
    "[default: default-sparse, which comes with Tercet]",
    "late": "Encoder of a vector a token: a folder or Hub id.  [default: the dense default]",
    "slim": "Encoder of a sparse vector a token: a masked language model's folder or Hub id.",
    "multivariate": "Encoder of a mean and a variance a dimension: the folder of a model trained so.",
    "hypencoder": "Encoder of a network a query: the folder of a model trained so.",
}
"""Representation with options of its own for its encoder -> help of the one that names the model."""
CORPUS_FIELDS = ("format_", "id_field", "title_field", "text_field", "ignore_fields")
"""The parameters that ``corpus_options`` adds."""


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


def encoder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--NAME-model`` and ``--NAME-option`` of every representation that has its own."""
    for name in reversed(OWN_MODELS):
        command = click.option(
            f"--{name}-option",
            multiple=True,
            metavar="NAME=VALUE",
            help=f"Option of the {name} encoder (repeatable).",
        )(command)
        command = click.option(f"--{name}-model", help=OWN_MODELS[name])(command)
    return command


def models_given(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Representation -> model, of what ``encoder_options`` were given."""
    named = {name: parameters[f"{name}_model"] for name in OWN_MODELS}
    return {name: model for name, model in named.items() if model is not None}


def encoding_given(parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Representation -> options of its encoder, of what ``encoder_options`` were given."""
    return {name: named_values(parameters[f"{name}_option"], f"--{name}-option") for name in OWN_MODELS}


def open_source(path: str, *, format_: str | None, **fields: Any) -> Any:
    """The corpus of a path, read as ``corpus_options`` say."""
    from indexing.corpora import open_corpus

    with reading_options():
        return open_corpus(path, format=format_, **fields)


def memory_bytes(text: str) -> int:
    """What ``MEMORY`` allows."""
    from indexing.options import parse_memory

    with reading_options():
        return parse_memory(text)


def named_values(pairs: tuple[str, ...], option: str) -> dict[str, Any]:
    """Name -> value of a repeatable NAME=VALUE option; values are JSON, else strings."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint=option)
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values


def show(facts: Any, as_json: bool, text: str) -> None:
    """Print a verb's result for machines or for people."""
    click.echo(json.dumps(facts) if as_json else text)


def show_report(report: Any, as_json: bool) -> None:
    """Print what a build or an addition did."""
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
    show(facts, as_json, "\n".join(lines))
