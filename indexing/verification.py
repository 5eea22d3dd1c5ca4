"""`tercet verify`: every stored byte read and held against its checksum."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from indexing.commit import Commit, read_commit
from indexing.durable import checksum, verify_component
from indexing.lock import hold_segment
from indexing.progress import Progress, Silent
from indexing.segment import deletes_path, index_folder, metadata_folder, segment_folder
from indexing.shared_state import named_states, state_folder
from retrieval.errors import CorruptError


@dataclass(frozen=True)
class Verification:
    """What was read and what is wrong with it."""

    components: int
    n_bytes: int
    problems: tuple[str, ...]


def verify(path: str | Path, progress: Progress | None = None) -> Verification:
    """Read a whole collection; a single flipped bit anywhere in it is reported with its file.

    The segments are held meanwhile, so that what a writer replaces is not taken for damage.

    Raises:
        ConfigError: there is no collection at the path.
    """
    path = Path(path)
    while True:
        with contextlib.ExitStack() as holds:
            try:
                commit = read_commit(path)
                _hold(path, commit, holds)
                superseded = read_commit(path).token != commit.token
            except CorruptError as error:
                return Verification(0, 0, (str(error),))
            if not superseded:  # or else some of it may have been swept before it was held
                return _verify(path, commit, progress or Silent())


def _hold(path: Path, commit: Commit, holds: contextlib.ExitStack) -> None:
    for entry in commit.segments:
        with contextlib.suppress(FileNotFoundError):  # a missing segment is found by reading its components
            holds.callback(os.close, hold_segment(segment_folder(path, entry.id)))


def _verify(path: Path, commit: Commit, progress: Progress) -> Verification:
    components = [state_folder(path, name, generation) for name, generation in named_states(commit)]
    components += [
        folder
        for entry in commit.segments
        for base in [segment_folder(path, entry.id)]
        for folder in (
            base / "documents",
            metadata_folder(base, entry.metadata),
            *(base / "vectors" / name for name in entry.vectors),
            *(index_folder(base, name, generation) for name, generation in entry.indexes.items()),
        )
    ]
    problems: list[str] = []
    total = (path / "collection.json").stat().st_size
    progress.start("verify", len(components), "components")
    for folder in components:
        n_bytes, found = verify_component(folder)
        problems.extend(found)
        total += n_bytes
        progress.advance(1)
    for entry in commit.segments:
        if entry.deletes is not None:
            bitmap = deletes_path(path, entry.id, entry.deletes.generation)
            if not bitmap.exists():
                problems.append(f"{bitmap}: the file is missing")
            elif checksum(bitmap) != entry.deletes.sha256:
                problems.append(f"{bitmap}: its checksum does not match (changed since it was written)")
            else:
                total += bitmap.stat().st_size
    return Verification(len(components), total, tuple(problems))
