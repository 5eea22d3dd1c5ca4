"""JSON Lines: one object a line, as BEIR writes them; plain, .gz, .zst, or standard input."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from indexing.corpora.corpus import (
    START,
    Position,
    Record,
    existing_file,
    file_facts,
    fingerprint_of,
    position_of,
    refuse_position,
)
from indexing.corpora.fields import FieldNames, described, to_document
from indexing.corpora.lines import decode, is_compressed, line_batches, skip_lines, stdin_batches
from retrieval.errors import FormatError

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class JsonlCorpus:
    """A JSON Lines file.

    Attributes:
        path: the file; ``-`` reads standard input.
        names: which fields are what.
    """

    path: Path
    names: FieldNames = field(default_factory=FieldNames)

    @classmethod
    def open(cls, path: Path, names: FieldNames) -> JsonlCorpus:
        """Look at the file without reading it.

        Raises:
            FormatError: it is missing or empty.
        """
        return cls(existing_file(path), names)

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
        """Of the file's name, size and time of change, and the field names."""
        return fingerprint_of(
            {"format": "jsonl", "file": file_facts(self.path), "fields": self.names.facts()}
        )

    def read(self, start: Sequence[int] | None = None) -> Iterator[Record]:
        """One record a line; blank lines are skipped."""
        position = position_of(start)
        compressed = is_compressed(self.path)
        batches = line_batches(self.path, 0 if compressed else position.offset)
        if compressed:
            batches = skip_lines(batches, position.line)
        yield from _records(batches, str(self.path), self.names, position)


@dataclass(frozen=True)
class JsonlStream:
    """JSON Lines on standard input: read once, from the start.

    Attributes:
        names: which fields are what.
        token: makes the fingerprint unlike that of any other stream, since a stream cannot be resumed.
    """

    names: FieldNames = field(default_factory=FieldNames)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def source(self) -> str:
        """``-``."""
        return "-"

    @property
    def n_bytes(self) -> int | None:
        """Unknown."""
        return None

    @property
    def resumable(self) -> bool:
        """A stream cannot be read from a position."""
        return False

    def fingerprint(self) -> str:
        """Never equal to another's."""
        return fingerprint_of({"format": "stdin", "token": self.token})

    def read(self, start: Sequence[int] | None = None) -> Iterator[Record]:
        """One record a line.

        Raises:
            ConfigError: start is not the start.
        """
        if position_of(start) != START:
            raise refuse_position("standard input")
        yield from _records(stdin_batches(), "-", self.names, START)


def _records(
    batches: Iterator[tuple[list[bytes], int]], file: str, names: FieldNames, start: Position
) -> Iterator[Record]:
    offset, number = start
    empty = start == START
    for lines, consumed in batches:
        for line in lines:
            number += 1
            offset += len(line) + 1
            if not line or line.isspace():
                continue
            values = parsed(line, file, number)
            document = to_document(values, names, file, number)
            yield Record(document, file, number, Position(offset, number), consumed)
            empty = False
    if empty:
        raise FormatError("there is no document; a corpus has at least one JSON object, one a line", file)


def parsed(line: bytes, file: str, number: int) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        FormatError: malformed JSON, invalid UTF-8, or not an object.
    """
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if line.startswith(BOM):
            return parsed(line[len(BOM) :], file, number)
        text = decode(line, file, number)
        around = text[max(0, error.pos - 20) : error.pos + 20].strip()
        raise FormatError(
            f"malformed JSON: {error.msg} at column {error.colno}, near {around!r}; "
            "every line is one JSON object",
            file,
            number,
        ) from error
    if type(values) is not dict:
        raise FormatError(
            f'{described(values)}, is no document; every line is one JSON object with "_id" and "text"',
            file,
            number,
        )
    return values
