"""``tercet generate``: a training set out of documents alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from indexing.cli_options import CORPUS_FIELDS, JSON, QUIET, corpus_options, open_source, show
from indexing.command_line import HELP, refuse_given
from training.generation.cli_options import generator_options, language_model_options, refuse_useless


@click.command("generate", context_settings=HELP)
@click.argument("corpus")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the training set; new, or of an earlier run, which is gone on with.",
)
@click.option(
    "--with",
    "generator",
    default="keywords",
    show_default=True,
    metavar="NAME",
    help="keywords: telling words of the document. crops: its sentences and runs of 3 to 12 words. titles: its title, "
    "which is taken off the document. endpoint: a language model behind an OpenAI-compatible server. local: one on "
    "this machine.",
)
@click.option(
    "--per-document", type=click.IntRange(1), default=2, show_default=True, help="Queries of a document."
)
@click.option("--limit", type=click.IntRange(1), help="Documents, chosen by the seed.  [default: all]")
@click.option(
    "--round-trip",
    metavar="SEARCHER",
    help="Keep a query only if this finds its document: bm25, dense, sparse, late, hybrid, each also NAME:MODEL "
    "(such as dense:FOLDER), or the folder of a collection.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="With --round-trip: ranks that count as found.",
)
@click.option(
    "--longest",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Words of a query; longer ones are refused.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of every choice.")
@click.option(
    "--resume/--fresh",
    default=True,
    show_default=True,
    help="Keep the answers of an earlier run in the folder, or forget them.",
)
@language_model_options
@corpus_options
@click.option("--threads", type=click.IntRange(1), help="Threads of models and searches.")
@JSON
@QUIET
def generate_command(
    corpus: str,
    output: Path,
    generator: str,
    per_document: int,
    limit: int | None,
    round_trip: str | None,
    top: int,
    longest: int,
    seed: int,
    resume: bool,
    threads: int | None,
    as_json: bool,
    quiet: bool,
    **others: Any,
) -> None:
    """Make queries of the documents of CORPUS, and with them a training set that `tercet train` reads.

    The folder is in BEIR's form: the corpus, queries.jsonl and qrels/train.tsv, where each query is answered by the
    documents it was made of. generation.json says how they came about, what was refused and what it cost.

    Language models are asked as in Promptagator: a few examples of the task, a document, sampling at temperature 0.7,
    and --round-trip to keep only queries that find their document again. Answers are kept in answers.jsonl as they
    come. A run that was stopped goes on by the same command; with another --round-trip, --top or --longest, or a
    greater --limit, the set is made anew from the answers that are there.

    \b
      tercet generate corpus.jsonl -o train/mine
      tercet generate corpus.jsonl -o train/mine --with crops --round-trip bm25 --top 10
      tercet generate corpus.jsonl -o train/mine --with endpoint --url http://localhost:8000/v1 --model NAME \\
          --examples examples.jsonl --per-document 8 --round-trip dense
    """  # noqa: D301 - click looks for the control character
    from indexing.progress import progress_bars
    from training.generation.generating import Generation, generate

    if threads is not None:
        from retrieval.compute import set_threads

        set_threads(threads)
    refuse_useless(generator)
    if round_trip is None:
        refuse_given(("top",), "goes with --round-trip")
    source = open_source(corpus, **{name: others[name] for name in CORPUS_FIELDS})
    options = generator_options(others, per_document, seed)
    wanted = Generation(generator, options, limit, longest, round_trip, top)
    with progress_bars(quiet=quiet) as progress:
        facts = generate(source, output, wanted, fresh=not resume, progress=progress)
    show(facts, as_json, _described(facts, output))


def _described(facts: Mapping[str, Any], output: Path) -> str:
    lines = [
        f"{facts['queries']:,} queries of {facts['chosen']:,} documents in {facts['seconds']:,.1f} s -> {output}"
    ]
    if facts["asked"] < facts["chosen"]:
        lines.append(f"  {facts['chosen'] - facts['asked']:,} documents were answered by an earlier run")
    lines += [f"  {count:,} queries refused: {reason}" for reason, count in facts["refused"].items()]
    if facts["round_trip"]:
        lines.append(
            f"  {facts['lost']:,} queries lost: their document is not among the first {facts['top']} of "
            f"{facts['round_trip']}"
        )
    if any(facts["tokens"].values()):
        lines.append(
            f"  {facts['tokens']['prompt']:,} tokens read and {facts['tokens']['completion']:,} written by the model"
        )
    return "\n".join(lines)
