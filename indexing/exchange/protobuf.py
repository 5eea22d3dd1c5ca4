"""As much of Protocol Buffers' wire format as CIFF needs: varints, fields, and messages preceded by their length.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from indexing.corpora.lines import blocks
from retrieval.errors import FormatError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10
_LARGEST_MESSAGE = (1 << 31) - 1
_WORD = 1 << 64

Field = int | bytes


class DamagedMessageError(ValueError):
    """A message that breaks the wire format, with the byte within it."""

    def __init__(self, at: int, message: str) -> None:
        self.at = at
        super().__init__(message)


# --- writing


def varint(value: int) -> bytes:
    """A whole number, 7 bits a byte, the lowest first; negative ones in two's complement of 64 bits."""
    value %= _WORD
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    """A whole number; proto3 leaves 0 out."""
    return varint(number << 3 | VARINT) + varint(value) if value else b""


def double_field(number: int, value: float) -> bytes:
    """A double; 0 is left out."""
    return varint(number << 3 | FIXED64) + struct.pack("<d", value) if value else b""


def string_field(number: int, value: bytes) -> bytes:
    """UTF-8; the empty string is left out."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value if value else b""


# --- reading


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint and the position after it.

    Raises:
        DamagedMessageError: it does not end, or has more than ten bytes.
    """
    value = 0
    for position in range(_LONGEST_VARINT):
        if at + position >= len(data):
            raise DamagedMessageError(at, "a number is cut off")
        byte = data[at + position]
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value % _WORD, at + position + 1
    raise DamagedMessageError(at, "a number has more than ten bytes")


def signed(value: int) -> int:
    """An int32 or int64 of a varint."""
    return value - _WORD if value >> 63 else value


def fields(data: bytes) -> Iterator[tuple[int, int, Field]]:
    """Number, wire type and value of each field; fixed values and bytes as they stand.

    Raises:
        DamagedMessageError: the message is cut off or has a wire type that is not used.
    """
    at = 0
    while at < len(data):
        key, start = read_varint(data, at)
        wire = key & 7
        if wire == VARINT:
            value, end = read_varint(data, start)
            yield key >> 3, wire, value
        else:
            size, start = _size(data, start, wire, at)
            end = start + size
            if end > len(data):
                raise DamagedMessageError(at, f"field {key >> 3} is cut off")
            yield key >> 3, wire, data[start:end]
        at = end


def _size(data: bytes, start: int, wire: int, at: int) -> tuple[int, int]:
    if wire == BYTES:
        return read_varint(data, start)
    if wire in (FIXED32, FIXED64):
        return (4 if wire == FIXED32 else 8), start
    raise DamagedMessageError(at, f"wire type {wire} is not one of 0, 1, 2 and 5")


class MessageReader:
    """The messages of a file, each preceded by its length, one in memory at a time.

    Attributes:
        path: ``.gz`` and ``.zst`` are decompressed while reading.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0
        self._blocks = blocks(path)
        self._held = b""
        self._at = 0
        self._body = 0
        self._end = 0

    def read(self, what: str) -> bytes:
        """The next message.

        Raises:
            FormatError: the file ends before or inside it, with the byte at which it starts.
        """
        self._start = self._body = self._end
        self._hold(_LONGEST_VARINT)
        try:
            size, start = read_varint(self._held, self._at)
        except DamagedMessageError as error:
            raise self.error(f"{what} expected, {error}") from error
        if size > _LARGEST_MESSAGE:
            raise self.error(f"{what} expected, but there would be {size} bytes of it; is this a CIFF file?")
        header = start - self._at
        self._hold(header + size)
        stop = self._at + header + size
        if stop > len(self._held):
            raise self.error(f"{what} is cut off; copy or export the file again")
        message = self._held[self._at + header : stop]
        self._body += header
        self._end += stop - self._at
        self._at = stop
        return message

    def error(self, message: str, at: int | None = None) -> FormatError:
        """What is wrong with the message that was read last, or with a byte of it."""
        place = self._start if at is None else self._body + at
        return FormatError(f"byte {place}: {message}", self.path)

    def finished(self) -> bool:
        """Whether the file ends here."""
        self._hold(1)
        return self._at == len(self._held)

    def _hold(self, size: int) -> None:
        """Read on until so many bytes are held, or the file ends."""
        held = len(self._held) - self._at
        if held >= size:
            return
        parts = [self._held[self._at :]]
        while held < size and (block := next(self._blocks, None)) is not None:
            parts.append(block[0])
            held += len(block[0])
        self._held, self._at = b"".join(parts), 0
