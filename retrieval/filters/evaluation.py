"""Evaluating a filter over a table of metadata."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ConfigError, unknown_name
from retrieval.filters.conditions import (
    And,
    Compare,
    Contains,
    Exists,
    Filter,
    In,
    Not,
    Or,
    Value,
    field_text,
    value_text,
)

if TYPE_CHECKING:
    import polars

Mask = NDArray[np.bool_]
_DAY = timedelta(days=1)
_INT64 = 1 << 63


def evaluate(condition: Filter, table: polars.DataFrame) -> Mask:
    """(N,) which rows satisfy the condition.

    Raises:
        ConfigError: an unknown field, or a test that does not fit a field's type.
    """
    match condition:
        case And(parts):
            return np.logical_and.reduce([evaluate(part, table) for part in parts])
        case Or(parts):
            return np.logical_or.reduce([evaluate(part, table) for part in parts])
        case Not(part):
            return ~evaluate(part, table)
        case Exists(field):
            return _mask(_column(table, field).is_not_null())
        case Compare(field, op, value):
            return _compare(_column(table, field), op, value)
        case In(field, values):
            return _member(_column(table, field), values)
        case Contains(field, value):
            return _contains(_column(table, field), value)
    raise TypeError(f"no condition: {condition!r}")


def _column(table: polars.DataFrame, field: str) -> polars.Series:
    """The column with NaN as null, times without zone in microseconds, and categories as strings."""
    import polars as pl

    if field not in table.columns:
        raise unknown_name("field in the filter:", field, table.columns)
    # By number and renamed: polars takes a name like "^a.*$" or "*" for several columns.
    column = table.to_series(table.columns.index(field)).alias(field_text(field))
    dtype = column.dtype
    if dtype.is_float():
        return column.cast(pl.Float64).fill_nan(None)
    if isinstance(dtype, pl.Datetime):
        plain = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if dtype.time_zone else column
        return plain.cast(pl.Datetime("us"))
    if isinstance(dtype, pl.Date):
        return column.cast(pl.Datetime("us"))
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    return column


def _mask(column: polars.Series) -> Mask:
    return column.fill_null(value=False).to_numpy().astype(np.bool_, copy=False)


def _kind(column: polars.Series) -> str:
    import polars as pl

    dtype = column.dtype
    kinds = {pl.String: "strings", pl.Boolean: "booleans", pl.Datetime: "times", pl.Null: "nothing"}
    if dtype.is_integer():
        return "integers"
    if dtype.is_float():
        return "floats"
    if isinstance(dtype, pl.List):
        return "lists of strings"
    return next((kind for known, kind in kinds.items() if isinstance(dtype, known)), str(dtype))


def _mismatch(column: polars.Series, test: str, remedy: str) -> ConfigError:
    return ConfigError(
        f"filter: {column.name} {test} does not fit: the field holds {_kind(column)}; {remedy}"
    )


def _compare(column: polars.Series, op: str, value: Value) -> Mask:
    kind = _kind(column)
    if kind == "nothing":
        return np.zeros(len(column), dtype=np.bool_)
    test = f"{op} {value_text(value)}"
    if kind == "times" and isinstance(value, str):
        return _compare_time(column, op, value)
    if kind == "strings" and isinstance(value, str):
        return _ordered(column, op, value)
    if kind == "booleans" and isinstance(value, bool):
        if op not in ("=", "!="):
            raise _mismatch(column, test, "booleans take = and != only")
        return _ordered(column, op, value)
    if kind in ("integers", "floats") and not isinstance(value, str | bool):
        return _compare_number(column, op, value, kind)
    remedies = {
        "strings": "write the value in quotes",
        "booleans": "write true or false without quotes",
        "times": 'write a date like "2024-01-31"',
        "integers": "write a number without quotes",
        "floats": "write a number without quotes",
        "lists of strings": 'use contains "…" or exists',
    }
    raise _mismatch(column, test, remedies.get(kind, "such fields cannot be filtered"))


def _ordered(column: polars.Series, op: str, value: Any) -> Mask:
    if op == "=":
        return _mask(column == value)
    if op == "!=":
        return _mask(column != value)
    if op == "<":
        return _mask(column < value)
    if op == "<=":
        return _mask(column <= value)
    if op == ">":
        return _mask(column > value)
    return _mask(column >= value)


def _compare_number(column: polars.Series, op: str, value: int | float, kind: str) -> Mask:
    """Exact on integers; on floats an integer is first rounded to a float."""
    import polars as pl

    if kind == "floats":
        return _ordered(column, op, float(value))
    if isinstance(value, int) or value.is_integer():
        whole = int(value)
        if -_INT64 <= whole < _INT64:
            return _ordered(column.cast(pl.Int64), op, whole)
        value = float("inf") if whole > 0 else float("-inf")  # beyond every integer of 64 bits
    # A fraction is below 2**52, so rounding larger integers to floats cannot move them across it.
    return _ordered(column.cast(pl.Float64), op, value)


def _compare_time(column: polars.Series, op: str, value: str) -> Mask:
    start, length = _moment(value, column)
    if not length:
        return _ordered(column, op, start)
    # The whole day from its start up to, and without, the next one's.
    inside = _ordered(column, ">=", start)
    if start != datetime(9999, 12, 31):
        inside &= _ordered(column, "<", start + length)
    if op == "=":
        return inside
    if op == "!=":
        return _mask(column.is_not_null()) & ~inside
    if op in ("<", ">="):
        return _ordered(column, op, start)
    return inside | _ordered(column, "<", start) if op == "<=" else _ordered(column, ">", start) & ~inside


def _moment(value: str, column: polars.Series) -> tuple[datetime, timedelta]:
    """The time a string names, in UTC, and how long it lasts: a day, or no time at all."""
    try:
        day = date.fromisoformat(value)
        return datetime(day.year, day.month, day.day), _DAY
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(value)
        return (moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment), timedelta(0)
    except (ValueError, OverflowError):
        remedy = 'write "2024-01-31" or "2024-01-31T12:30"'
        raise ConfigError(
            f"filter: {column.name} holds times and {value_text(value)} is none; {remedy}"
        ) from None


def _member(column: polars.Series, values: tuple[Value, ...]) -> Mask:
    import polars as pl

    result = np.zeros(len(column), dtype=np.bool_)
    if _kind(column) == "strings" and values and all(isinstance(value, str) for value in values):
        return _mask(column.is_in(pl.Series(values, dtype=pl.String).implode()))
    for value in values:
        result |= _compare(column, "=", value)
    return result


def _contains(column: polars.Series, value: str) -> Mask:
    kind = _kind(column)
    if kind == "nothing":
        return np.zeros(len(column), dtype=np.bool_)
    if kind == "strings":
        return _mask(column.str.contains(value, literal=True))
    if kind == "lists of strings":
        return _mask(column.list.contains(value))
    raise _mismatch(column, f"contains {value_text(value)}", "contains is for strings and lists; use =")
