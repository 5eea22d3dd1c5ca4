"""The Common Index File Format: postings with term frequencies or impacts, exchanged between search engines.

A Header, a PostingsList a term, a DocRecord a document, each preceded by its length; documents are numbered from 0
and stand as gaps in postings. Lin et al., "Supporting Interoperability Between Open-Source Search Engines with the
Common Index File Format", SIGIR 2020; https://github.com/osirrc/ciff.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexing.exchange.output import whole_file
from indexing.exchange.postings import document_frequencies, postings_of
from indexing.exchange.protobuf import (
    BYTES,
    FIXED64,
    VARINT,
    DamagedMessageError,
    MessageReader,
    double_field,
    fields,
    number_field,
    signed,
    string_field,
    varint,
)
from retrieval.errors import FormatError, IncompatibleError
from retrieval.values import Strings, Terms

_VERSION = 1
_LARGEST = (1 << 31) - 1


class Ciff(NamedTuple):
    """The content of a CIFF file.

    Attributes:
        ids: N.
        terms: N rows; frequencies may be impacts (``impacts.sparse_of_terms``), lengths are those of the DocRecords.
        description: for people.
    """

    ids: list[str]
    terms: Terms
    description: str


class _Header(NamedTuple):
    """The fields of a Header that are read."""

    n_lists: int
    n_documents: int
    description: str


# --- reading


def read_ciff(path: Path) -> Ciff:
    """Read a file; ``.gz`` and ``.zst`` are decompressed.

    Terms are numbered in the order of their lists.

    Raises:
        FormatError: it is no CIFF file, cut off, or contradicts itself; names the byte.
    """
    reader = MessageReader(path)
    header = _read_header(reader)
    words, counts, rows, frequencies = _read_lists(reader, header)
    ids, lengths = _read_documents(reader, header.n_documents)
    if not reader.finished():
        raise FormatError("there is more after the last document that the header announces", path)
    order = np.argsort(rows, kind="stable")  # by row, and by term within one
    indptr = np.zeros(header.n_documents + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=header.n_documents), out=indptr[1:])
    indices = np.repeat(np.arange(len(words), dtype=np.int32), counts)
    vocabulary, fields_of = Strings.of(words), np.zeros(len(words), dtype=np.uint8)
    terms = Terms(indptr, indices[order], frequencies[order], lengths[:, None], vocabulary, fields_of)
    return Ciff(ids, terms, header.description)


def _read_header(reader: MessageReader) -> _Header:
    found = _values(
        reader, reader.read("the header"), {1: VARINT, 2: VARINT, 3: VARINT, 7: FIXED64, 8: BYTES}
    )
    version, n_lists, n_documents = (signed(int(found.get(number, 0))) for number in (1, 2, 3))
    if version != _VERSION:
        raise reader.error(
            f"the header says version {version}, only {_VERSION} is known; is this a CIFF file?"
        )
    if not (0 <= n_lists <= _LARGEST and 0 <= n_documents <= _LARGEST):
        raise reader.error(f"the header announces {n_lists} postings lists and {n_documents} documents")
    return _Header(n_lists, n_documents, _text(reader, found.get(8, b""), "the description"))


def _read_lists(
    reader: MessageReader, header: _Header
) -> tuple[list[str], list[int], NDArray[np.int32], NDArray[np.int32]]:
    """Terms, df of each, and the rows and frequencies of all lists one after another."""
    numbers: dict[str, int] = {}
    counts: list[int] = []
    rows, frequencies = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int32)]
    for number in range(header.n_lists):
        term, own_rows, own_frequencies = _read_list(reader, header.n_documents, number)
        if numbers.setdefault(term, number) != number:
            raise reader.error(f"the term {term!r} has a postings list already")
        counts.append(len(own_rows))
        rows.append(own_rows)
        frequencies.append(own_frequencies)
    return list(numbers), counts, np.concatenate(rows), np.concatenate(frequencies)


def _read_list(
    reader: MessageReader, n_documents: int, number: int
) -> tuple[str, NDArray[np.int32], NDArray[np.int32]]:
    from indexing.exchange.ciff_kernels import decode_postings

    message = reader.read(f"postings list {number}")
    most = len(message) // 2
    rows, frequencies = np.empty(most, dtype=np.int32), np.empty(most, dtype=np.int32)
    facts = np.empty(6, dtype=np.int64)
    decode_postings(np.frombuffer(message, dtype=np.uint8), n_documents, rows, frequencies, facts)
    count, start, stop, df, wrong, at = facts.tolist()
    term = _text(reader, message[start:stop], "the term")
    if wrong:
        raise reader.error(f"postings list {number}, of {term!r}, is damaged: {_FAULTS[wrong]}", at)
    if df != count:
        raise reader.error(f"postings list {number}, of {term!r}, has {count} postings, its df says {df}")
    return term, rows[:count].copy(), frequencies[:count].copy()


_FAULTS = {
    1: "a field is cut off",
    2: "a field has an unknown wire type",
    3: "its documents do not ascend",
    4: "it names a document that the header does not announce",
    5: "a frequency is not from 1 to 2,147,483,647",
}


def _read_documents(reader: MessageReader, n_documents: int) -> tuple[list[str], NDArray[np.int32]]:
    """The id and length of every document."""
    ids, lengths = [""] * n_documents, np.full(n_documents, -1, dtype=np.int32)
    for number in range(n_documents):
        found = _values(reader, reader.read(f"document {number}"), {1: VARINT, 2: BYTES, 3: VARINT})
        row, length = signed(int(found.get(1, 0))), signed(int(found.get(3, 0)))
        if not 0 <= row < n_documents or lengths[row] >= 0:
            raise reader.error(
                f"document {number} has the number {row}, which is taken or beyond {n_documents - 1}"
            )
        if not 0 <= length <= _LARGEST:
            raise reader.error(f"document {number} has the length {length}")
        ids[row], lengths[row] = _text(reader, found.get(2, b""), "the id"), length
    return ids, lengths


def _values(reader: MessageReader, message: bytes, wanted: dict[int, int]) -> dict[int, int | bytes]:
    """Field number -> value of the fields wanted, the last where one is repeated.

    Args:
        reader: what the message comes from.
        message: its bytes.
        wanted: number -> wire type.
    """
    found: dict[int, int | bytes] = {}
    try:
        for number, wire, value in fields(message):
            if number in wanted:
                if wire != wanted[number]:
                    raise DamagedMessageError(0, f"field {number} has wire type {wire}, not {wanted[number]}")
                found[number] = value
    except DamagedMessageError as error:
        raise reader.error(f"{error}; is this a CIFF file?", error.at) from error
    return found


def _text(reader: MessageReader, value: int | bytes, what: str) -> str:
    try:
        return bytes(value).decode("utf-8") if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise reader.error(f"{what} is no valid UTF-8 ({error.reason})") from error


# --- writing


def write_ciff(
    path: Path,
    ids: Iterable[str],
    terms: Terms,
    *,
    description: str = "",
    memory_bytes: int = 512 * 10**6,
) -> None:
    """Write a file, with the lists in the order of the terms' UTF-8 bytes, as Lucene has them.

    Args:
        path: is replaced when all is written.
        ids: N.
        terms: N rows of one field, memory-mapped; ``impacts.impact_terms`` makes them of sparse vectors.
        description: for people.
        memory_bytes: about how much of the postings to hold at a time; less takes more passes over the rows.

    Raises:
        IncompatibleError: the rows have several fields, which CIFF has no place for.
        FormatError: a term or an id has a lone surrogate, which UTF-8 cannot hold.
        ValueError: ids do not fit the rows.
    """
    if len(terms.fields) != 1:
        raise IncompatibleError(
            f"CIFF holds one field, the rows have {list(terms.fields)}; encode them as one"
        )
    frequencies = document_frequencies(terms)
    used = np.flatnonzero(frequencies).tolist()
    order = sorted(used, key=lambda term: _term_bytes(terms, term))
    with whole_file(path) as stream:
        _write_message(stream, _header(terms, len(order), description))
        _write_lists(stream, terms, order, frequencies, memory_bytes)
        lengths = terms.lengths[:, 0]
        for row, (identifier, length) in enumerate(zip(ids, lengths, strict=True)):
            record = (
                number_field(1, row) + string_field(2, _utf8(identifier, "id")) + number_field(3, int(length))
            )
            _write_message(stream, record)


def _header(terms: Terms, n_lists: int, description: str) -> bytes:
    n, total = len(terms), int(terms.lengths.sum(dtype=np.int64))
    numbers = {1: _VERSION, 2: n_lists, 3: n, 4: n_lists, 5: n, 6: total}
    counts = b"".join(number_field(number, value) for number, value in numbers.items())
    return counts + double_field(7, total / max(n, 1)) + string_field(8, _utf8(description, "description"))


def _write_lists(
    stream: BinaryIO, terms: Terms, order: Sequence[int], frequencies: NDArray[np.int64], memory_bytes: int
) -> None:
    from indexing.exchange.ciff_kernels import MOST_BYTES, encode_postings

    for term, rows, tfs in postings_of(terms, order, frequencies, memory_bytes):
        word = _utf8(terms.vocabulary[term], "term")
        facts = (
            string_field(1, word) + number_field(2, len(rows)) + number_field(3, int(tfs.sum(dtype=np.int64)))
        )
        encoded = np.empty(len(rows) * MOST_BYTES, dtype=np.uint8)
        size = encode_postings(rows, tfs, encoded)
        stream.write(varint(len(facts) + size) + facts)
        stream.write(encoded[:size].data)


def _write_message(stream: BinaryIO, message: bytes) -> None:
    stream.write(varint(len(message)) + message)


def _term_bytes(terms: Terms, term: int) -> bytes:
    offsets = terms.vocabulary.offsets
    return terms.vocabulary.blob[offsets[term] : offsets[term + 1]].tobytes()


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError(f"the {what} {text!r} has a lone surrogate, which CIFF cannot hold") from error
