"""``tercet serve``: the HTTP API and the search page over one collection."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("serve")
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("--host", help="Address to listen on; 127.0.0.1 by default: reachable from this machine only.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port, 8000 by default; 0 takes a free one.")
@click.option("--using", help="What a search uses when it does not say: hybrid, bm25, dense, NAME, a+b.")
@click.option(
    "--rerank", "rerankers", multiple=True, metavar="NAME", help="Offer a reranker; may be repeated."
)
@click.option("--max-queue", type=click.IntRange(0), help="Searches that may wait; one more is answered 503.")
@click.option("--workers", type=click.IntRange(1), help="Searches that run at once.")
@click.option("--max-batch", type=click.IntRange(1), help="Queries encoded together at most.")
@click.option("--max-body-bytes", type=click.IntRange(1), help="Longest request body.")
@click.option(
    "--drain", "drain_s", type=click.FloatRange(0), help="Seconds running requests get at shutdown."
)
@click.option("--threads", type=click.IntRange(1), help="Threads of numba, torch, FAISS and OpenMP.")
def serve_command(
    collection: Path, threads: int | None, rerankers: tuple[str, ...], **options: object
) -> None:
    """Serve COLLECTION: a search page at /, the API at /v1/search, its reference at /docs.

    New commits of the collection are picked up while the server runs. Every option can also be given
    as an environment variable, such as TERCET_PORT.
    """
    if threads is not None:
        from retrieval.compute import set_threads

        set_threads(threads)
    given = {name: value for name, value in options.items() if value is not None}
    if rerankers:
        given["rerankers"] = rerankers
    serve(collection, **given)


def serve(collection: Path, **options: object) -> None:
    """Serve a collection until interrupted; options are fields of ``service.settings.Settings``.

    Raises:
        TercetError: an option, the collection or the address cannot be used.
    """
    from pydantic import ValidationError

    from retrieval.errors import ConfigError
    from service import server
    from service.settings import Settings

    try:
        settings = Settings(collection=collection, **options)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"setting {first['loc'][0]}: {first['msg']}, got {first['input']!r}") from error
    server.serve(
        settings, lambda url: click.echo(f"Tercet serves {collection} at {url} (Ctrl+C ends it)", err=True)
    )
