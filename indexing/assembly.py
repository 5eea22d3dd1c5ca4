"""From staged batches to a segment: components joined, indexes built, everything sealed before it is committed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from indexing.commit import Commit, IndexSpec, SegmentEntry
from indexing.documents import DocumentsWriter
from indexing.durable import sync_folder, write_manifest
from indexing.fitting import fitted, shared_folder, with_indexes
from indexing.kinds import kind_class
from indexing.metadata import write_metadata
from indexing.progress import Progress
from indexing.segment import index_folder, metadata_folder, segment_folder
from indexing.staging import StagedBatch
from indexing.vectors import join_vectors, load_vectors
from retrieval.errors import ConfigError


def assemble_segment(
    collection: Path,
    commit: Commit,
    batches: Sequence[StagedBatch],
    *,
    memory_bytes: int,
    progress: Progress,
) -> tuple[SegmentEntry, Commit]:
    """Write the segment that ``commit.next_segment`` names; nothing refers to it until it is committed.

    Returns:
        The segment, and the commit with what its indexes have learned from this segment if it is the first.
    """
    segment_id = f"{commit.next_segment:08d}"
    folder = segment_folder(collection, segment_id)
    if folder.exists():  # left by a build that was killed before its commit
        shutil.rmtree(folder)
    folder.mkdir(parents=True)

    n_rows = sum(batch.facts["n_rows"] for batch in batches)
    progress.start("store documents", n_rows, "rows")
    writer = DocumentsWriter(folder / "documents", chunked=commit.chunking != "none")
    for batch in batches:
        writer.append(batch.documents())
        progress.advance(batch.facts["n_rows"])
    writer.close()
    write_metadata(metadata_folder(folder, 1), (batch.metadata() for batch in batches), commit.schema)

    indexes: dict[str, int] = {}
    for name, representation in commit.representations.items():
        progress.start(f"store {name}", None, "rows")
        join_vectors([batch.vectors_folder(name) for batch in batches], folder / "vectors" / name)
        sync_folder(folder / "vectors")
        specs = fitted(
            collection,
            name,
            representation.indexes,
            load_vectors(folder / "vectors" / name),
            memory_bytes=memory_bytes,
            progress=progress,
        )
        commit = with_indexes(commit, name, specs)
        for spec in specs:
            build_index(collection, segment_id, name, spec, 1, memory_bytes=memory_bytes, progress=progress)
            indexes[f"{name}-{spec.kind}"] = 1
    for path in (folder, folder.parent):
        sync_folder(path)
    entry = SegmentEntry(
        id=segment_id,
        n_documents=writer.n_documents,
        n_rows=writer.n_rows,
        metadata=1,
        vectors=tuple(commit.representations),
        indexes=indexes,
    )
    return entry, commit


def build_index(
    collection: Path,
    segment_id: str,
    name: str,
    spec: IndexSpec,
    generation: int,
    *,
    memory_bytes: int,
    progress: Progress,
) -> None:
    """Build one index over the stored vectors of a segment and seal it; its kind is fitted already."""
    segment = segment_folder(collection, segment_id)
    folder = index_folder(segment, f"{name}-{spec.kind}", generation)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    vectors = load_vectors(segment / "vectors" / name)
    progress.start(f"index {name} ({spec.kind})", len(vectors), "rows")
    kind_class(spec.kind).build(
        vectors,
        folder,
        spec.parameters,
        memory_bytes=memory_bytes,
        progress=progress.advance,
        **shared_folder(collection, name, spec),
    )
    write_manifest(
        folder,
        {
            "component": "index",
            "representation": name,
            "kind": spec.kind,
            "parameters": dict(spec.parameters),
            "n_rows": len(vectors),
        },
    )
    sync_folder(folder.parent)
    sync_folder(segment)


def index_spec(kind: str, parameters: Mapping[str, object]) -> IndexSpec:
    """A spec with every parameter filled in and checked.

    Raises:
        ConfigError: an unknown kind or parameter, or an impossible value.
    """
    if "state" in parameters:
        raise ConfigError(f"the parameter state of index kind {kind!r} is found by training; leave it out")
    return IndexSpec(kind, kind_class(kind).parameters(parameters))
