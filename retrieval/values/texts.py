"""Documents and queries as people write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

MetadataValue = str | int | float | bool | datetime | list[str] | None
Metadata = Mapping[str, MetadataValue]
_NOTHING: Metadata = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be found.

    Attributes:
        id: unique in its collection.
        text: the body; may be empty.
        title: shown in results and, by default, part of what is encoded; may be empty.
        metadata: typed fields that filters read.
    """

    id: str
    text: str
    title: str = ""
    metadata: Metadata = field(default_factory=lambda: _NOTHING)

    def contents(self) -> str:
        """Title and text as one string, what one-field retrievers read."""
        return f"{self.title} {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """A text to search with."""

    id: str
    text: str
