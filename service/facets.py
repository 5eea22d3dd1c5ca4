"""What the search page offers for filtering: the metadata fields of a collection and their commonest values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars

    from service.live import ServedSnapshot

TOP_VALUES = 50
_LONGEST_VALUE = 200
_RANGED = ("integer", "float", "datetime")


def facets(snapshot: ServedSnapshot) -> list[dict[str, Any]]:
    """Each field with its type, its commonest values with their counts, and its range where it has one."""
    return [_facet(snapshot, name, kind) for name, kind in snapshot.commit.schema.items()]


def _facet(snapshot: ServedSnapshot, name: str, kind: str) -> dict[str, Any]:
    column = _column(snapshot, name)
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


def _column(snapshot: ServedSnapshot, name: str) -> polars.Series | None:
    """The field's values over live documents, lists unrolled, nulls dropped."""
    import polars as pl

    parts = []
    for segment in snapshot.segments:
        values = segment.metadata.frame([name])[name]
        if segment.live is not None:
            values = values.filter(pl.Series(segment.live.mask()[segment.documents.first_rows[:-1]]))
        if values.dtype == pl.List:
            values = values.explode()
        values = values.drop_nulls()
        if len(values):
            parts.append(values)
    return pl.concat(parts) if parts else None


def _short(value: object) -> bool:
    return not isinstance(value, str) or len(value) <= _LONGEST_VALUE
