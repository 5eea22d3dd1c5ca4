"""What the search page offers for filtering: the metadata fields of a collection and their commonest values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars
    from numpy.typing import NDArray

    from indexing.documents import Documents
    from retrieval.bitmap import Bitmap
    from service.live import ServedSnapshot

TOP_VALUES = 50
_LONGEST_VALUE = 200
_RANGED = ("integer", "float", "datetime")


def facets(snapshot: ServedSnapshot) -> list[dict[str, Any]]:
    """Each field with its type, its commonest values with their counts, and its range where it has one."""
    return [_facet(snapshot, name, kind) for name, kind in snapshot.commit.schema.items()]


def _facet(snapshot: ServedSnapshot, name: str, kind: str) -> dict[str, Any]:
    column = _column(snapshot, name, kind)
    facet: dict[str, Any] = {"name": name, "type": kind, "values": [], "n_values": 0}
    if column is None or len(column) == 0:
        return facet
    if kind in _RANGED:
        facet["min"], facet["max"] = column.min(), column.max()
    counts = column.value_counts(sort=True, name="_count")
    facet["n_values"] = len(counts)
    top = [(value, count) for value, count in counts.head(TOP_VALUES).iter_rows() if _short(value)]
    facet["values"] = sorted(top, key=lambda item: (-item[1], str(item[0])))
    return facet


def _column(snapshot: ServedSnapshot, name: str, kind: str) -> polars.Series | None:
    """The field's values over live documents, lists unrolled, nulls dropped.

    A segment may hold the field as a narrower type than the commit (integers before the first float came, nothing
    but nulls), or not at all.
    """
    import polars as pl

    from indexing.metadata_schema import polars_type

    parts = []
    for segment in snapshot.segments:
        values = segment.metadata.frame([name]).to_series().alias("value")
        if segment.live is not None:
            values = values.filter(pl.Series(_live_documents(segment.live, segment.documents)))
        values = values.drop_nulls().cast(polars_type(kind))
        if kind == "strings":
            values = values.explode().drop_nulls()
        if len(values):
            parts.append(values)
    return pl.concat(parts) if parts else None


def _live_documents(live: Bitmap, documents: Documents) -> NDArray[np.bool_]:
    """(N,) which documents are not deleted; the rows of one document are deleted together."""
    rows = live.mask()
    return rows if documents.spans is None else rows[documents.first_rows[:-1]]


def _short(value: object) -> bool:
    return not isinstance(value, str) or len(value) <= _LONGEST_VALUE
