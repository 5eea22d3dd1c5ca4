"""`tercet upgrade`: a collection rewritten from an older format version to this one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from indexing.commit import FORMAT, read_format
from indexing.lock import writer_lock
from retrieval.errors import IncompatibleError

UPGRADES: dict[int, Callable[[Path], None]] = {}
"""Format version -> what turns it into the next; each commits atomically. Version 1 is the first."""


def upgrade(path: str | Path) -> tuple[int, int]:
    """Bring a collection to the current format, one version after another.

    Returns:
        The version it had and the one it has.

    Raises:
        IncompatibleError: it is newer than this tercet, or too old for it.
    """
    path = Path(path)
    before = read_format(path).get("format")
    if not isinstance(before, int) or before > FORMAT:
        raise IncompatibleError(f"{path}: format version {before} is newer than {FORMAT}; upgrade tercet")
    with writer_lock(path):
        for version in range(before, FORMAT):
            if version not in UPGRADES:
                raise IncompatibleError(
                    f"{path}: format version {version} can no longer be upgraded; index it again"
                )
            UPGRADES[version](path)
    return before, FORMAT
