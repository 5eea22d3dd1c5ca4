"""JSON Lines: one object a line, as BEIR writes them; plain, .gz, .zst, or standard input."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

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
_BEYOND_INT64 = float(1 << 63)


class ParsedLine(NamedTuple):
    """The object of a line, the position after it (whose line is its own) and the bytes of the file read so far."""

    values: dict[str, Any]
    position: Position
    bytes_read: int


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
        return _records(self.objects(start), self.source, self.names)

    def objects(self, start: Sequence[int] | None = None) -> Iterator[ParsedLine]:
        """The lines' objects as they are."""
        position = position_of(start)
        compressed = is_compressed(self.path)
        batches = line_batches(self.path, 0 if compressed else position.offset)
        if compressed:
            batches = skip_lines(batches, position.line)
        return _objects(batches, self.source, position)


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
        return _records(self.objects(), self.source, self.names)

    def objects(self) -> Iterator[ParsedLine]:
        """The lines' objects as they are."""
        return _objects(stdin_batches(), self.source, START)


def _records(lines: Iterator[ParsedLine], file: str, names: FieldNames) -> Iterator[Record]:
    for values, position, consumed in lines:
        document = to_document(values, names, file, position.line)
        yield Record(document, file, position.line, position, consumed)


def _objects(batches: Iterator[tuple[list[bytes], int]], file: str, start: Position) -> Iterator[ParsedLine]:
    offset, number = start
    empty = start == START
    for lines, consumed in batches:
        for line in lines:
            number += 1
            offset += len(line) + 1
            if not line or line.isspace():
                continue
            yield ParsedLine(parsed(line, file, number), Position(offset, number), consumed)
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
    return _exact(line, file, number) if _maybe_rounded(values) else values


def _maybe_rounded(value: object) -> bool:
    """Whether there is a float that orjson may have made of an integer of more than 64 bits."""
    if type(value) is dict:
        return any(map(_maybe_rounded, value.values()))
    return type(value) is float and abs(value) >= _BEYOND_INT64


def _exact(line: bytes, file: str, number: int) -> dict[str, Any]:
    """A line that is known to be a JSON object, with integers of any size."""
    try:
        values: dict[str, Any] = json.loads(line)
    except ValueError as error:  # Python reads at most 4,300 digits
        raise FormatError(f"an integer is too long ({error}); write a string", file, number) from error
    return values
