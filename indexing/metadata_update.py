"""`tercet add --metadata-only`: fields of stored documents changed, nothing encoded again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from indexing.collection import CollectionSnapshot
from indexing.commit import read_commit, write_commit
from indexing.lock import writer_lock
from indexing.metadata import pack_metadata, write_metadata
from indexing.metadata_schema import MetadataSchema
from indexing.segment import Segment, metadata_folder, segment_folder
from indexing.sweeping import sweep
from retrieval.errors import FormatError
from retrieval.values import Strings

_BATCH = 10_000


def update_metadata(path: str | Path, updates: str | Path) -> int:
    """Merge fields into the metadata of documents.

    Args:
        updates: JSON lines, each ``{"_id": ..., FIELD: value, ...}`` or with the fields under "metadata"; null
            removes a field.

    Returns:
        How many documents changed.

    Raises:
        FormatError: a line is malformed, names an unknown document, carries text, or conflicts with the type that
            a field has; nothing is changed.
    """
    path, updates = Path(path), Path(updates)
    read_commit(path)
    with writer_lock(path):
        commit = read_commit(path)
        snapshot = CollectionSnapshot.open(path, commit)
        schema = MetadataSchema.from_json(dict(commit.schema))
        changes: dict[int, dict[int, dict[str, Any]]] = {}
        for line, id_, fields in _read_updates(updates):
            found = snapshot.find(id_)
            if found is None:
                raise FormatError(f"{path} has no document {id_!r}; nothing was changed", updates, line)
            schema.add(
                {name: value for name, value in fields.items() if value is not None}, f"{updates}:{line}"
            )
            position = snapshot.segments.index(found[0])
            changes.setdefault(position, {}).setdefault(found[1], {}).update(fields)
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


def _read_updates(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror})", path) from error
    with stream:
        for number, raw in enumerate(stream, start=1):
            if not raw.strip():
                continue
            try:
                record = orjson.loads(raw)
            except orjson.JSONDecodeError as error:
                raise FormatError(f"not valid JSON: {error}", path, number) from error
            if not isinstance(record, dict) or not isinstance(record.get("_id"), str):
                raise FormatError('every line needs "_id", a string, and the fields to change', path, number)
            for name in ("text", "title"):
                if name in record:
                    raise FormatError(
                        f'"{name}" cannot change without encoding again; add the whole document with '
                        "`tercet add --on-duplicate replace`",
                        path,
                        number,
                    )
            id_ = record.pop("_id")
            fields = record.pop("metadata", {})
            if not isinstance(fields, dict):
                raise FormatError('"metadata" must be an object', path, number)
            yield number, id_, {**fields, **record}


def _merged(segment: Segment, changes: Mapping[int, Mapping[str, Any]]) -> Iterator[Strings]:
    lines = segment.metadata.lines
    for start in range(0, len(lines), _BATCH):
        records = []
        for document in range(start, min(start + _BATCH, len(lines))):
            record = {**segment.metadata[document], **changes.get(document, {})}
            records.append({name: value for name, value in record.items() if value is not None})
        yield pack_metadata(records)
