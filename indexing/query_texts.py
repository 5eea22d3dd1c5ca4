"""Queries of a file: JSON Lines as in BEIR, or plain text with a query a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from indexing.corpora.jsonl import parsed
from indexing.corpora.lines import COMPRESSIONS, decode, line_batches
from retrieval.errors import FormatError

_JSON_LINES = (".jsonl", ".ndjson", ".json")


def read_queries(path: Path) -> list[str]:
    """The different queries of a file, in their order, blank ones left out.

    Args:
        path: JSON Lines with "text" in every line where its name says so, else text; also .gz or .zst of these.

    Raises:
        FormatError: it cannot be read, a line is malformed, or there is no query.
    """
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    texts = _of_json(path) if plain.suffix.lower() in _JSON_LINES else (text for _, text in _lines(path))
    different = list(dict.fromkeys(stripped for text in texts if (stripped := text.strip())))
    if not different:
        raise FormatError('there is no query; give a query a line, or JSON Lines with "text"', path)
    return different


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    for batch, _ in line_batches(path):
        for raw in batch:
            number += 1
            yield number, decode(raw, str(path), number).removeprefix("\ufeff" if number == 1 else "")


def _of_json(path: Path) -> Iterator[str]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        text = parsed(line.encode(), str(path), number).get("text")
        if not isinstance(text, str):
            raise FormatError(
                '"text" is missing or no string; every line is a query with "text"', path, number
            )
        yield text
