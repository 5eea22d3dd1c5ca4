"""``tercet serve``: the HTTP API and the search page over one collection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexing.command_line import HELP

if TYPE_CHECKING:
    from service.settings import Settings


@click.command("serve", context_settings=HELP)
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("--host", help="Address to listen on; 127.0.0.1 by default: reachable from this machine only.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port, 8000 by default; 0 takes a free one.")
@click.option("--using", help="What a search uses when it does not say: hybrid, bm25, dense, NAME, a+b.")
@click.option(
    "--rerank",
    multiple=True,
    metavar="NAME",
    help="Offer a reranker: late, minilm, bge, a folder or a Hub name; may be repeated.",
)
@click.option("--max-queue", type=click.IntRange(0), help="Searches that may wait; one more is answered 503.")
@click.option("--workers", type=click.IntRange(1), help="Searches that run at once.")
@click.option("--max-batch", type=click.IntRange(1), help="Queries encoded together at most.")
@click.option("--max-body-bytes", type=click.IntRange(1), help="Longest request body.")
@click.option("--drain", type=click.FloatRange(0), help="Seconds running requests get at shutdown.")
@click.option("--threads", type=click.IntRange(1), help="Threads of numba, torch, FAISS and OpenMP.")
def serve_command(collection: Path, threads: int | None, **options: object) -> None:
    """Serve COLLECTION: a search page at /, the API at /v1/search, its reference at /docs.

    New commits of the collection are picked up while the server runs. Every option can also be given
    as an environment variable: TERCET_ and its name, such as TERCET_MAX_QUEUE; TERCET_RERANK holds names
    separated by commas.
    """
    if threads is not None:
        from retrieval.compute import set_threads

        set_threads(threads)
    from indexing.collection import Collection
    from indexing.command_line import reading_options
    from indexing.searching import parse_using

    representations = Collection.open(collection).commit().representations
    with reading_options():
        given = {name: value for name, value in options.items() if value not in (None, ())}
        settings = read_settings(collection, **given)
        parse_using(representations, settings.using or "")
    serve(settings)


def read_settings(collection: Path, **options: object) -> Settings:
    """The settings of a server: options, fields of ``Settings``, before variables.

    Raises:
        ConfigError: one has an impossible value; names the option or the variable.
    """
    from pydantic import ValidationError

    from retrieval.errors import ConfigError
    from service.settings import Settings

    try:
        return Settings(collection=collection, **options)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        where = f"--{name.replace('_', '-')}" if name in options else f"TERCET_{name.upper()}"
        raise ConfigError(f"{where}: {first['msg']}, got {first['input']!r}") from error


def serve(settings: Settings) -> None:
    """Serve a collection until interrupted, and say where.

    Raises:
        TercetError: the collection or the address cannot be used.
    """
    from service import server

    def announce(url: str) -> None:
        click.echo(f"Tercet serves {settings.collection} at {url} (Ctrl+C ends it)", err=True)

    server.serve(settings, announce)
