"""`tercet delete`: documents out of a collection, by id or by filter, in one commit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from indexing.collection import CollectionSnapshot
from indexing.commit import read_commit, write_commit
from indexing.corpora.lines import decode
from indexing.deletes import mark_deleted
from indexing.lock import writer_lock
from indexing.sweeping import sweep
from retrieval.errors import ConfigError


def read_ids(lines: Iterable[bytes], file: str) -> Iterator[str]:
    """The ids of a file with one a line; blank lines are none.

    Raises:
        FormatError: a line is no UTF-8.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield decode(line, file, number).rstrip("\r\n")


def delete_documents(
    path: str | Path, ids: Sequence[str] = (), where: str | None = None, *, ignore_missing: bool = False
) -> int:
    """Delete documents by id and by metadata filter.

    Statistics (document frequencies, average length) are those of the remaining documents from this commit on.

    Returns:
        How many documents were deleted.

    Raises:
        ConfigError: an id is not there (unless ignore_missing), or the filter is wrong; nothing is deleted.
        LockedError: another process is writing.
    """
    path = Path(path)
    read_commit(path)
    with writer_lock(path):
        commit = read_commit(path)
        snapshot = CollectionSnapshot.open(path, commit)
        dead: dict[str, set[int]] = {}
        missing = []
        for id_ in ids:
            found = snapshot.find(id_)
            if found is None:
                missing.append(id_)
            else:
                dead.setdefault(found[0].entry.id, set()).add(found[1])
        if missing and not ignore_missing:
            raise ConfigError(
                f"{path} has no document {missing[0]!r}"
                + (f" (and {len(missing) - 1} more of the ids given)" if len(missing) > 1 else "")
                + "; nothing was deleted (--ignore-missing deletes those that are there)"
            )
        if where is not None:
            allowed = snapshot.filter(where)
            for segment in snapshot.segments:
                rows = allowed.slice(segment.base, segment.base + segment.n_rows)
                rows = rows if segment.live is None else rows & segment.live
                found_documents = np.unique(segment.documents.of_rows(rows.rows())).tolist()
                dead.setdefault(segment.entry.id, set()).update(found_documents)
        count = sum(len(documents) for documents in dead.values())
        if count:
            generation = commit.generation + 1
            segments = [
                mark_deleted(
                    path,
                    segment.entry,
                    segment.documents,
                    sorted(dead[segment.entry.id]),
                    segment.live,
                    generation,
                )
                if dead.get(segment.entry.id)
                else segment.entry
                for segment in snapshot.segments
            ]
            commit = replace(commit, generation=generation, segments=tuple(segments))
            write_commit(path, commit)
        snapshot.close()
        sweep(path, commit)
    return count
