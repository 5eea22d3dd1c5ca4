"""Removing what no commit and no resumable job names: the remains of killed writes and of replaced segments."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from indexing.commit import Commit
from indexing.lock import is_held
from indexing.segment import deletes_path, index_folder, metadata_folder, segment_folder
from indexing.staging import unfinished_jobs


def sweep(collection: Path, commit: Commit) -> None:
    """Remove files that the commit does not name; what a reader still holds stays until a later sweep.

    The caller holds the writer lock.
    """
    entries = {entry.id: entry for entry in commit.segments}
    for folder in _folders(collection / "segments"):
        if is_held(folder):
            continue
        entry = entries.get(folder.name)
        if entry is None:
            shutil.rmtree(folder)
            continue
        named = {metadata_folder(folder, entry.metadata)}
        named |= {index_folder(folder, name, generation) for name, generation in entry.indexes.items()}
        named |= {folder / "vectors" / name for name in entry.vectors}
        named |= {folder / "documents", folder / "vectors", folder / "indexes"}
        for part in (*_folders(folder), *_folders(folder / "vectors"), *_folders(folder / "indexes")):
            if part not in named:
                shutil.rmtree(part, ignore_errors=True)
    kept = {
        deletes_path(collection, entry.id, entry.deletes.generation)
        for entry in commit.segments
        if entry.deletes
    }
    for path in sorted((collection / "deletes").glob("*.npy")):
        segment = segment_folder(collection, path.name.split(".")[0])
        if path not in kept and not (segment.is_dir() and is_held(segment)):
            path.unlink()
    for job, plan in unfinished_jobs(collection):
        if plan.get("base") != commit.token:  # it would add to a commit that is no longer the last
            shutil.rmtree(job)
    for temporary in collection.glob("*.tmp"):
        temporary.unlink()
    with contextlib.suppress(OSError):
        (collection / "building").rmdir()


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
