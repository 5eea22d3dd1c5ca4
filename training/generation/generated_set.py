"""Generated queries as a training set: each is answered by the documents that it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import polars as pl

from indexing.documents import id_hash
from indexing.progress import Progress
from retrieval.errors import ConfigError, unknown_name
from retrieval.values import Document
from training.examples.lists import PAIRS, lists_of
from training.examples.training_set import TEXTS, TrainingSet
from training.generation.generator import Answer, GeneratorOptions
from training.generation.refusals import Refusals
from training.generation.table import GENERATORS, open_generator

FROM_TEXTS = ("keywords", "crops")
"""Generators that need neither a model nor titles, which a training set does not know apart from texts."""


def generated_set(
    data: TrainingSet, name: str, per_document: int, seed: int, progress: Progress
) -> TrainingSet:
    """A set over the same documents with queries made of them instead of those it has.

    Args:
        data: whose documents.
        name: in ``FROM_TEXTS``.
        per_document: queries of each document, some of which may be refused (see ``Refusals``).
        seed: of every choice.
        progress: hears how many documents are done.

    Raises:
        ConfigError: another name, or no query is left.
    """
    if name not in GENERATORS:
        raise unknown_name("generator", name, GENERATORS)
    if name not in FROM_TEXTS:
        raise ConfigError(
            f"data.generated: {name!r} is none of {', '.join(FROM_TEXTS)}; other queries are made beforehand, by "
            f"`tercet generate CORPUS -o FOLDER --with {name}`, and FOLDER is the source"
        )
    documents = _Texts(data.documents)
    options = GeneratorOptions(per_document=per_document, seed=seed)
    generator = open_generator(name, options, documents, progress)
    progress.start(f"make {name}", data.documents.height, "documents")
    return with_queries(
        data.name, data.documents, _counted(generator.generate(documents), progress), Refusals()
    )


def with_queries(
    name: str, documents: pl.DataFrame, answers: Iterable[tuple[int, Answer]], refusals: Refusals
) -> TrainingSet:
    """A set of the queries that are not refused; one that several documents gave is answered by all of them.

    Args:
        name: of the set.
        documents: of the set.
        answers: each with the row of its document.
        refusals: judges and counts.

    Raises:
        ConfigError: no query is left.
    """
    ids: list[str] = []
    texts: list[str] = []
    rows: dict[int, int] = {}  # hash of a query's words -> its row
    pairs: list[tuple[int, int]] = []
    for document, answer in answers:
        for one in refusals.kept(answer):
            row = rows.setdefault(id_hash(one.plain), len(rows))
            pairs.append((row, document))
            if row == len(ids):
                ids.append(f"{answer.document.id}-{one.number}")
                texts.append(one.text)
    if not ids:
        raise ConfigError(f"{name}: no query is left; {refusals.described() or 'no document gave any'}")
    judged = pl.DataFrame(pairs, schema=["query", "document"], orient="row").with_columns(
        label=1.0, score=None
    )
    lists = lists_of(judged.cast(PAIRS))
    return TrainingSet(name, pl.DataFrame({"id": ids, "text": texts}, schema=TEXTS), documents, lists)


def _counted(answers: Iterable[Answer], progress: Progress) -> Iterator[tuple[int, Answer]]:
    """Answers in the order of the documents, each with its row."""
    for row, answer in enumerate(answers):
        progress.advance(1)
        yield row, answer


@dataclass(frozen=True)
class _Texts:
    """The documents of a table (``TEXTS``); can be read any number of times."""

    table: pl.DataFrame

    def __iter__(self) -> Iterator[Document]:
        for id_, text in self.table.iter_rows():
            yield Document(id_, text)
