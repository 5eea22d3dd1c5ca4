"""`tercet compact`: all segments merged into one, deleted rows left behind, row order and scores kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexing.assembly import assemble_segment
from indexing.collection import CollectionSnapshot
from indexing.commit import read_commit, write_commit
from indexing.growing import take_strings
from indexing.lock import writer_lock
from indexing.options import BATCH_ROWS, rows_together
from indexing.progress import Progress, Silent
from indexing.segment import Segment
from indexing.staging import Staging
from indexing.sweeping import sweep
from indexing.vectors import VALUES, select_rows


def compact(
    path: str | Path,
    *,
    memory_bytes: int = 512 * 10**6,
    restart: bool = False,
    progress: Progress | None = None,
) -> bool:
    """Merge every segment into one without its deleted rows; nothing is encoded again.

    Readers go on with the commit they hold. A compaction that was killed resumes when it is started again, unless
    ``restart`` forgets it.

    Returns:
        Whether there was anything to do.
    """
    path = Path(path)
    read_commit(path)
    progress = progress or Silent()
    with writer_lock(path):
        commit = read_commit(path)
        if len(commit.segments) <= 1 and all(entry.deletes is None for entry in commit.segments):
            sweep(path, commit)
            return False
        snapshot = CollectionSnapshot.open(path, commit)
        staging = Staging(path, {"base": commit.token, "compact": True}, restart=restart)
        following = commit.following()
        if snapshot.n_documents:
            _stage_live_rows(snapshot, staging, progress)
            entry, following = assemble_segment(
                path, following, staging.batches, memory_bytes=memory_bytes, progress=progress
            )
            following = replace(following, segments=(entry,), next_segment=commit.next_segment + 1)
        else:
            following = commit.following(segments=())
        write_commit(path, following)
        snapshot.close()
        staging.drop()
        sweep(path, following)
    return True


def _stage_live_rows(snapshot: CollectionSnapshot, staging: Staging, progress: Progress) -> None:
    progress.start("read live rows", snapshot.n_documents, "documents")
    staged = len(staging.batches)
    for number, (segment, documents) in enumerate(_live_batches(snapshot)):
        progress.advance(len(documents))
        if number < staged:
            continue  # by an earlier run of the same compaction
        packed = segment.documents.select(documents)
        rows = _rows_of(segment, documents)
        vectors = {name: select_rows(segment.vectors(name), rows) for name in snapshot.commit.representations}
        metadata = take_strings(segment.metadata.lines, documents)
        staging.add(packed, metadata, vectors, {})


def _live_batches(snapshot: CollectionSnapshot) -> Iterator[tuple[Segment, NDArray[np.int64]]]:
    """Document numbers of about a batch's worth of rows each; the same at every run."""
    values = (VALUES[representation.value] for representation in snapshot.commit.representations.values())
    batch_rows = rows_together(BATCH_ROWS, values)
    for segment in snapshot.segments:
        documents = np.arange(len(segment.documents))
        if segment.live is not None:
            mask = segment.live.mask()
            first_rows = documents if segment.documents.spans is None else segment.documents.first_rows[:-1]
            documents = documents[mask[first_rows]]
        per_document = max(1, segment.n_rows // max(1, len(segment.documents)))
        step = max(1, batch_rows // per_document)
        for start in range(0, len(documents), step):
            yield segment, documents[start : start + step]


def _rows_of(segment: Segment, documents: NDArray[np.int64]) -> NDArray[np.int64]:
    if segment.documents.spans is None:
        return documents
    first_rows = segment.documents.first_rows
    counts = first_rows[documents + 1] - first_rows[documents]
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.arange(counts.sum()) + np.repeat(first_rows[documents] - offsets, counts)
