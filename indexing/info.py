"""What a collection is, in figures: for `tercet info`, the API and reports. Imports no model code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from indexing.commit import FORMAT
from indexing.shared_state import named_states, state_bytes
from indexing.staging import unfinished_jobs

if TYPE_CHECKING:
    from indexing.collection import CollectionSnapshot


def describe(snapshot: CollectionSnapshot) -> dict[str, Any]:
    """Counts, representations, fields and bytes, as plain JSON values."""
    commit = snapshot.commit
    sizes: dict[str, int] = {}
    for segment in snapshot.segments:
        for component, n_bytes in segment.bytes_on_disk().items():
            name = (
                component.rsplit("-", 1)[0] if component.startswith(("indexes/", "metadata-")) else component
            )
            sizes[name] = sizes.get(name, 0) + n_bytes
    for name, generation in named_states(commit):
        sizes[f"shared/{name}"] = state_bytes(snapshot.path, name, generation)
    dead_rows = sum(entry.deletes.rows for entry in commit.segments if entry.deletes)
    return {
        "path": str(snapshot.path),
        "format": FORMAT,
        "commit": commit.generation,
        "token": commit.token,
        "created": commit.created,
        "source": commit.source,
        "documents": snapshot.n_documents,
        "rows": snapshot.n_rows - dead_rows,
        "deleted_rows": dead_rows,
        "chunking": commit.chunking,
        "segments": len(commit.segments),
        "fields": dict(commit.schema),
        "representations": {
            name: {
                "encoder": dict(representation.encoder),
                "fingerprint": representation.fingerprint,
                "value": representation.value,
                "state": representation.state,
                "query_bank": representation.query_bank,
                "indexes": [
                    {"kind": spec.kind, "parameters": dict(spec.parameters), "measured": spec.measured}
                    for spec in representation.indexes
                ],
            }
            for name, representation in commit.representations.items()
        },
        "bytes": sizes,
        "total_bytes": sum(sizes.values()),
        "unfinished_builds": unfinished_jobs(snapshot.path),
    }
