"""Queries without a model: the few words that say most of a stretch of the document, as people type them."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from indexing.progress import Progress
from retrieval.analysis import Analyzer
from retrieval.values import Document
from training.generation.generator import Answer, GeneratorOptions, random_of

_TERMS = (3, 6)
"""Terms of a query, as many as people type."""
_STRETCH = 40
"""Words, stop words left out, that a query is chosen from, so that a document gets different ones. Of four terms of
the whole document 0.21, 0.36, 0.29 and 0.30 are in the question that people ask of it (CovidQA, MedQuAD, SQuAD, FEVER),
of a stretch's 0.20, 0.30, 0.28 and 0.29."""


_Word = tuple[str, str]
"""A word as it is written, and its term."""


@dataclass(frozen=True)
class Keywords:
    """The terms of greatest tf·idf in a random stretch of the document, as they are written there, in their order.

    tf is of the whole document. By idf alone the rarest words are misspelt ones and numbers of papers: 0.03, 0.19, 0.07
    and 0.27 of them are in real questions, mostly fewer than of words taken at random. Numbers and
    single letters are no terms.

    Attributes:
        n_documents: of the collection.
        frequencies: term -> documents that hold it.
        per_document: queries of each document.
        seed: of the stretch and of the number of terms.
    """

    takes_title: ClassVar[bool] = False

    n_documents: int
    frequencies: Mapping[str, int]
    per_document: int
    seed: int
    analyzer: Analyzer = field(default_factory=Analyzer)

    @classmethod
    def open(cls, options: GeneratorOptions, documents: Iterable[Document], progress: Progress) -> Self:
        """Count in how many documents each term stands."""
        analyzer = Analyzer()
        progress.start("count terms", None, "documents")
        frequencies, n_documents = Counter[str](), 0
        for n_documents, document in enumerate(documents, start=1):  # noqa: B007 - how many there were
            frequencies.update(set(analyzer.terms(document.contents())))
            progress.advance(1)
        return cls(n_documents, frequencies, options.per_document, options.seed, analyzer)

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the queries, the counts by their checksum."""
        counts = hashlib.blake2b(repr(sorted(self.frequencies.items())).encode(), digest_size=16)
        return {
            "generator": "keywords",
            "per_document": self.per_document,
            "seed": self.seed,
            "counts": counts.hexdigest(),
        }

    def generate(self, documents: Iterable[Document]) -> Iterator[Answer]:
        """In the order of the documents."""
        for document in documents:
            words: list[_Word] = self.analyzer.map(document.contents(), self._word)
            counts = Counter(term for _, term in words)
            weights = {term: n * self._idf(term) for term, n in counts.items() if _is_telling(term)}
            telling = [word for word in words if word[1] in weights]
            rngs = (random_of(self.seed, document.id, number) for number in range(self.per_document))
            yield Answer(document, tuple(_query(telling, weights, rng) for rng in rngs))

    def _word(self, word: str) -> _Word:
        return word, self.analyzer.term(word)

    def _idf(self, term: str) -> float:
        """As in BM25; a term that no document holds is as rare as one of a single document."""
        frequency = self.frequencies.get(term, 1)
        return math.log1p((self.n_documents - frequency + 0.5) / (frequency + 0.5))


def _query(words: Sequence[_Word], weights: Mapping[str, float], rng: np.random.Generator) -> str:
    """The heaviest terms of a stretch, each as it is first written there, in their order."""
    start = int(rng.integers(max(1, len(words) - _STRETCH + 1)))
    first: dict[str, str] = {}
    for word, term in words[start : start + _STRETCH]:
        first.setdefault(term, word)
    heaviest = set(heapq.nlargest(int(rng.integers(*_TERMS, endpoint=True)), first, key=weights.__getitem__))
    return " ".join(word for term, word in first.items() if term in heaviest)


def _is_telling(term: str) -> bool:
    """Whether a term has a letter and is not just one (an ideograph says enough by itself)."""
    return any(map(str.isalpha, term)) and (len(term) > 1 or not term.isascii())
