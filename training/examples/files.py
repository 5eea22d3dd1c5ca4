"""JSON Lines and Parquet files of pairs, triples and scored lists."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from eval.text_lines import lines
from indexing.corpora.fields import described
from indexing.corpora.formats import EXTENSIONS
from indexing.corpora.jsonl import parsed
from indexing.corpora.lines import COMPRESSIONS
from indexing.parquet_faults import reading_parquet
from indexing.progress import Progress
from retrieval.errors import FormatError
from training.examples.fields import Judged, Line, is_known
from training.examples.lists import PAIRS
from training.examples.staging import BATCH_CHARACTERS, StagedTexts

_SLICE = 8192  # rows of a Parquet file that are Python objects at once
_READERS = ("jsonl", "parquet")


def read_file(
    path: Path, folder: Path, progress: Progress
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """A file as queries, documents and pairs of them; a text that occurs again is the same query or document.

    Texts pass through Arrow files in the folder, so memory holds a batch of them and a few numbers for each pair.

    Args:
        path: ``.jsonl`` or ``.ndjson``, each also ``.gz`` or ``.zst``; ``.parquet`` or ``.pq``.
        folder: an empty one, which may be removed afterwards.
        progress: hears how many lines are read.

    Raises:
        FormatError: names file and line (in Parquet the row).
    """
    judged = _parquet_lines(path) if _format(path) == "parquet" else _json_lines(path)
    queries, documents = StagedTexts(folder / "queries"), StagedTexts(folder / "documents")
    pairs = [_staged(batch, queries, documents) for batch in _batches(judged, progress)]
    distinct_queries, query_rows = queries.distinct()
    distinct_documents, document_rows = documents.distinct()
    staged = pl.concat([pl.DataFrame(schema=PAIRS), *pairs])
    numbered = staged.with_columns(
        query=query_rows.gather(staged["query"]), document=document_rows.gather(staged["document"])
    )
    return distinct_queries, distinct_documents, numbered


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    found = EXTENSIONS.get(suffixes[-1] if suffixes else "")
    if found not in _READERS:
        raise FormatError(
            "no training set; needed is a folder in BEIR's form, or a file of pairs, triples or scored lists that "
            "ends in .jsonl (also .jsonl.gz, .jsonl.zst) or .parquet",
            path,
        )
    return found


def _json_lines(path: Path) -> Iterator[Judged]:
    for number, line in lines(path):
        if not line.lstrip().startswith("{"):
            raise FormatError(
                f'{described(line)}, is no JSON object; every line is one with "query" and its documents',
                path,
                number,
            )
        yield Line(parsed(line.encode(), str(path), number), str(path), number).judged()


def _parquet_lines(path: Path) -> Iterator[Judged]:
    with reading_parquet(partial(_unreadable, path)):
        names = [name for name in pl.read_parquet_schema(path) if is_known(name)]
        n_rows = pl.scan_parquet(path).select(pl.len()).collect().item()
    for begin in range(0, n_rows, _SLICE):
        with reading_parquet(partial(_unreadable, path)):
            part = pl.scan_parquet(path).select(names).slice(begin, _SLICE).collect()
        for number, values in enumerate(part.iter_rows(named=True), begin + 1):
            yield Line(values, str(path), number).judged()


def _unreadable(path: Path, reason: str) -> FormatError:
    return FormatError(f"not a complete Parquet file ({reason}); write or copy it again", path)


def _batches(judged: Iterator[Judged], progress: Progress) -> Iterator[list[Judged]]:
    batch: list[Judged] = []
    characters = 0
    for line in judged:
        batch.append(line)
        characters += len(line.query) + sum(map(len, line.documents))
        if characters >= BATCH_CHARACTERS:
            yield batch
            progress.advance(len(batch))
            batch, characters = [], 0
    if batch:
        yield batch
        progress.advance(len(batch))


def _staged(batch: list[Judged], queries: StagedTexts, documents: StagedTexts) -> pl.DataFrame:
    lengths = [len(line.documents) for line in batch]
    return pl.DataFrame(
        {
            "query": np.repeat(queries.append_distinct([line.query for line in batch]), lengths),
            "document": documents.append_distinct([text for line in batch for text in line.documents]),
            "label": [label for line in batch for label in line.labels],
            "score": [score for line in batch for score in line.scores or [math.nan] * len(line.documents)],
        },
        schema=PAIRS,
    ).with_columns(pl.col("score").fill_nan(None))  # what was read is finite
