"""Removing what no commit and no resumable job names: the remains of killed writes and of replaced segments."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from indexing.commit import Commit, SegmentEntry
from indexing.lock import unheld
from indexing.segment import deletes_path, index_folder, metadata_folder, segment_folder
from indexing.shared_state import named_states, state_folder, states_folder
from indexing.staging import Staging, jobs, plan_of


def sweep(collection: Path, commit: Commit) -> None:
    """Remove files that the commit does not name; what a reader still holds stays until a later sweep.

    The caller holds the writer lock.
    """
    entries = {entry.id: entry for entry in commit.segments}
    readers = False
    for folder in _folders(collection / "segments"):
        with unheld(folder) as free:
            readers |= not free
            if free:
                _sweep_segment(folder, entries.get(folder.name))
    if not readers:  # any of them may be of a commit that names other states
        _sweep_states(collection, commit)
    kept = {
        deletes_path(collection, entry.id, entry.deletes.generation)
        for entry in commit.segments
        if entry.deletes
    }
    for path in sorted((collection / "deletes").glob("*.npy")):
        if path not in kept:
            _sweep_deletes(path, segment_folder(collection, path.name.split(".")[0]))
    for job in jobs(collection):
        plan = plan_of(job)  # None where no run can resume it
        if plan is None or plan.get("base") != commit.token:
            Staging.remove(job)
    for temporary in collection.glob("*.tmp"):
        temporary.unlink()
    with contextlib.suppress(OSError):
        (collection / "building").rmdir()


def _sweep_segment(folder: Path, entry: SegmentEntry | None) -> None:
    """Remove a segment, or what its entry does not name of it; nobody holds it meanwhile."""
    if entry is None:
        shutil.rmtree(folder)
        return
    named = {metadata_folder(folder, entry.metadata)}
    named |= {index_folder(folder, name, generation) for name, generation in entry.indexes.items()}
    named |= {folder / "vectors" / name for name in entry.vectors}
    named |= {folder / "documents", folder / "vectors", folder / "indexes"}
    for part in (*_folders(folder), *_folders(folder / "vectors"), *_folders(folder / "indexes")):
        if part not in named:
            shutil.rmtree(part, ignore_errors=True)


def _sweep_states(collection: Path, commit: Commit) -> None:
    named = {state_folder(collection, name, generation) for name, generation in named_states(commit)}
    for owner in _folders(states_folder(collection)):
        for folder in _folders(owner):
            if folder not in named:
                shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            owner.rmdir()


def _sweep_deletes(path: Path, segment: Path) -> None:
    if not segment.is_dir():
        path.unlink()
        return
    with unheld(segment) as free:
        if free:
            path.unlink()


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
