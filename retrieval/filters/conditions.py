"""The conditions a filter is made of: frozen, hashable, printed in one canonical form that parses to an equal one."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numpy.typing import NDArray

if TYPE_CHECKING:
    import numpy as np
    import polars

Value = str | int | float | bool
KEYWORDS = frozenset(("and", "or", "not", "in", "contains", "exists", "true", "false"))
PLAIN_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")


class Filter(ABC):
    """A condition on the metadata of a document; two are equal when their canonical forms are.

    (By that 1, 1.0 and true are three values, which Python's own comparison would take for one.)
    """

    __slots__ = ()

    @abstractmethod
    def fields(self) -> frozenset[str]:
        """The fields it reads."""

    @abstractmethod
    def __str__(self) -> str: ...

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Filter) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def evaluate(self, table: polars.DataFrame) -> NDArray[np.bool_]:
        """(N,) whether each of the N rows satisfies the condition.

        Raises:
            ConfigError: the table has no column of a field's name, or of a type the test does not fit.
        """
        from retrieval.filters.evaluation import evaluate

        return evaluate(self, table)


@dataclass(frozen=True, slots=True, eq=False)
class Compare(Filter):
    """``field = value`` and its kin.

    Attributes:
        op: one of = != < <= > >=.
    """

    field: str
    op: str
    value: Value

    def fields(self) -> frozenset[str]:
        """The one field."""
        return frozenset((self.field,))

    def __str__(self) -> str:
        return f"{field_text(self.field)} {self.op} {value_text(self.value)}"


@dataclass(frozen=True, slots=True, eq=False)
class In(Filter):
    """``field in [a, b]``: equal to one of them; of none, never true."""

    field: str
    values: tuple[Value, ...]

    def fields(self) -> frozenset[str]:
        """The one field."""
        return frozenset((self.field,))

    def __str__(self) -> str:
        return f"{field_text(self.field)} in [{', '.join(map(value_text, self.values))}]"


@dataclass(frozen=True, slots=True, eq=False)
class Contains(Filter):
    """``field contains "x"``: part of a string, or a member of a list."""

    field: str
    value: str

    def fields(self) -> frozenset[str]:
        """The one field."""
        return frozenset((self.field,))

    def __str__(self) -> str:
        return f"{field_text(self.field)} contains {value_text(self.value)}"


@dataclass(frozen=True, slots=True, eq=False)
class Exists(Filter):
    """``exists field``: it has a value."""

    field: str

    def fields(self) -> frozenset[str]:
        """The one field."""
        return frozenset((self.field,))

    def __str__(self) -> str:
        return f"exists {field_text(self.field)}"


@dataclass(frozen=True, slots=True, eq=False)
class And(Filter):
    """All of two or more conditions."""

    parts: tuple[Filter, ...]

    def fields(self) -> frozenset[str]:
        """Those of all parts."""
        return frozenset().union(*(part.fields() for part in self.parts))

    def __str__(self) -> str:
        return " and ".join(f"({part})" if isinstance(part, And | Or) else str(part) for part in self.parts)


@dataclass(frozen=True, slots=True, eq=False)
class Or(Filter):
    """Any of two or more conditions."""

    parts: tuple[Filter, ...]

    def fields(self) -> frozenset[str]:
        """Those of all parts."""
        return frozenset().union(*(part.fields() for part in self.parts))

    def __str__(self) -> str:
        return " or ".join(f"({part})" if isinstance(part, Or) else str(part) for part in self.parts)


@dataclass(frozen=True, slots=True, eq=False)
class Not(Filter):
    """The opposite."""

    part: Filter

    def fields(self) -> frozenset[str]:
        """Those of the part."""
        return self.part.fields()

    def __str__(self) -> str:
        return f"not ({self.part})" if isinstance(self.part, And | Or) else f"not {self.part}"


def field_text(name: str) -> str:
    """A field name as the grammar writes it."""
    if PLAIN_FIELD.fullmatch(name) and name.lower() not in KEYWORDS:
        return name
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def value_text(value: Value) -> str:
    """A value as the grammar writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
