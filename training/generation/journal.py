"""Answers on disk as they come: a killed run asks only for what is missing, a finished one can be filtered anew."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from indexing.corpora.fields import stable_id
from indexing.documents import id_hash
from retrieval.encoders.surrogates import valid_text
from retrieval.errors import CorruptError, IncompatibleError, LockedError
from retrieval.values import Document
from training.generation.generator import Answer

_REMEDY = "take the line out, or begin anew with --fresh"


class Journal:
    """A JSON Lines file: the generator's facts, then a line for each answer, in the order they came.

    An answer belongs to a document's id and content, so that a corpus may grow or change between two runs: what is
    new or changed is asked for again. Only the places of answers are held in memory.
    """

    def __init__(self, path: Path, stream: IO[bytes], places: dict[int, int]) -> None:
        """See ``open_journal``; places are offsets of lines by ``_key``."""
        self._path = path
        self._stream = stream
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, document: Document) -> bool:
        return _key(document.id, _content(document)) in self._places

    def append(self, answer: Answer) -> None:
        """Keep an answer; from here on a kill does not lose it."""
        content = _content(answer.document)
        line = {
            "document": answer.document.id,
            "content": content,
            "queries": answer.queries,
            "tokens": [answer.prompt_tokens, answer.completion_tokens],
        }
        place = self._stream.seek(0, os.SEEK_END)
        self._stream.write(_line(line))
        self._stream.flush()
        self._places[_key(answer.document.id, content)] = place

    def answer(self, document: Document) -> Answer | None:
        """What was kept for a document, None where nothing was."""
        place = self._places.get(_key(document.id, _content(document)))
        if place is None:
            return None
        self._stream.seek(place)
        line = json.loads(self._stream.readline())
        return Answer(document, tuple(line["queries"]), *line["tokens"])


@contextmanager
def open_journal(path: Path, facts: Mapping[str, Any], *, fresh: bool = False) -> Iterator[Journal]:
    """The journal of a file, which is made where there is none.

    A last line that was cut short by a kill is taken off.

    Args:
        path: of the file.
        facts: of the generator that answers.
        fresh: forget what is there.

    Raises:
        LockedError: another process is writing to it.
        IncompatibleError: its answers came of other facts; names them.
        CorruptError: a line is none that was written.
    """
    with path.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                f"{path}: another process is generating here; wait for it or stop it"
            ) from error
        if fresh:
            stream.truncate(0)
        _cut_torn_line(stream)
        stream.seek(0)
        header = stream.readline()
        if header:
            _check_facts(path, _parsed(path, header, 1), facts)
        else:
            stream.write(_line({"generator": dict(facts)}))
            stream.flush()
        yield Journal(path, stream, _places(path, stream))
        os.fsync(stream.fileno())


def _cut_torn_line(stream: IO[bytes]) -> None:
    """End the file behind its last line end."""
    position = stream.seek(0, os.SEEK_END)
    end = 0
    while position and not end:
        start = max(0, position - (1 << 16))
        stream.seek(start)
        end = stream.read(position - start).rfind(b"\n") + 1
        end, position = (start + end if end else 0), start
    stream.truncate(end)


def _places(path: Path, stream: IO[bytes]) -> dict[int, int]:
    """Offset of the latest answer of each document."""
    places: dict[int, int] = {}
    place = stream.tell()
    for number, raw in enumerate(stream, start=2):
        line = _parsed(path, raw, number)
        if not _is_answer(line):
            raise CorruptError(path, f"line {number} is no answer; {_REMEDY}")
        places[_key(line["document"], line["content"])] = place
        place += len(raw)
    return places


def _parsed(path: Path, raw: bytes, number: int) -> dict[str, Any]:
    try:
        line = json.loads(raw)
    except ValueError as error:
        raise CorruptError(path, f"line {number} is damaged; {_REMEDY}") from error
    if not isinstance(line, dict):
        raise CorruptError(path, f"line {number} is no object; {_REMEDY}")
    return line


def _is_answer(line: Mapping[str, Any]) -> bool:
    match line:
        case {"document": str(), "content": str(), "queries": [*queries], "tokens": [int(), int()]}:
            return all(isinstance(query, str) for query in queries)
        case _:
            return False


def _check_facts(path: Path, header: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(dict(facts)))
    found = header.get("generator")
    if not isinstance(found, dict):
        raise CorruptError(path, "does not begin with the facts of a generator; begin anew with --fresh")
    differing = [
        f"{name} ({_shown(found.get(name))} there, {_shown(wanted.get(name))} now)"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise IncompatibleError(
            f"{path} holds answers that were made differently: {', '.join(differing)}; "
            "choose another folder, or --fresh to forget them"
        )


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _content(document: Document) -> str:
    return stable_id(document.title, document.text)


def _key(id_: str, content: str) -> int:
    return id_hash(f"{content} {id_}")


def _line(values: Mapping[str, Any]) -> bytes:
    return valid_text(json.dumps(values, ensure_ascii=False)).encode() + b"\n"
