"""``tercet search``: hits in the terminal."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexing.command_line import HELP

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

SNIPPET = 320


@click.command("search", context_settings=HELP)
@click.argument("collection", type=click.Path(path_type=Path))
@click.argument("query")
@click.option("-k", "k", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Hits wanted.")
@click.option(
    "--using",
    default="",
    help="bm25, dense, sparse, late, hybrid, NAME or a+b; hybrid where there are several.",
)
@click.option(
    "--rerank",
    metavar="NAME",
    help="Score the best candidates anew: late, minilm, bge, a folder or a Hub name.",
)
@click.option(
    "--query-bank",
    is_flag=True,
    help="Hold back documents that answer too many queries, as the sample queries stored with "
    "`tercet index COLLECTION --query-bank` tell.",
)
@click.option(
    "--filter", "expression", metavar="EXPR", help="Condition on metadata: year >= 2020 and kind = 'a'."
)
@click.option(
    "--depth",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    help="Candidates of each part of a fused search. --rerank rescores the best 100, or k where that is more, "
    "but no more than the depth; the depth is k at least.",
)
@click.option("--explain", is_flag=True, help="Show why each hit scores what it does.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on stdout, as POST /v1/search answers."
)
@click.option("--threads", type=click.IntRange(1), help="Threads of numba, torch, FAISS and OpenMP.")
def search_command(
    collection: Path,
    query: str,
    k: int,
    using: str,
    rerank: str | None,
    query_bank: bool,
    expression: str | None,
    depth: int,
    explain: bool,
    as_json: bool,
    threads: int | None,
) -> None:
    """Search COLLECTION for QUERY ("-" reads it from standard input)."""
    started = time.perf_counter()
    if threads is not None:
        from retrieval.compute import set_threads

        set_threads(threads)
    from indexing.collection import Collection
    from indexing.command_line import reading_options
    from indexing.searching import parse_using
    from service.answers import Wanted, find, to_json

    text = sys.stdin.read().strip() if query == "-" else query
    snapshot = Collection.open(collection).snapshot()
    with reading_options():
        parse_using(snapshot.representations, using)
        allowed = snapshot.filter(expression) if expression and expression.strip() else None
    searcher = snapshot.searcher(using, rerank, query_bank=query_bank)
    analyzer = None
    if not as_json:
        from retrieval.analysis import Analyzer

        analyzer = Analyzer()
    searcher.search(["warm up"], _warm_request())  # loading and compiling are timed apart from searching
    opened = time.perf_counter()
    wanted = Wanted(k=k, depth=depth, allowed=allowed, explain=explain, analyzer=analyzer)
    hits = find(snapshot, searcher, [text], wanted)[0]
    took_ms = (time.perf_counter() - opened) * 1000
    if as_json:
        click.echo(to_json({"results": [{"hits": hits}], "took_ms": round(took_ms, 3)}))
        return
    _show(hits, snapshot.n_documents, took_ms, opened - started)


def _warm_request() -> Any:
    from retrieval.protocols import SearchRequest

    return SearchRequest(k=1)


def _show(hits: list[dict[str, Any]], n_documents: int, took_ms: float, opening_s: float) -> None:
    """Print hits for people: the best words marked, scores at the right, timings below."""
    from rich.console import Console

    console = Console(highlight=False)
    for rank, hit in enumerate(hits, 1):
        _show_hit(console, rank, hit)
    found = (
        f"{len(hits)} of {n_documents:,} documents" if hits else f"nothing found in {n_documents:,} documents"
    )
    console.print(f"[dim]{found} · {took_ms:.1f} ms search · {opening_s:.2f} s to open[/dim]")


def _show_hit(console: Console, rank: int, hit: dict[str, Any]) -> None:
    from rich.text import Text

    spans = hit["highlights"]
    heading = Text(f"{rank:>2}  ", style="dim")
    heading.append_text(_marked(hit["title"] or hit["id"], spans["title"] if hit["title"] else [], "bold"))
    heading.append(f"  {hit['score']:.4f}", style="cyan")
    if hit["title"]:
        heading.append(f"  {hit['id']}", style="dim")
    console.print(heading)
    start, end = snippet_bounds(hit["text"], spans["text"])
    body = _marked(hit["text"], spans["text"], "")[start:end]
    if end < len(hit["text"]):
        body.append(" …")
    body = Text("… ").append_text(body) if start > 0 else body
    body = Text(" ").join(part for part in body.split() if part.plain.strip())
    console.print(_indented(body))
    if hit["metadata"]:
        facts = "  ".join(f"{name}={value}" for name, value in hit["metadata"].items() if value is not None)
        console.print(_indented(Text(facts, style="dim")))
    if "explanation" in hit:
        console.print(_indented(_tree(hit["explanation"])))
    console.print()


def _indented(what: Text | Tree) -> Any:
    from rich.padding import Padding

    return Padding(what, (0, 0, 0, 4))


def _marked(text: str, spans: list[tuple[int, int]], style: str) -> Text:
    from rich.text import Text

    marked = Text(text, style=style)
    for start, end in spans:
        marked.stylize("bold yellow", start, end)
    return marked


def snippet_bounds(text: str, spans: list[tuple[int, int]]) -> tuple[int, int]:
    """The window of about 320 characters that holds the most marked words, cut at spaces."""
    if len(text) <= SNIPPET:
        return 0, len(text)
    start = 0
    if spans:
        best = max(
            spans, key=lambda span: sum(span[0] <= a and b <= span[0] + SNIPPET - 60 for a, b in spans)
        )
        start = max(0, min(best[0] - 60, len(text) - SNIPPET))
    end = start + SNIPPET
    if start > 0:
        start = text.find(" ", start, start + 30) + 1 or start
    if end < len(text):
        space = text.rfind(" ", end - 30, end)
        end = space if space > 0 else end
    return start, end


def _tree(part: dict[str, Any]) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    label = Text(f"{part['value']:.4f} ", style="cyan")
    label.append(part["label"], style="default")
    for name, value in part.get("facts", {}).items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        label.append(f"  {name} {shown}", style="dim")
    tree = Tree(label, guide_style="dim")
    for child in part.get("parts", []):
        tree.children.append(_tree(child))
    return tree
