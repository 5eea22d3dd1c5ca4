"""The types of metadata fields, found while documents stream by: one type a field over the whole collection."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from indexing.corpora.corpus import error_at
from retrieval.values import Metadata

if TYPE_CHECKING:
    import polars

TYPE_NAMES: dict[type, str] = {
    str: "string",
    int: "integer",
    float: "float",
    bool: "boolean",
    datetime: "datetime",
    list: "strings",
    type(None): "null",
}
MAX_FIELDS = 1000
_INT64 = 1 << 63


class MetadataSchema:
    """Field name -> type, growing with the documents it is shown.

    Integers and floats make a float field; null fits any type; any other two types in one field are an error. Where
    every field stood first is remembered while the object lives (not in JSON), so that an error can name both places.
    """

    def __init__(self) -> None:
        self._types: dict[str, type] = {}
        self._first: dict[str, tuple[str, str, type]] = {}

    def add(self, metadata: Metadata, place: str) -> None:
        """Take in one document's fields.

        Raises:
            FormatError: a field has another type than before, an integer needs more than 64 bits, or there are
                more than 1,000 fields.
        """
        for name, value in metadata.items():
            kind = type(value)
            if kind is int and not -_INT64 <= value < _INT64:  # type: ignore[operator]
                raise error_at(
                    place, f'the metadata field "{name}" is {value}; integers have 64 bits, write a string'
                )
            known = self._types.get(name)
            if known is not kind:
                self._merge(name, known, kind, value, place)

    def _merge(self, name: str, known: type | None, kind: type, value: Any, place: str) -> None:
        if kind not in TYPE_NAMES:
            raise error_at(
                place, f'the metadata field "{name}" is of type {kind.__name__}, which metadata cannot hold'
            )
        if known is None and len(self._types) >= MAX_FIELDS:
            raise error_at(
                place, f'"{name}" is one metadata field more than the {MAX_FIELDS:,} a collection can have'
            )
        if known is None or known is type(None):
            self._types[name] = kind
            self._first[name] = (place, _shown(value), kind)
        elif {known, kind} == {int, float}:
            self._types[name] = float
        elif kind is not type(None):
            # what stood there first may be an integer in a field that has become float since
            first, example, type_then = self._first.get(name, ("", "", known))
            earlier = (
                f"{example} ({TYPE_NAMES[type_then]}) at {first}" if first else f"{TYPE_NAMES[known]} before"
            )
            raise error_at(
                place,
                f'the metadata field "{name}" is {_shown(value)} ({TYPE_NAMES[kind]}) here and {earlier}; '
                "a field has one type in the whole collection",
            )

    def to_json(self) -> dict[str, str]:
        """Field name -> type name, by name."""
        return {name: TYPE_NAMES[kind] for name, kind in sorted(self._types.items())}

    @classmethod
    def from_json(cls, types: Mapping[str, str]) -> MetadataSchema:
        """What ``to_json`` gave."""
        kinds = {name: kind for kind, name in TYPE_NAMES.items()}
        schema = cls()
        schema._types = {name: kinds[kind] for name, kind in types.items()}
        return schema


def polars_type(name: str) -> polars.DataType:
    """The column type of a type name of ``to_json``."""
    import polars as pl

    types: dict[str, polars.DataType] = {
        "string": pl.String(),
        "integer": pl.Int64(),
        "float": pl.Float64(),
        "boolean": pl.Boolean(),
        "datetime": pl.Datetime("us"),
        "strings": pl.List(pl.String()),
        "null": pl.Null(),
    }
    return types[name]


def _shown(value: Any) -> str:
    shown = repr(str(value) if isinstance(value, datetime) else value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
