"""Training sets in BEIR's form: a corpus, queries and judgements of one split or all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from eval.beir import BeirDataset
from indexing.corpora import open_corpus
from indexing.progress import Progress
from retrieval.errors import ConfigError, FormatError
from training.examples.lists import PAIRS
from training.examples.staging import BATCH_CHARACTERS, StagedTexts
from training.examples.training_set import TEXTS


def read_beir(
    source: Path, split: str | None, folder: Path, progress: Progress
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """A folder in BEIR's form as queries, documents and pairs of them, unscored; judgements below 0 count as 0.

    Args:
        source: holds corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv.
        split: whose judgements; None takes those of all splits.
        folder: an empty one for Arrow files, which may be removed afterwards.
        progress: hears how many documents are read.

    Raises:
        FormatError: names file and line; also when a judged document or query is missing.
        ConfigError: there are no judgements, or not of this split.
    """
    splits = [split] if split else BeirDataset(source.name, source).splits()
    if not splits:
        raise ConfigError(f"{source}: no qrels/*.tsv there; training needs judged queries")
    documents = read_documents(source, folder, progress)
    texts: dict[str, str] = {}
    judged: list[tuple[str, str, int]] = []
    for name in splits:
        dataset = BeirDataset(source.name, source, name)
        texts |= {query.id: query.text for query in dataset.queries()}
        judged += _judgements(dataset)
    queries = pl.DataFrame({"id": list(texts), "text": list(texts.values())}, schema=TEXTS)
    pairs = pl.DataFrame(judged, schema=["query", "document", "label"], orient="row")
    return queries, documents, _with_rows(pairs, queries, documents, source)


def read_documents(source: Path, folder: Path, progress: Progress) -> pl.DataFrame:
    """Every document of a corpus in order, title and text joined, mapped.

    Args:
        source: a corpus file or a folder with one.
        folder: an empty one for Arrow files, which may be removed afterwards.
        progress: hears how many are read.

    Raises:
        FormatError: names file and line; also when an id occurs twice.
    """
    staged = StagedTexts(folder / "documents")
    for ids, texts in _batches(source):
        staged.append(ids, texts)
        progress.advance(len(ids))
    documents = staged.all()
    repeated = documents.lazy().group_by("id").len().filter(pl.col("len") > 1).select("id").collect()
    if repeated.height:
        raise FormatError(f"the id {repeated['id'].min()!r} stands there twice; ids are unique", source)
    return documents


def _batches(source: Path) -> Iterator[tuple[list[str], list[str]]]:
    ids: list[str] = []
    texts: list[str] = []
    characters = 0
    for record in open_corpus(source).read():
        ids.append(record.document.id)
        texts.append(record.document.contents())
        characters += len(texts[-1])
        if characters >= BATCH_CHARACTERS:
            yield ids, texts
            ids, texts, characters = [], [], 0
    if ids:
        yield ids, texts


def _judgements(dataset: BeirDataset) -> Iterator[tuple[str, str, int]]:
    for query, judged in dataset.qrels().items():
        for document, judgement in judged.items():
            yield query, document, max(0, judgement)


def _with_rows(
    pairs: pl.DataFrame, queries: pl.DataFrame, documents: pl.DataFrame, source: Path
) -> pl.DataFrame:
    """Ids replaced by rows."""
    numbered = [
        frame.select(pl.col("id").alias(name)).with_row_index(f"{name}_row")
        for name, frame in (("query", queries), ("document", documents))
    ]
    found = pairs.join(numbered[0], on="query", maintain_order="left").join(
        numbered[1], on="document", how="left", maintain_order="left"
    )
    missing = found.filter(pl.col("document_row").is_null())
    if missing.height:
        raise FormatError(
            f"{missing.height} judged documents are not in the corpus, such as {missing['document'].min()!r} "
            f"of query {missing['query'][0]!r}",
            source,
        )
    unscored = pl.lit(None, dtype=pl.Float32)
    label = pl.col("label").cast(pl.Float32)
    return found.select(query="query_row", document="document_row", label=label, score=unscored).select(
        PAIRS.names()
    )
