"""From a corpus to a training set of generated queries: ask, refuse, filter by a round trip, write."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexing.corpora.corpus import Corpus
from indexing.progress import Progress
from retrieval.endpoint import EndpointError
from retrieval.errors import ConfigError
from retrieval.values import Document
from training.examples.beir import read_documents
from training.examples.training_set import TrainingSet
from training.generation.beir_folder import write_corpus, write_queries
from training.generation.generated_set import with_queries
from training.generation.generator import Answer, Generator, GeneratorOptions
from training.generation.journal import Journal, open_journal
from training.generation.refusals import LONGEST, Refusals
from training.generation.round_trip import round_trip
from training.generation.selection import AllDocuments, Selection, select
from training.generation.table import open_generator
from training.mining.searchers import open_search

JOURNAL = "answers.jsonl"


@dataclass(frozen=True)
class Generation:
    """What is asked for.

    Attributes:
        generator: in ``GENERATORS``.
        options: what it is opened with.
        limit: documents that queries are made of, chosen by the seed; None is all.
        longest: words of a query; longer ones are refused.
        round_trip: a searcher (see ``open_search``) that has to find the document of a query; None asks for none.
        top: ranks at which it counts as found.
    """

    generator: str = "keywords"
    options: GeneratorOptions = field(default_factory=GeneratorOptions)
    limit: int | None = None
    longest: int = LONGEST
    round_trip: str | None = None
    top: int = 1


def generate(
    corpus: Corpus, folder: Path, wanted: Generation, *, fresh: bool = False, progress: Progress
) -> dict[str, Any]:
    """Make a training set in BEIR's form: the corpus, queries made of its documents, which document each is of.

    Answers are kept in ``answers.jsonl`` as they come. The same call goes on where an earlier one ended, and makes the
    set anew from the answers where only the choice among them changed (``round_trip``, ``top``, ``longest``) or where
    more documents are wanted.

    Args:
        corpus: of files.
        folder: new, empty, or of an earlier run.
        wanted: how.
        fresh: forget an earlier run's answers.
        progress: hears of every stage.

    Returns:
        What ``generation.json`` holds: besides what was wanted, ``documents`` of the corpus, those ``chosen`` and those
        ``asked`` in this run, ``tokens`` of all answers (``prompt`` and ``completion``), queries ``refused`` by reason
        and ``lost`` on the round trip, ``queries`` that are left, the ``pairs`` they make with documents, ``seconds``
        of this run.

    Raises:
        ConfigError: an option is impossible, the folder holds something else, or no query is left.
        FormatError: the corpus cannot be read; names file and line.
        EndpointError: the endpoint fails; what was answered is kept.
        IncompatibleError: the folder's answers were made by another generator or with other options.
        LockedError: another process generates into the folder.
    """
    started = time.monotonic()
    _check(corpus, folder, wanted)
    selection = select(corpus, wanted.limit, wanted.options.seed, progress)
    generator = open_generator(wanted.generator, wanted.options, AllDocuments(corpus), progress)
    folder.mkdir(parents=True, exist_ok=True)
    refusals, tokens = Refusals(wanted.longest), Counter[str]()
    with open_journal(folder / JOURNAL, generator.facts, fresh=fresh) as journal:
        asked = _ask(generator, selection, journal, progress)
        write_corpus(corpus, folder, with_titles=not generator.takes_title)
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=folder) as temporary:
            progress.start("read documents", selection.n_documents, "documents")
            documents = read_documents(folder, Path(temporary), progress)
            answers = _answers(selection, journal, tokens, progress)
            made = with_queries(corpus.source, documents, answers, refusals)
            kept = _returned(made, wanted, Path(temporary), progress)
            facts = {
                **_facts(selection, generator, wanted),
                "asked": asked,
                "tokens": dict(tokens),
                "refused": dict(refusals.counts),
                "lost": made.queries.height - kept.queries.height,
                "queries": kept.queries.height,
                "pairs": int(kept.lists["documents"].list.len().sum()),
                "seconds": round(time.monotonic() - started, 1),
            }
            write_queries(kept, folder, facts)
    return facts


def _facts(selection: Selection, generator: Generator, wanted: Generation) -> dict[str, Any]:
    """What was asked for."""
    return {
        "corpus": selection.corpus.source,
        "documents": selection.n_documents,
        "chosen": selection.n,
        "limit": wanted.limit,
        "generator": dict(generator.facts),
        "longest": wanted.longest,
        "round_trip": wanted.round_trip,
        "top": wanted.top,
    }


def _check(corpus: Corpus, folder: Path, wanted: Generation) -> None:
    """Refuse what would fail later, or would harm files that are not of an earlier run.

    Raises:
        ConfigError: names it.
    """
    for what, value in (("--limit", wanted.limit), ("--top", wanted.top), ("--longest", wanted.longest)):
        if value is not None and value < 1:
            raise ConfigError(f"{what} is {value}; it must be at least 1")
    if folder.resolve() in Path(corpus.source).resolve().parents:
        raise ConfigError(
            f"{corpus.source} lies in {folder}, which its queries are to be written to; name another"
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder")
    if folder.exists() and not (folder / JOURNAL).exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds something else than generated queries; give a new or empty folder")


def _ask(generator: Generator, selection: Selection, journal: Journal, progress: Progress) -> int:
    """Let the generator answer for every document that has no answer yet; returns how many there were."""
    progress.start("make queries", selection.n, "documents")
    asked = 0

    def missing() -> Iterator[Document]:
        for document in selection:
            if document in journal:
                progress.advance(1)
            else:
                yield document

    try:
        for answer in generator.generate(missing()):
            journal.append(answer)
            progress.advance(1)
            asked += 1
    except EndpointError as error:
        raise EndpointError(
            f"{error}; {len(journal):,} answers are kept, the same command goes on from there"
        ) from error
    return asked


def _answers(
    selection: Selection, journal: Journal, tokens: Counter[str], progress: Progress
) -> Iterator[tuple[int, Answer]]:
    """Every answer with its document's row, in the order of the corpus; tokens are added up."""
    progress.start("collect queries", selection.n, "documents")
    for row, document in selection.with_rows():
        answer = journal.answer(document)
        if answer is not None:
            tokens.update(prompt=answer.prompt_tokens, completion=answer.completion_tokens)
            yield row, answer
        progress.advance(1)


def _returned(made: TrainingSet, wanted: Generation, folder: Path, progress: Progress) -> TrainingSet:
    """The queries that find their document, all of them where no searcher is asked.

    Raises:
        ConfigError: none does.
    """
    if wanted.round_trip is None:
        return made
    search = open_search(wanted.round_trip, made, folder=folder / "search", progress=progress)
    kept = round_trip(made, search, wanted.top)
    if not kept.queries.height:
        raise ConfigError(
            f"none of {made.queries.height:,} queries finds its own document among the first {wanted.top} of "
            f"{wanted.round_trip!r}; raise --top or ask another searcher"
        )
    return kept
