"""Lines of a plain or compressed file, in batches, with bounded memory and every fault named."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from retrieval.errors import FormatError

PLAIN_BLOCK = 1 << 20
# Compressed blocks are small because a block may unfold to thousands of times its size.
COMPRESSED_BLOCK = 1 << 15
LONGEST_LINE = 256 << 20
COMPRESSIONS = (".gz", ".zst")


def is_compressed(path: Path) -> bool:
    """Whether the name says that the file is compressed."""
    return path.suffix.lower() in COMPRESSIONS


def line_batches(path: Path, offset: int = 0) -> Iterator[tuple[list[bytes], int]]:
    """The lines of a file without their newlines, a batch at a time, with the bytes of the file read so far.

    A file that does not end in a newline has a last line all the same; one that does has no empty line after it.

    Args:
        path: ``.gz`` and ``.zst`` are decompressed while reading.
        offset: bytes to skip; plain files only.

    Raises:
        FormatError: the file cannot be opened, is truncated or damaged, or a line exceeds 256 MiB.
    """
    yield from _split(blocks(path, offset), str(path))


def stdin_batches() -> Iterator[tuple[list[bytes], int]]:
    """The same for standard input."""
    yield from _split(_raw_blocks(sys.stdin.buffer, 1 << 16), "-")


def skip_lines(batches: Iterator[tuple[list[bytes], int]], n: int) -> Iterator[tuple[list[bytes], int]]:
    """The batches without their first n lines."""
    for lines, consumed in batches:
        if n < len(lines):
            yield lines[n:], consumed
            n = 0
        else:
            n -= len(lines)


def _split(parts: Iterator[tuple[bytes, int]], file: str) -> Iterator[tuple[list[bytes], int]]:
    waiting: list[bytes] = []  # pieces of a line that has not ended yet
    size = consumed = 0
    for block, consumed in parts:
        if b"\n" not in block:
            waiting.append(block)
            size += len(block)
        else:
            lines = block.split(b"\n")
            lines[0] = b"".join((*waiting, lines[0]))
            rest = lines.pop()
            waiting, size = [rest], len(rest)
            yield lines, consumed
        if size > LONGEST_LINE:
            raise FormatError(
                f"a line is longer than {LONGEST_LINE >> 20} MiB; is this a text file with a document a line?",
                file,
            )
    if size:
        yield [b"".join(waiting)], consumed


def blocks(path: Path, offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """The content of a plain or compressed file in blocks, with the bytes of the file read so far."""
    try:
        with path.open("rb") as stream:
            suffix = path.suffix.lower()
            if suffix == ".gz":
                yield from _decompressed(stream, path, lambda: zlib.decompressobj(wbits=31), "gzip")
            elif suffix == ".zst":
                import zstandard

                reader = zstandard.ZstdDecompressor(max_window_size=1 << 31)
                yield from _decompressed(stream, path, reader.decompressobj, "zstd")
            else:
                stream.seek(offset)
                for block, consumed in _raw_blocks(stream, PLAIN_BLOCK):
                    yield block, offset + consumed
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror or error})", path) from error


def _raw_blocks(stream: IO[bytes], size: int) -> Iterator[tuple[bytes, int]]:
    consumed = 0
    while block := stream.read(size):
        consumed += len(block)
        yield block, consumed


def _decompressed(
    stream: IO[bytes], path: Path, frame: Callable[[], Any], kind: str
) -> Iterator[tuple[bytes, int]]:
    """Frame after frame; zlib's and zstandard's decompression objects have the same shape."""
    import zstandard

    current: Any = None
    try:
        for block, consumed in _raw_blocks(stream, COMPRESSED_BLOCK):
            left = block
            while left:
                if current is None:
                    left = left.lstrip(b"\0")  # padding between frames, as the gzip tool allows
                    if not left:
                        break
                    current = frame()
                data = current.decompress(left)
                left = current.unused_data if current.eof else b""
                if current.eof:
                    current = None
                if data:
                    yield data, consumed
    except (zlib.error, zstandard.ZstdError) as error:
        raise FormatError(f"not a valid {kind} file ({error}); compress it again", path) from error
    if current is not None:
        raise FormatError(f"the {kind} file is truncated; copy or compress it again", path)


def decode(line: bytes, file: str, number: int | None) -> str:
    """A line as text.

    Raises:
        FormatError: it is no UTF-8; names the byte and its offset in the line.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid_utf8(error, line, file, number) from error


def invalid_utf8(error: UnicodeDecodeError, data: bytes, file: str, number: int | None) -> FormatError:
    """The error for bytes that are no UTF-8."""
    where = "line" if number is not None else "file"
    return FormatError(
        f"invalid UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} of the {where} "
        f"({error.reason}); convert the file to UTF-8",
        file,
        number,
    )
