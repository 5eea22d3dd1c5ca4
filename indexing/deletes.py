"""Deleting documents: a new bitmap of dead rows for every segment that loses some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from indexing.commit import Deletes, SegmentEntry
from indexing.documents import Documents
from indexing.durable import checksum, sync_file, sync_folder
from indexing.segment import deletes_path
from retrieval.bitmap import Bitmap


def mark_deleted(
    collection: Path,
    entry: SegmentEntry,
    documents: Documents,
    dead: Sequence[int],
    live: Bitmap | None,
    generation: int,
) -> SegmentEntry:
    """Write the bitmap of a segment with further documents deleted, and return the entry that names it.

    Args:
        dead: document numbers within the segment, live until now.
        live: the rows that are live before; None means all.
        generation: of the commit that is going to name the bitmap.
    """
    mask = np.zeros(entry.n_rows, dtype=np.bool_) if live is None else ~live.mask()
    for document in dead:
        first, last = documents.rows_of(document)
        mask[first:last] = True
    path = deletes_path(collection, entry.id, generation)
    path.parent.mkdir(exist_ok=True)
    np.save(path, Bitmap.from_mask(mask).bits, allow_pickle=False)
    sync_file(path)
    sync_folder(path.parent)
    sync_folder(collection)
    before = 0 if entry.deletes is None else entry.deletes.documents
    facts = Deletes(generation, int(mask.sum()), before + len(set(dead)), checksum(path))
    return replace(entry, deletes=facts)
