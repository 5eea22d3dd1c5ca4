"""The metadata of a segment's documents: JSON by document for answers, Parquet by column for filters.

Ten documents by position from Parquet take over ten milliseconds at 200,000 rows, a blob with offsets
microseconds; filters want columns. So both are kept; together they are one component with a generation of its
own, which is why metadata can change without anything being encoded again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexing.durable import open_manifest, write_manifest
from indexing.growing import GrowingStrings, map_strings
from indexing.parquet_faults import reading_parquet
from retrieval.errors import ConfigError, CorruptError
from retrieval.values import Metadata, Strings

if TYPE_CHECKING:
    import polars

    from indexing.segment import Segment
    from retrieval.filters import Filter

TABLE_DOCUMENTS = 100_000
"""Documents in one Parquet file; bounds the memory of writing it."""


def pack_metadata(records: Iterable[Metadata]) -> Strings:
    """One JSON object a document; "" where there is none."""
    import orjson

    return Strings.of(orjson.dumps(dict(record)).decode() if record else "" for record in records)


def unpack_metadata(line: str, schema: Mapping[str, str]) -> dict[str, Any]:
    """What ``pack_metadata`` packed, datetimes restored by the schema."""
    if not line:
        return {}
    import orjson

    record = orjson.loads(line)
    for name, value in record.items():
        if value is not None and schema.get(name) == "datetime":
            record[name] = datetime.fromisoformat(value)
    return record


@dataclass(frozen=True, eq=False)
class StoredMetadata:
    """Metadata of N documents on disk."""

    folder: Path
    lines: Strings
    schema: Mapping[str, str]
    n_tables: int
    _columns: dict[str, polars.Series] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, document: int) -> dict[str, Any]:
        return unpack_metadata(self.lines[document], self.schema)

    def frame(self, fields: Sequence[str]) -> polars.DataFrame:
        """The named columns for all N documents, null where a document or this segment has no such field.

        Raises:
            CorruptError: a table is damaged, or is not of these documents.
        """
        import polars as pl

        missing = [name for name in fields if name not in self._columns and name in self.schema]
        if missing:
            self._columns.update(self._read(missing))
        columns = {name: self._columns[name] for name in fields if name in self.schema}
        nulls = {
            name: pl.repeat(None, len(self), dtype=pl.Null, eager=True)
            for name in fields
            if name not in columns
        }
        return pl.DataFrame({**columns, **nulls})

    def _read(self, names: list[str]) -> dict[str, polars.Series]:
        """Columns of all tables, read and checked against the number of documents."""
        import polars as pl

        parts = []
        for number in range(self.n_tables):
            table = self.folder / _table_name(number)
            with reading_parquet(partial(_damaged, table)):
                parts.append(pl.read_parquet(table, columns=names))
        with reading_parquet(partial(_damaged, self.folder)):
            read = pl.concat(parts)
            # by position: polars takes a name like ^a$ or * for a pattern
            columns = {name: read.to_series(read.columns.index(name)) for name in names}
        if len(read) != len(self):
            raise _damaged(self.folder, f"its tables hold {len(read)} documents, not {len(self)}")
        return columns


def _table_name(number: int) -> str:
    return f"table-{number:04d}.parquet"


def _damaged(path: Path, reason: str) -> CorruptError:
    return CorruptError(path, f"cannot be read ({reason}); `tercet verify` shows what is damaged")


def load_metadata(folder: Path) -> StoredMetadata:
    """Map a metadata component.

    Raises:
        CorruptError: a file is missing, cut short or changed.
    """
    manifest = open_manifest(folder)
    return StoredMetadata(folder, map_strings(folder, "json"), manifest["schema"], manifest["tables"])


def write_metadata(folder: Path, batches: Iterable[Strings], schema: Mapping[str, str]) -> None:
    """Write and seal a metadata component from packed batches, a table's worth in memory at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = GrowingStrings(folder, "json")
    n_documents = n_tables = 0
    for table in _tables(batches):
        for part in table:
            lines.append(part)
            n_documents += len(part)
        if schema:
            _write_table(folder / _table_name(n_tables), table, schema)
            n_tables += 1
    lines.close()
    write_manifest(
        folder,
        {"component": "metadata", "n_documents": n_documents, "schema": dict(schema), "tables": n_tables},
    )


def _tables(batches: Iterable[Strings]) -> Iterator[list[Strings]]:
    table: list[Strings] = []
    count = 0
    for batch in batches:
        table.append(batch)
        count += len(batch)
        if count >= TABLE_DOCUMENTS:
            yield table
            table, count = [], 0
    if table:
        yield table


def _write_table(path: Path, table: list[Strings], schema: Mapping[str, str]) -> None:
    import polars as pl

    from indexing.metadata_schema import polars_type

    columns: dict[str, list[Any]] = {name: [] for name in schema}
    for part in table:
        for line in part:
            record = unpack_metadata(line, schema)
            for name, values in columns.items():
                values.append(record.get(name))
    frame = pl.DataFrame(
        [
            pl.Series(name, values, dtype=polars_type(schema[name]), strict=False)
            for name, values in columns.items()
        ]
    )
    frame.write_parquet(path)


def filter_rows(segment: Segment, condition: Filter, schema: Mapping[str, str]) -> NDArray[np.bool_]:
    """(R,) which rows of a segment belong to a document that satisfies the filter.

    Raises:
        ConfigError: the filter names a field that no document of the collection has.
    """
    unknown = sorted(name for name in condition.fields() if name not in schema)
    if unknown:
        known = ", ".join(sorted(schema)) or "none"
        raise ConfigError(f"filter: unknown field {unknown[0]!r}; the collection has: {known}")
    mask = condition.evaluate(segment.metadata.frame(sorted(condition.fields())))
    documents = segment.documents
    if documents.spans is None:
        return mask
    return np.repeat(mask, np.diff(documents.first_rows))
