"""Size and checksum of a file that another library reads, kept in the facts of an index."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.errors import CorruptError

NO_FILE: dict[str, int] = {"bytes": 0, "crc32": 0}
"""The facts where nothing was written."""


def file_facts(path: Path) -> dict[str, int]:
    """``bytes`` and ``crc32`` of a file."""
    return {"bytes": path.stat().st_size, "crc32": _crc32(path)}


def check_size(path: Path, facts: Mapping[str, Any]) -> None:
    """Compare the size with the one written.

    Raises:
        CorruptError: the file is missing or has another size.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CorruptError(path, "the file is missing") from error
    if size != facts.get("bytes"):
        raise CorruptError(path, f"has {size} bytes, {facts.get('bytes')} were written")


def check_content(path: Path, facts: Mapping[str, Any]) -> None:
    """Read all of the file and compare its checksum with the one written.

    Raises:
        CorruptError: the file is missing or another one.
    """
    check_size(path, facts)
    if _crc32(path) != facts.get("crc32"):
        raise CorruptError(path, "its checksum does not match (changed since it was written)")


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value
