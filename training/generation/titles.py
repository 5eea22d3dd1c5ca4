"""Queries without a model: a document's own title, against its text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from indexing.progress import Progress
from retrieval.values import Document
from training.generation.generator import Answer, GeneratorOptions


@dataclass(frozen=True)
class Titles:
    """One query a document, its title; a document without one gets none."""

    takes_title: ClassVar[bool] = True

    @classmethod
    def open(cls, options: GeneratorOptions, documents: Iterable[Document], progress: Progress) -> Self:
        """Nothing has to be known beforehand."""
        return cls()

    @property
    def facts(self) -> dict[str, Any]:
        """The name says it all."""
        return {"generator": "titles"}

    def generate(self, documents: Iterable[Document]) -> Iterator[Answer]:
        """In the order of the documents."""
        for document in documents:
            yield Answer(document, (document.title,) if document.title else ())
