"""A file of scores as a teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from indexing.durable import checksum
from indexing.progress import Progress
from retrieval.errors import FormatError, IncompatibleError
from training.examples.training_set import TrainingSet
from training.teachers.pairs import pair_keys
from training.teachers.teacher import Scorer

_SCAN: dict[str, Callable[[Path], pl.LazyFrame]] = {
    # Types are those of all lines: the first hundred scores may be whole numbers.
    ".jsonl": partial(pl.scan_ndjson, infer_schema_length=None),
    ".parquet": pl.scan_parquet,
}
_COLUMNS = {"query": pl.String, "document": pl.String, "score": pl.Float32}


@dataclass(frozen=True)
class FileTeacher:
    """Scores that somebody has computed: JSONL or Parquet with ``query`` and ``document`` (their ids) and ``score``.

    Of a pair that is there twice the last score counts; pairs that the set does not have are passed over.

    Attributes:
        path: the file.
    """

    path: Path

    by: ClassVar[Literal["query"]] = "query"
    together: ClassVar[int] = 100_000

    @classmethod
    def open(cls, model: str) -> Self:
        """The teacher over a file.

        Raises:
            FormatError: there is no such file, or it is neither JSONL nor Parquet.
        """
        path = Path(model).expanduser()
        if path.suffix not in _SCAN:
            raise FormatError(f"scores are in a file that ends in {' or '.join(_SCAN)}", path)
        if not path.is_file():
            raise FormatError("there is no such file", path)
        return cls(path)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return checksum(self.path)

    def scorer(
        self, data: TrainingSet, queries: NDArray[np.int64], folder: Path, progress: Progress
    ) -> Scorer:
        """Read the file; see ``Teacher.scorer``.

        Raises:
            FormatError: it cannot be read or lacks a column; the scorer raises it for a pair without a score.
            IncompatibleError: no pair of it is of this set.
        """
        keys, known = self._read(data)
        if not len(keys):
            raise IncompatibleError(
                f"{self.path} has scores for another data set: none for a query and a document of {data.name!r}, "
                f"such as {data.queries['id'][0]!r} and {data.documents['id'][0]!r}"
            )

        def scores(q: NDArray[np.int64], d: NDArray[np.int64]) -> NDArray[np.float32]:
            asked = pair_keys(q, d)
            places = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
            missing = np.flatnonzero(keys[places] != asked)
            if len(missing):
                query, document = (
                    data.queries["id"][int(q[missing[0]])],
                    data.documents["id"][int(d[missing[0]])],
                )
                raise FormatError(
                    f"has no score for the query {query!r} and the document {document!r} of {data.name!r}; "
                    "score every document that a list has, mined ones too",
                    self.path,
                )
            return known[places]

        return scores

    def _read(self, data: TrainingSet) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Keys, ascending, and scores of the pairs that the set has."""
        try:
            scan = _SCAN[self.path.suffix](self.path)
            columns = scan.collect_schema()
            if missing := sorted(_COLUMNS.keys() - columns.keys()):
                raise FormatError(
                    f"has no column {missing[0]!r}; needed are {', '.join(_COLUMNS)}, there are {', '.join(columns)}",
                    self.path,
                )
            frame = (
                scan.select(pl.col(name).cast(dtype) for name, dtype in _COLUMNS.items())
                .with_row_index("line")
                .join(_rows(data.queries, "query"), on="query")
                .join(_rows(data.documents, "document"), on="document")
                .sort("line")
                .unique(("query_row", "document_row"), keep="last", maintain_order=True)
                .collect(engine="streaming")
            )
        except pl.exceptions.PolarsError as error:
            raise FormatError(f"cannot be read: {str(error).splitlines()[0]}", self.path) from error
        keys = pair_keys(frame["query_row"].to_numpy(), frame["document_row"].to_numpy())
        order = np.argsort(keys)
        return keys[order], frame["score"].fill_null(np.nan).to_numpy()[order]


def _rows(texts: pl.DataFrame, name: str) -> pl.LazyFrame:
    """Ids with the row of each."""
    return texts.lazy().select(pl.col("id").alias(name)).with_row_index(f"{name}_row")
