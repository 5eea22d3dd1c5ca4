"""shared/NAME/GENERATION: what was trained once for a whole collection, such as an encoder's projection or centroids.

NAME is a representation where its encoder learned it, REPRESENTATION-KIND where an index did, and
REPRESENTATION-query-bank for sample queries. GENERATION is a hash of the content, so that a state never changes under
its name and the same content is stored once. The folder is sealed by a manifest before it gets its name. A state is in
use when the commit names it; ``indexing.sweeping`` removes others.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from indexing.commit import Commit
from indexing.durable import (
    MANIFEST,
    open_manifest,
    read_sealed,
    sync_folder,
    verify_component,
    write_manifest,
)

_TEMPORARY = ".tmp"


def states_folder(collection: Path) -> Path:
    """Where the states of a collection live."""
    return collection / "shared"


def state_folder(collection: Path, name: str, generation: str) -> Path:
    """Where one state lives."""
    return states_folder(collection) / name / generation


def bank_name(representation: str) -> str:
    """Whose state the sample queries of a representation are."""
    return f"{representation}-query-bank"


def named_states(commit: Commit) -> Iterator[tuple[str, str]]:
    """Name and generation of every state that a commit uses."""
    for name, representation in commit.representations.items():
        if representation.state is not None:
            yield name, representation.state
        if representation.query_bank is not None:
            yield bank_name(name), representation.query_bank
        for spec in representation.indexes:
            if spec.state is not None:
                yield f"{name}-{spec.kind}", spec.state


def put_state(collection: Path, name: str, write: Callable[[Path], None]) -> str:
    """Store a state, durably; the same content twice is one folder.

    The caller holds the writer lock.

    Args:
        write: puts the state's files into the folder it is given.

    Returns:
        The generation to open it by.
    """
    parent = states_folder(collection) / name
    temporary = parent / f"new{_TEMPORARY}"
    if temporary.exists():  # left by a process that was killed
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    write(temporary)
    write_manifest(temporary, {"component": "state"})
    files = json.dumps(read_sealed(temporary / MANIFEST)["files"], sort_keys=True)
    generation = hashlib.sha256(files.encode()).hexdigest()[:16]
    target = parent / generation
    if target.exists() and verify_component(target)[1]:  # damaged since it was stored
        shutil.rmtree(target)
    if target.exists():
        shutil.rmtree(temporary)
    else:
        temporary.rename(target)
    for folder in (parent, parent.parent, collection):
        sync_folder(folder)
    return generation


def open_state(collection: Path, name: str, generation: str) -> Path:
    """The folder of a state, after the checks that are cheap.

    Raises:
        CorruptError: a file is missing, of another size or changed.
    """
    folder = state_folder(collection, name, generation)
    open_manifest(folder)
    return folder


def state_bytes(collection: Path, name: str, generation: str) -> int:
    """Bytes on disk of a state."""
    return sum(file.stat().st_size for file in state_folder(collection, name, generation).iterdir())
