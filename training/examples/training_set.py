"""One training set: queries, documents and, for each query, the documents that are judged or scored for it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from indexing.durable import open_manifest, write_manifest
from retrieval.errors import ConfigError, CorruptError
from training.examples.mapped import map_frame

TEXTS = pl.Schema([("id", pl.String), ("text", pl.String)])
"""Columns of queries and of documents."""
LISTS = pl.Schema(
    [
        ("query", pl.UInt32),
        ("documents", pl.List(pl.UInt32)),
        ("labels", pl.List(pl.Float32)),
        ("scores", pl.List(pl.Float32)),
    ]
)
"""Columns of lists."""

_SLICE = 1 << 16  # rows that are hashed at once; part of what a fingerprint means
_FRAMES = ("queries", "documents", "lists")


@dataclass(frozen=True, eq=False)  # tables have no one truth value to compare by
class TrainingSet:
    """Queries with their lists of documents; a row is a place in ``queries`` or ``documents``.

    Attributes:
        name: of the data set.
        queries: ``id`` and ``text``.
        documents: ``id`` and ``text``, title and text joined as encoders see them. Memory-mapped where the set was read
            or opened from files.
        lists: one for each query, in the order of the queries: ``query`` (its row), ``documents`` (rows),
            ``labels`` (judgements; 0 is a negative) and ``scores`` (a teacher's, one for each document; null where
            there are none). What answers the query comes first, and something always does.

    Raises:
        ConfigError: columns, lengths, rows or the order of labels are not as above.
    """

    name: str
    queries: pl.DataFrame
    documents: pl.DataFrame
    lists: pl.DataFrame

    def __post_init__(self) -> None:
        for what, frame, schema in (
            ("queries", self.queries, TEXTS),
            ("documents", self.documents, TEXTS),
            ("lists", self.lists, LISTS),
        ):
            if frame.schema != schema:
                raise ConfigError(f"{self.name}: {what} have columns {frame.schema}; needed are {schema}")
        _check_lists(self)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all ids, texts and lists; the name does not count."""
        digest = hashlib.sha256()
        for frame in (self.queries, self.documents, self.lists):
            digest.update(f"{frame.height}\n".encode())
            for part in frame.iter_slices(_SLICE):
                for column in part.iter_columns():
                    _hash_column(digest, column)
        return digest.hexdigest()

    def select(self, rows: Sequence[int] | NDArray[np.integer]) -> TrainingSet:
        """The queries of these rows in this order, over the same documents."""
        chosen = pl.Series(np.asarray(rows, dtype=np.uint32))
        lists = self.lists[chosen].with_columns(query=pl.int_range(len(chosen), dtype=pl.UInt32))
        return replace(self, queries=self.queries[chosen], lists=lists)

    def save(self, folder: Path) -> None:
        """Write the set to a folder as Arrow IPC files, then a manifest with their checksums.

        Raises:
            ConfigError: the folder exists.
        """
        if folder.exists():
            raise ConfigError(f"{folder} exists already; remove it or choose another folder")
        folder.mkdir(parents=True)
        for what in _FRAMES:
            getattr(self, what).write_ipc(folder / f"{what}.arrow")
        write_manifest(folder, {"kind": "training-set", "name": self.name})


def open_training_set(folder: Path) -> TrainingSet:
    """What ``save`` wrote; texts are mapped, not read.

    Raises:
        CorruptError: a file is missing, cut short or changed.
    """
    manifest = open_manifest(folder)
    if manifest.get("kind") != "training-set":
        raise CorruptError(folder, f"holds {manifest.get('kind')!r}, no training set")
    return TrainingSet(manifest["name"], *(map_frame(folder / f"{what}.arrow") for what in _FRAMES))


def _check_lists(data: TrainingSet) -> None:
    """The rules that ``TrainingSet`` states of its lists."""
    lists, numbers = data.lists, pl.int_range(data.queries.height, dtype=pl.UInt32, eager=True)
    answers = lists["labels"].list.eval(pl.element() > 0)
    lengths = lists["documents"].list.len()
    last: Any = lists["documents"].list.max().max()
    rules = {
        "a list for each query, in their order": lists["query"].equals(numbers),
        "documents that exist": last is None or last < data.documents.height,
        "each document once": lengths.equals(lists["documents"].list.n_unique()),
        "a label for each document": lengths.equals(lists["labels"].list.len()),
        "what answers the query first": answers.equals(answers.list.sort(descending=True))
        and answers.list.first().fill_null(False).all(),
        # Both are null, and so no fault, where a list has no scores.
        "a score for each document": (lengths == lists["scores"].list.len()).all(),
        "finite scores": lists["scores"].list.eval(pl.element().is_finite()).list.all().all(),
    }
    for rule, holds in rules.items():
        if not holds:
            raise ConfigError(f"{data.name}: the lists do not have {rule}")


def _hash_column(digest: hashlib._Hash, column: pl.Series) -> None:
    """Lengths first, so that ("ab", "c") is not ("a", "bc"); the same on every machine."""
    if column.dtype == pl.String:
        lengths, values = column.str.len_bytes(), "".join(column.to_list()).encode()
    elif isinstance(column.dtype, pl.List):
        lengths, values = (
            column.list.len(),
            column.explode(empty_as_null=False).drop_nulls().to_numpy().tobytes(),
        )
    else:
        lengths, values = pl.Series([column.len()]), column.to_numpy().tobytes()
    digest.update(lengths.cast(pl.Int64).fill_null(-1).to_numpy().astype("<i8").tobytes())
    digest.update(values)
