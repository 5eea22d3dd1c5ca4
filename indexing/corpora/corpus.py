"""What every corpus reader promises: documents in a fixed order, each with its place and a position to resume from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from retrieval.errors import ConfigError, FormatError
from retrieval.values import Document


class Position(NamedTuple):
    """Where reading goes on. JSON keeps it as a list of two numbers, which ``read`` takes as well.

    Attributes:
        offset: bytes before the next record in a plain line file; records read so far in other formats.
        line: lines (or rows, or files) before the next record.
    """

    offset: int
    line: int


START = Position(0, 0)


def position_of(start: Sequence[int] | None) -> Position:
    """A position as given or as restored from JSON; None is the start."""
    return START if start is None else Position(*start)


class Record(NamedTuple):
    """One document of a corpus.

    Attributes:
        document: what was read.
        file: the file it came from, as errors name it.
        line: 1-based line (row in Parquet) where the record starts; None where the file is the record.
        position: where to resume to read the record after this one.
        bytes_read: bytes of the source consumed so far, on the scale of ``Corpus.n_bytes``.
    """

    document: Document
    file: str
    line: int | None
    position: Position
    bytes_read: int

    @property
    def place(self) -> str:
        """``file:line``, made only when somebody asks."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


def error_at(place: str, message: str) -> FormatError:
    """The error for a record's ``place``, with path and line apart."""
    path, colon, line = place.rpartition(":")
    return FormatError(message, path, int(line)) if colon and line.isdigit() else FormatError(message, place)


class Corpus(Protocol):
    """Documents that can be read in order, from the start or from a position, in bounded memory."""

    @property
    def source(self) -> str:
        """What is read, for people: a path or a name."""
        ...

    @property
    def n_bytes(self) -> int | None:
        """Size of the source in bytes (compressed size for compressed files); None for a stream."""
        ...

    @property
    def resumable(self) -> bool:
        """Whether ``read`` accepts a position other than the start."""
        ...

    def fingerprint(self) -> str:
        """Cheap identity of the source and the reading options: equal when a build may resume from it."""
        ...

    def read(self, start: Sequence[int] | None = None) -> Iterator[Record]:
        """Documents in a fixed order, from just after the record whose ``position`` is given.

        Raises:
            FormatError: the source holds something that is no document, or no document at all.
        """
        ...


def fingerprint_of(facts: Mapping[str, Any]) -> str:
    """sha256 of canonical JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def file_facts(path: Path) -> dict[str, Any]:
    """Name, size and time of change of a file: what a fingerprint is made of."""
    status = path.stat()
    return {"name": path.name, "bytes": status.st_size, "modified": status.st_mtime_ns}


def existing_file(path: Path) -> Path:
    """The path, known to be a non-empty file.

    Raises:
        FormatError: it is missing, no regular file, or empty.
    """
    if not path.is_file():
        raise FormatError("no such file; give the path of a corpus file or folder", path)
    if path.stat().st_size == 0:
        raise FormatError("the file is empty; a corpus has at least one document", path)
    return path


def refuse_position(source: str) -> ConfigError:
    """The error of a corpus that cannot resume."""
    return ConfigError(f"{source} is a stream and cannot be read from a position; start the build anew")
