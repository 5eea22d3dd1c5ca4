"""`tercet demo`: index the documentation of the Python standard library, search it, serve it."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import click

from indexing.command_line import HELP

QUERIES = (
    "how do I remove duplicate whitespace from a string",
    "run a function in another process and get its result",
    "read a compressed archive without extracting it",
)
"""Three questions whose answers share few words with them: what BM25 alone finds hard."""


@click.command("demo", context_settings=HELP)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(".demo/python-docs"),
    show_default=True,
    help="Where the collection is, or goes.",
)
@click.option("--no-serve", is_flag=True, help="Stop after the queries.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
def demo_command(output: Path, no_serve: bool, host: str, port: int) -> None:
    """Index the documentation of Python's standard library, ask three questions, then serve page and API.

    The collection is built once; later runs use it as it is.
    """
    build_once(output)
    ask(output)
    if no_serve:
        click.echo(
            f"\nsearch it yourself:  tercet search {output} 'your question'\nserve it:            make serve"
        )
        return
    from service.serve_cli import read_settings, serve

    click.echo(
        "\nstarting the server: the search page is at the address below, the API's reference at its /docs"
    )
    serve(read_settings(output, host=host, port=port))


def build_once(output: Path) -> None:
    """Build the demo's collection unless it is there."""
    from indexing.commit import COMMIT_FILE

    if (output / COMMIT_FILE).exists():
        click.echo(f"using the collection in {output}")
        return
    from indexing.builder import build_collection
    from indexing.corpora import open_corpus
    from indexing.options import DEFAULT_REPRESENTATIONS, BuildOptions, representation_options
    from indexing.progress import progress_bars

    click.echo(
        "indexing the documentation of the Python standard library with BM25, dense and sparse vectors"
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    names = (*DEFAULT_REPRESENTATIONS, "sparse")
    options = BuildOptions(tuple(representation_options(name) for name in names))
    with progress_bars() as progress:
        report = build_collection(open_corpus("python-docs"), output, options, progress)
    click.echo(
        f"{report.n_documents:,} documents ({report.n_rows:,} rows) in {report.seconds:.0f} s -> {output}"
    )


def ask(path: Path) -> None:
    """Run the demo's queries with every retriever and show the best answers with timings."""
    from indexing.collection import Collection
    from retrieval.protocols import SearchRequest

    snapshot = Collection.open(path).snapshot()
    request = SearchRequest(k=3)
    names = ("bm25", "dense", "sparse", "hybrid")
    searchers = {name: snapshot.searcher(name) for name in names}
    for searcher in searchers.values():  # the first search maps files and loads the model
        searcher.search(["warm up"], request)
    for query in QUERIES:
        click.echo(f"\n{click.style(query, bold=True)}")
        for name, searcher in searchers.items():
            started = perf_counter()
            hits = searcher.search([query], request)
            milliseconds = 1000 * (perf_counter() - started)
            titles = [document.title for document in snapshot.documents(hits.rows[0][hits.rows[0] >= 0])]
            click.echo(f"  {name:<7}{milliseconds:7.1f} ms   {',  '.join(titles)}")
