"""Training sets from whatever they are kept in, checked and put into one form."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from indexing.corpora.formats import EXTENSIONS
from indexing.corpora.lines import COMPRESSIONS
from indexing.durable import MANIFEST
from indexing.progress import Progress, Silent
from retrieval.errors import ConfigError
from training.examples.beir import read_beir, read_documents
from training.examples.files import read_file
from training.examples.lists import lists_of
from training.examples.training_set import LISTS, TEXTS, TrainingSet, open_training_set
from training.recipe.options import DataOptions


def read_training_sets(
    options: Sequence[DataOptions], root: Path, seed: int, progress: Progress
) -> list[TrainingSet]:
    """The sets of a recipe; one whose queries are to be generated has documents alone, and its source is a corpus.

    Args:
        options: where they are, and how many queries of each are used.
        root: where relative paths start.
        seed: of the choice of queries.
        progress: hears how many lines are read, and notes.

    Raises:
        ConfigError: there is no such source, or nothing to train on in it.
        FormatError: names file and line.
    """
    sets = []
    for one in options:
        source = _found(one.source, root)
        if one.generated is None:
            data = read_training_set(source, one.split, progress)
        else:
            data = read_unasked(source, progress)
        sets.append(data if one.limit is None else limited(data, one.limit, seed))
    return sets


def read_training_set(
    source: Path, split: str | None = None, progress: Progress | None = None
) -> TrainingSet:
    """One training set, read in bounded memory; its texts stay in a file that is mapped and vanishes with the set.

    Sources are: a folder in BEIR's form; a folder that ``TrainingSet.save`` wrote; a JSONL or Parquet file with, in
    each line, a query (``query``, ``anchor`` or ``question``) and

    - what answers it and what does not (``positive``, ``pos``, ``document`` or ``answer``; ``negative``, ``neg`` or
      ``negative_1``, ``negative_2`` …), each a text or several; a ``label`` beside a ``document`` judges it; or
    - ``documents`` with ``labels``, ``scores`` or both; where there are scores alone, the best of them is the answer.

    ``scores`` (or ``pos_scores`` and ``neg_scores``) are a teacher's. Lines of one query make one list, and a text that
    stands in several lines is one document, whose id is a hash of it. Queries that nothing answers are left out.

    Args:
        source: file or folder.
        split: of BEIR's judgements; None takes those of all splits.
        progress: hears how many lines are read, and how many queries are left out.

    Raises:
        ConfigError: no query has a document that answers it, or a split is asked of what has none.
        FormatError: names file and line.
    """
    progress = progress or Silent()
    saved = (source / MANIFEST).is_file()
    is_beir = source.is_dir() and not saved
    if split is not None and not is_beir:
        raise ConfigError(f"{source} has no splits; leave split = {split!r} out")
    if saved:
        return open_training_set(source)
    progress.start(f"reading {source.name}", None, "lines")
    with tempfile.TemporaryDirectory(prefix="tercet-") as temporary:
        folder = Path(temporary)
        queries, documents, pairs = (
            read_beir(source, split, folder, progress) if is_beir else read_file(source, folder, progress)
        )
        lists = lists_of(pairs)
        if not lists.height:
            raise ConfigError(
                f"{source}: none of its {queries.height} queries has a document that answers it (label above 0); "
                "there is nothing to train on"
            )
        if left_out := queries.height - lists.height:
            progress.note(f"{source.name}: {left_out:,} queries without an answer are left out")
        numbers = pl.int_range(lists.height, dtype=pl.UInt32)
        return TrainingSet(
            _name(source), queries[lists["query"]], documents, lists.with_columns(query=numbers)
        )


def read_unasked(source: Path, progress: Progress) -> TrainingSet:
    """The documents of a corpus, a file or a folder, as a set without any query.

    Raises:
        FormatError: names file and line.
    """
    progress.start(f"reading {source.name}", None, "documents")
    with tempfile.TemporaryDirectory(prefix="tercet-") as folder:
        documents = read_documents(source, Path(folder), progress)
        return TrainingSet(_name(source), pl.DataFrame(schema=TEXTS), documents, pl.DataFrame(schema=LISTS))


def limited(data: TrainingSet, n_queries: int, seed: int) -> TrainingSet:
    """So many of the queries at most, chosen by the seed, in their order and over all documents."""
    if n_queries >= data.queries.height:
        return data
    rows = np.random.default_rng(seed).choice(data.queries.height, n_queries, replace=False)
    return data.select(np.sort(rows))


def joined(sets: Sequence[TrainingSet]) -> TrainingSet:
    """All sets as one, each id behind the name of its set; equal texts of two sets stay two documents."""
    queries, documents = pl.DataFrame(schema=TEXTS), pl.DataFrame(schema=TEXTS)
    lists = pl.DataFrame(schema=LISTS)
    for one in sets:
        moved = one.lists.with_columns(
            pl.col("query") + queries.height, pl.col("documents").list.eval(pl.element() + documents.height)
        )
        lists = pl.concat([lists, moved], rechunk=False)
        queries = pl.concat([queries, _renamed(one.queries, one.name)], rechunk=False)
        documents = pl.concat([documents, _renamed(one.documents, one.name)], rechunk=False)
    return TrainingSet("+".join(one.name for one in sets), queries, documents, lists)


def _renamed(texts: pl.DataFrame, name: str) -> pl.DataFrame:
    return texts.with_columns(id=f"{name}/" + pl.col("id"))


def _name(source: Path) -> str:
    """The folder's name, or the file's without what its format is called."""
    path = source.resolve()
    if path.is_dir():
        return path.name
    while path.suffix.lower() in (*EXTENSIONS, *COMPRESSIONS):
        path = path.with_suffix("")
    return path.name


def _found(source: str, root: Path) -> Path:
    path = root / source
    if source and path.exists():
        return path
    near = difflib.get_close_matches(source, [entry.name for entry in root.glob("*")], n=1)
    meant = (
        f"; did you mean {near[0]!r}?" if near else "; relative paths start at --data or $TERCET_DATA/train"
    )
    raise ConfigError(f"data.source: no file or folder {source!r} in {root}{meant}")
