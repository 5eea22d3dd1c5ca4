"""Parquet, read in slices of rows; column types are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexing.corpora.columns import resolve_columns
from indexing.corpora.corpus import Position, Record, existing_file, file_facts, fingerprint_of, position_of
from indexing.corpora.fields import FieldNames, to_document
from indexing.parquet_faults import reading_parquet
from retrieval.errors import FormatError

if TYPE_CHECKING:
    import polars

SLICE_ROWS = 8192


@dataclass(frozen=True)
class ParquetCorpus:
    """A Parquet file.

    Attributes:
        path: the file.
        names: the columns with id, text and title.
        columns: the columns that are read.
        n_rows: rows of the file.
    """

    path: Path
    names: FieldNames
    columns: tuple[str, ...]
    n_rows: int

    @classmethod
    def open(cls, path: Path, names: FieldNames) -> ParquetCorpus:
        """Read the file's footer.

        Raises:
            FormatError: no Parquet file, no row, no text column, or a column of a type metadata cannot hold.
        """
        import polars as pl

        existing_file(path)
        with reading_parquet(partial(_unreadable, path)):
            schema = pl.read_parquet_schema(path)
            n_rows = int(pl.scan_parquet(path).select(pl.len()).collect().item())
        names = resolve_columns(list(schema), names, path)
        columns = tuple(name for name in schema if name not in names.ignore)
        for name in columns:
            if name not in (names.id, names.text, names.title) and not _holdable(schema[name]):
                raise FormatError(
                    f'the column "{name}" is of type {schema[name]}, which metadata cannot hold; '
                    f"convert it, or leave it out with --ignore-field {name}",
                    path,
                )
        if not n_rows:
            raise FormatError("there is no row; a corpus has at least one document", path)
        return cls(path, names, columns, n_rows)

    @property
    def source(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def n_bytes(self) -> int | None:
        """Size of the file."""
        return self.path.stat().st_size

    @property
    def resumable(self) -> bool:
        """Any row can be read next."""
        return True

    def fingerprint(self) -> str:
        """Of the file's name, size and time of change, and the column names."""
        return fingerprint_of(
            {"format": "parquet", "file": file_facts(self.path), "fields": self.names.facts()}
        )

    def read(self, start: Sequence[int] | None = None) -> Iterator[Record]:
        """One record a row; places are row numbers from 1; ``bytes_read`` is in proportion to the rows."""
        first = position_of(start).line
        size, file = self.path.stat().st_size, self.source
        for begin in range(first, self.n_rows, SLICE_ROWS):
            for row, values in enumerate(self._slice(begin), begin + 1):
                document = to_document(values, self.names, file, row)
                yield Record(document, file, row, Position(row, row), size * row // self.n_rows)

    def _slice(self, begin: int) -> Iterator[dict[str, Any]]:
        import polars as pl

        with reading_parquet(partial(_unreadable, self.path)):
            frame = pl.scan_parquet(self.path).select(self.columns).slice(begin, SLICE_ROWS).collect()
        return frame.iter_rows(named=True)


def _unreadable(path: Path, reason: str) -> FormatError:
    return FormatError(f"not a complete Parquet file ({reason}); write or copy it again", path)


def _holdable(dtype: polars.DataType) -> bool:
    """Whether values of a column type can be metadata (see ``indexing.corpora.fields``)."""
    import polars as pl

    if isinstance(dtype, pl.Struct):
        return all(_holdable(field.dtype) for field in dtype.fields)  # type: ignore[arg-type]
    if isinstance(dtype, pl.List):
        return isinstance(dtype.inner, pl.String | pl.Categorical | pl.Enum | pl.Null)
    return not isinstance(dtype, pl.Binary | pl.Time | pl.Duration | pl.Object | pl.Array)
