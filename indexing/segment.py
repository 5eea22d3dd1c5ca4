"""An open segment: immutable documents, metadata, vectors and indexes, with the bitmap of its deleted rows."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from indexing.commit import Commit, IndexSpec, SegmentEntry
from indexing.documents import StoredDocuments, load_documents
from indexing.durable import checksum, open_manifest
from indexing.fitting import shared_folder
from indexing.kinds import kind_class
from indexing.lock import hold_segment
from indexing.metadata import StoredMetadata, load_metadata
from indexing.vectors import Vectors, load_vectors
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, CorruptError
from retrieval.values.storage import map_array


def segment_folder(collection: Path, segment_id: str) -> Path:
    """Where a segment lives."""
    return collection / "segments" / segment_id


def index_folder(segment: Path, name: str, generation: int) -> Path:
    """Where generation GEN of the index "REPRESENTATION-KIND" lives."""
    return segment / "indexes" / f"{name}-{generation}"


def metadata_folder(segment: Path, generation: int) -> Path:
    """Where a generation of the metadata lives."""
    return segment / f"metadata-{generation}"


def deletes_path(collection: Path, segment_id: str, generation: int) -> Path:
    """Where a generation of a segment's deleted rows lives."""
    return collection / "deletes" / f"{segment_id}.{generation}.npy"


@dataclass(frozen=True, eq=False)
class Segment:
    """One segment as a reader sees it; components are mapped on first use.

    Attributes:
        base: the snapshot's row number of this segment's row 0.
        base_document: the same for documents.
        live: the rows that are not deleted, or None when all are live.
        close: lets the segment be swept; happens by itself when the object is gone.
    """

    collection: Path
    entry: SegmentEntry
    base: int
    base_document: int
    commit: Commit
    live: Bitmap | None
    close: Callable[[], object] = field(default=lambda: None, repr=False, compare=False)

    @classmethod
    def open(
        cls, collection: Path, commit: Commit, entry: SegmentEntry, base: int, base_document: int
    ) -> Segment:
        """Open a segment of a commit and keep it from being swept.

        Raises:
            CorruptError: its deletes are damaged.
            FileNotFoundError: it has been swept since the commit was read.
        """
        folder = segment_folder(collection, entry.id)
        hold = hold_segment(folder)
        try:
            live = _live_rows(collection, entry)
            segment = cls(collection, entry, base, base_document, commit, live)
        except BaseException:
            os.close(hold)
            raise
        object.__setattr__(segment, "close", weakref.finalize(segment, os.close, hold))
        return segment

    @property
    def folder(self) -> Path:
        """Where the segment lives."""
        return segment_folder(self.collection, self.entry.id)

    @property
    def n_rows(self) -> int:
        """Rows, deleted ones included."""
        return self.entry.n_rows

    @functools.cached_property
    def documents(self) -> StoredDocuments:
        """Ids, titles, texts, chunks."""
        return load_documents(self.folder / "documents")

    @functools.cached_property
    def metadata(self) -> StoredMetadata:
        """Typed fields of every document."""
        return load_metadata(metadata_folder(self.folder, self.entry.metadata))

    @functools.cached_property
    def _vectors(self) -> dict[str, Vectors]:
        return {}

    @functools.cached_property
    def _indexes(self) -> dict[str, Any]:
        return {}

    def vectors(self, name: str) -> Vectors:
        """The stored vectors of a representation."""
        if name not in self._vectors:
            self._vectors[name] = load_vectors(self.folder / "vectors" / name)
        return self._vectors[name]

    def index(self, name: str, kind: str) -> Any:
        """The index of a kind over a representation."""
        key = f"{name}-{kind}"
        if key not in self._indexes:
            if key not in self.entry.indexes:
                raise ConfigError(
                    f"segment {self.entry.id} has no index {key!r}; it has {sorted(self.entry.indexes)}"
                )
            folder = index_folder(self.folder, key, self.entry.indexes[key])
            spec = IndexSpec(kind, open_manifest(folder)["parameters"])
            self._indexes[key] = kind_class(kind).load(
                folder, self.vectors(name), spec.parameters, **shared_folder(self.collection, name, spec)
            )
        return self._indexes[key]

    def touch(self) -> None:
        """Map every component now, so that damage shows at opening."""
        len(self.documents)
        len(self.metadata)
        for name, representation in self.commit.representations.items():
            for spec in representation.indexes:
                self.index(name, spec.kind)

    def bytes_on_disk(self) -> dict[str, int]:
        """Bytes of each component, by its folder's name relative to the segment."""
        sizes: dict[str, int] = {}
        for manifest in sorted(self.folder.rglob("manifest.json")):
            files = manifest.parent.iterdir()
            sizes[str(manifest.parent.relative_to(self.folder))] = sum(file.stat().st_size for file in files)
        return sizes


def _live_rows(collection: Path, entry: SegmentEntry) -> Bitmap | None:
    if entry.deletes is None:
        return None
    path = deletes_path(collection, entry.id, entry.deletes.generation)
    bits = map_array(path)
    if checksum(path) != entry.deletes.sha256:
        raise CorruptError(path, "its checksum does not match (changed since it was written)")
    return ~Bitmap(np.asarray(bits), entry.n_rows)
