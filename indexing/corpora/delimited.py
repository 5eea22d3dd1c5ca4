"""CSV and TSV with a header line, plain, .gz or .zst.

Cells may be quoted as RFC 4180 says, in TSV too; a cell that begins with a quote must be quoted. Metadata columns are
typed over the whole file, so the file is read twice: a column whose non-empty cells are all integers (64 bits, no
leading zero, so that "007" stays text) holds integers; all numbers, floats; all true or false in any case, booleans;
anything else, strings. An empty cell is null.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from indexing.corpora.columns import resolve_columns
from indexing.corpora.corpus import (
    START,
    Position,
    Record,
    existing_file,
    file_facts,
    fingerprint_of,
    position_of,
)
from indexing.corpora.fields import FieldNames, to_document
from indexing.corpora.lines import LONGEST_LINE, decode, is_compressed, line_batches, skip_lines
from retrieval.errors import FormatError

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_Row = tuple[list[str], int, Position, int]  # cells, first line, position after, bytes read


@dataclass(frozen=True)
class CsvCorpus:
    """A CSV file.

    Attributes:
        path: the file.
        names: the columns with id, text and title.
        header: the column names.
        body: where the first row after the header starts.
    """

    path: Path
    names: FieldNames
    header: tuple[str, ...]
    body: Position
    separator: ClassVar[str] = ","

    @classmethod
    def open(cls, path: Path, names: FieldNames) -> Self:
        """Read the header.

        Raises:
            FormatError: no file, no header, a column twice, or no text column.
        """
        existing_file(path)
        for cells, line, position, _ in _rows(path, cls.separator, START):
            header = tuple(cells)
            for number, name in enumerate(header, 1):
                if not name:
                    raise FormatError(f"column {number} has no name; name it or leave it out", path, line)
                if name in header[: number - 1]:
                    raise FormatError(f'the column "{name}" is there twice; rename one', path, line)
            return cls(path, resolve_columns(header, names, path), header, position)
        raise FormatError("there is no header line with column names", path)

    @property
    def source(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def n_bytes(self) -> int | None:
        """Size of the file, compressed if it is."""
        return self.path.stat().st_size

    @property
    def resumable(self) -> bool:
        """Files can be read from a position."""
        return True

    def fingerprint(self) -> str:
        """Of the file's name, size and time of change, and the column names."""
        facts = {"format": "csv", "separator": self.separator, "fields": self.names.facts()}
        return fingerprint_of({**facts, "file": file_facts(self.path)})

    def read(self, start: Sequence[int] | None = None) -> Iterator[Record]:
        """One record a row, metadata typed by column."""
        position = position_of(start)
        converters = self._converters
        used = [(place, name) for place, name in enumerate(self.header) if name not in self.names.ignore]
        empty = position == START
        for cells, line, after, consumed in self._body(self.body if empty else position):
            values: dict[str, Any] = {name: cells[place] for place, name in used}
            for name, convert in converters:
                values[name] = convert(values[name]) if values[name] else None
            document = to_document(values, self.names, self.source, line)
            yield Record(document, self.source, line, after, consumed)
            empty = False
        if empty:
            raise FormatError("there is a header but no row; a corpus has at least one document", self.path)

    def _body(self, position: Position) -> Iterator[_Row]:
        for row in _rows(self.path, self.separator, position):
            if len(row[0]) != len(self.header):
                raise FormatError(
                    f"the row has {len(row[0])} cells, the header {len(self.header)}; "
                    "quote cells that hold separators, quotes or line breaks",
                    self.path,
                    row[1],
                )
            yield row

    @cached_property
    def _converters(self) -> list[tuple[str, Callable[[str], Any]]]:
        """What turns the cells of every metadata column into values, from a pass over the whole file."""
        taken = {self.names.id, self.names.text, self.names.title, *self.names.ignore}
        columns = [(place, name) for place, name in enumerate(self.header) if name not in taken]
        if not columns:
            return []
        kinds: dict[int, str] = {place: "" for place, _ in columns}
        open_places = list(kinds)
        for cells, _, _, _ in self._body(self.body):
            settled = False
            for place in open_places:
                if cells[place]:
                    kinds[place] = _joined(kinds[place], cells[place])
                    settled |= kinds[place] == "string"
            if settled:  # a string column stays one
                open_places = [place for place in open_places if kinds[place] != "string"]
        return [(name, _CONVERTERS[kinds[place]]) for place, name in columns]


@dataclass(frozen=True)
class TsvCorpus(CsvCorpus):
    """A TSV file."""

    separator: ClassVar[str] = "\t"


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "": str,
    "integer": int,
    "float": float,
    "boolean": lambda cell: cell.lower() == "true",
    "string": str,
}


def _joined(kind: str, cell: str) -> str:
    """The type of a column of a given type so far after one more cell."""
    if _INTEGER.fullmatch(cell) and -(1 << 63) <= int(cell) < 1 << 63:
        found = "integer"
    elif _NUMBER.fullmatch(cell) and math.isfinite(float(cell)):
        found = "string" if re.match(r"-?0[0-9]", cell) else "float"
    elif cell.lower() in ("true", "false"):
        found = "boolean"
    else:
        found = "string"
    if kind in ("", found):
        return found
    return "float" if {kind, found} == {"integer", "float"} else "string"


def _rows(path: Path, separator: str, start: Position) -> Iterator[_Row]:
    """Non-blank rows with the line they start at, the position after them and the bytes of the file read."""
    compressed = is_compressed(path)
    batches = line_batches(path, 0 if compressed else start.offset)
    if compressed:
        batches = skip_lines(batches, start.line)
    offset, number = start
    consumed = 0

    def lines() -> Iterator[str]:
        nonlocal offset, number, consumed
        for batch, read in batches:
            consumed = read
            for line in batch:
                number += 1
                offset += len(line) + 1
                text = decode(line, str(path), number)
                yield (text.removeprefix("\ufeff") if number == 1 else text) + "\n"

    # The limit is one for the process; it bounds the memory a quote that is never closed can take.
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(lines(), delimiter=separator, strict=True)
    while True:
        first = number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise FormatError(
                f"not valid {'TSV' if separator != ',' else 'CSV'} ({error}) in the row that starts here; quote "
                "cells that begin with a quote, double the quotes inside, and close every quote",
                path,
                first,
            ) from error
        if cells:
            yield cells, first, Position(offset, number), consumed
