"""Queries without a model: pieces of the document itself (as in Lee et al. 2019 and Izacard et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from indexing.chunking import sentence_spans
from indexing.progress import Progress
from indexing.tuning.queries import crop
from retrieval.values import Document
from training.generation.generator import Answer, GeneratorOptions, random_of


@dataclass(frozen=True)
class Crops:
    """A sentence or a run of 3 to 12 words, by turns of chance; the document keeps what was taken.

    Attributes:
        per_document: queries of each document.
        seed: of the choices.
    """

    takes_title: ClassVar[bool] = False

    per_document: int
    seed: int

    @classmethod
    def open(cls, options: GeneratorOptions, documents: Iterable[Document], progress: Progress) -> Self:
        """Nothing has to be known beforehand."""
        return cls(options.per_document, options.seed)

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the crops."""
        return {"generator": "crops", "per_document": self.per_document, "seed": self.seed}

    def generate(self, documents: Iterable[Document]) -> Iterator[Answer]:
        """In the order of the documents."""
        for document in documents:
            text, sentences = document.contents(), sentence_spans(document.text)
            taken: list[str] = []
            for number in range(self.per_document):
                rng = random_of(self.seed, document.id, number)
                whole = bool(rng.integers(2)) and len(sentences) > 1
                taken.append(_sentence(document.text, sentences, rng) if whole else crop(text, rng))
            yield Answer(document, tuple(taken))


def _sentence(text: str, sentences: list[tuple[int, int]], rng: np.random.Generator) -> str:
    start, end = sentences[int(rng.integers(len(sentences)))]
    return " ".join(text[start:end].split())
