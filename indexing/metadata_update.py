"""`tercet add --metadata-only`: fields of stored documents changed, nothing encoded again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from indexing.collection import CollectionSnapshot
from indexing.commit import read_commit, write_commit
from indexing.corpora.fields import FieldNames, to_update
from indexing.corpora.jsonl import JsonlCorpus, JsonlStream
from indexing.lock import writer_lock
from indexing.metadata import pack_metadata, write_metadata
from indexing.metadata_schema import MetadataSchema
from indexing.segment import Segment, metadata_folder, segment_folder
from indexing.sweeping import sweep
from retrieval.errors import FormatError
from retrieval.values import Strings

_BATCH = 10_000


def update_metadata(path: str | Path, updates: str | Path, names: FieldNames | None = None) -> int:
    """Merge fields into the metadata of documents.

    Args:
        updates: JSON lines (plain, .gz, .zst, or "-" for standard input), each ``{"_id": ..., FIELD: value, ...}`` or
            with the fields under "metadata", read by the rules of ``indexing.corpora.fields``; null removes a field.
        names: which field holds the id, and fields to leave out.

    Returns:
        How many documents changed.

    Raises:
        FormatError: a line is malformed, names an unknown document, carries text, or conflicts with the type that
            a field has, or there is no line; nothing is changed.
    """
    path, names = Path(path), names or FieldNames()
    source = JsonlStream(names) if str(updates) == "-" else JsonlCorpus.open(Path(updates), names)
    read_commit(path)
    with writer_lock(path):
        commit = read_commit(path)
        snapshot = CollectionSnapshot.open(path, commit)
        schema = MetadataSchema.from_json(dict(commit.schema))
        changes = _read_changes(source, names, snapshot, schema)
        types = schema.to_json()
        widened = types != dict(commit.schema)
        entries = list(commit.segments)
        for position, segment in enumerate(snapshot.segments):
            if position not in changes and not widened:
                continue  # a new or widened field changes the columns of every segment
            generation = segment.entry.metadata + 1
            folder = metadata_folder(segment_folder(path, segment.entry.id), generation)
            write_metadata(folder, _merged(segment, changes.get(position, {})), types)
            entries[position] = replace(segment.entry, metadata=generation)
        following = commit.following(segments=tuple(entries), schema=types)
        if changes:
            write_commit(path, following)
        snapshot.close()
        sweep(path, following if changes else commit)
    return sum(len(part) for part in changes.values())


def _read_changes(
    source: JsonlCorpus | JsonlStream, names: FieldNames, snapshot: CollectionSnapshot, schema: MetadataSchema
) -> dict[int, dict[int, dict[str, Any]]]:
    """Position of a segment -> document number -> fields; the schema takes in what is new."""
    changes: dict[int, dict[int, dict[str, Any]]] = {}
    file = source.source
    for values, (_, line), _ in source.objects():
        id_, fields = to_update(values, names, snapshot.commit.schema, file, line)
        found = snapshot.find(id_)
        if found is None:
            raise FormatError(f"{snapshot.path} has no document {id_!r}; nothing was changed", file, line)
        schema.add({name: value for name, value in fields.items() if value is not None}, f"{file}:{line}")
        position = snapshot.segments.index(found[0])
        changes.setdefault(position, {}).setdefault(found[1], {}).update(fields)
    return changes


def _merged(segment: Segment, changes: Mapping[int, Mapping[str, Any]]) -> Iterator[Strings]:
    lines = segment.metadata.lines
    for start in range(0, len(lines), _BATCH):
        records = []
        for document in range(start, min(start + _BATCH, len(lines))):
            record = {**segment.metadata[document], **changes.get(document, {})}
            records.append({name: value for name, value in record.items() if value is not None})
        yield pack_metadata(records)
