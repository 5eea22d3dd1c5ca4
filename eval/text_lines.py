"""Lines of a text file, plain or compressed, each with its number for error messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from indexing.corpora.lines import COMPRESSIONS, decode, line_batches


def existing(path: Path) -> Path | None:
    """The file itself or its compressed form, whichever is there."""
    candidates = (path, *(path.with_name(path.name + end) for end in COMPRESSIONS))
    return next((found for found in candidates if found.is_file()), None)


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Every line that is not blank, as (number from 1, text without line end and byte order mark).

    Raises:
        FormatError: the file cannot be opened or decompressed, or a line is not UTF-8.
    """
    number = 0
    for batch, _ in line_batches(path):
        for raw in batch:
            number += 1
            line = decode(raw, str(path), number).rstrip("\r")
            if number == 1:
                line = line.removeprefix("\ufeff")
            if line.strip():
                yield number, line
