"""From a line's fields to a query with its documents: pairs, triples and scored lists, by the names that are in use."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from indexing.corpora.fields import described
from retrieval.errors import FormatError

QUERY = ("query", "anchor", "question")
POSITIVE = ("positive", "pos", "document", "answer")
NEGATIVE = ("negative", "negatives", "neg")
NUMBERED = re.compile(r"negative_\d+")
DOCUMENTS = ("documents",)
LABELS = ("labels", "label")
SCORES = ("scores", "score")
POSITIVE_SCORES = ("pos_scores",)
NEGATIVE_SCORES = ("neg_scores",)
_NAMES = frozenset(
    (*QUERY, *POSITIVE, *NEGATIVE, *DOCUMENTS, *LABELS, *SCORES, *POSITIVE_SCORES, *NEGATIVE_SCORES)
)


class Judged(NamedTuple):
    """A query with documents that are judged, and scored by a teacher where it gave scores.

    Attributes:
        query: its text.
        documents: their texts.
        labels: judgements, one for each document; 0 is a negative.
        scores: a teacher's, one for each document, or None.
    """

    query: str
    documents: list[str]
    labels: list[float]
    scores: list[float] | None


def is_known(name: str) -> bool:
    """Whether a field means something here; others are passed over."""
    return name in _NAMES or NUMBERED.fullmatch(name) is not None


class Line:
    """The fields of one line, with its place for errors."""

    def __init__(self, values: Mapping[str, Any], file: str, number: int) -> None:
        self._values = {name: value for name, value in values.items() if value is not None}
        self._file, self._number = file, number

    def judged(self) -> Judged:
        """The query and its documents, whichever of the forms the line has.

        Raises:
            FormatError: a field is missing, empty or of another type, there are not as many labels or scores as
                documents, or one of them is no finite number.
        """
        query = self._texts(QUERY)
        if len(query) != 1:
            raise self._error(f'"query" holds {len(query)} texts; a line has one query')
        return self._listed(query[0]) if self._has(DOCUMENTS) else self._sided(query[0])

    def _listed(self, query: str) -> Judged:
        """Documents with labels, scores or both; by scores alone the best of them answers the query."""
        documents = self._texts(DOCUMENTS)
        labels, scores = self._numbers(LABELS, len(documents)), self._numbers(SCORES, len(documents))
        if labels is None:
            if scores is None:
                raise self._error('"documents" needs "labels", "scores" or both beside it')
            best = scores.index(max(scores))
            labels = [float(place == best) for place in range(len(scores))]
        return Judged(query, documents, labels, scores)

    def _sided(self, query: str) -> Judged:
        """What answers the query and what does not in fields of their own; a pair may have a label of its own."""
        positives, negatives = self._texts(POSITIVE), self._negatives()
        documents = positives + negatives
        labels = None if negatives else self._numbers(LABELS, len(documents))
        if labels is None:
            labels = [1.0] * len(positives) + [0.0] * len(negatives)
        return Judged(query, documents, labels, self._sided_scores(len(positives), len(negatives)))

    def _sided_scores(self, n_positives: int, n_negatives: int) -> list[float] | None:
        of_positives = self._numbers(POSITIVE_SCORES, n_positives)
        of_negatives = self._numbers(NEGATIVE_SCORES, n_negatives)
        if of_positives is None and of_negatives is None:
            return self._numbers(SCORES, n_positives + n_negatives)
        if of_positives is None or (of_negatives is None and n_negatives):
            raise self._error('"pos_scores" and "neg_scores" stand together or not at all')
        return of_positives + (of_negatives or [])

    def _negatives(self) -> list[str]:
        name = self._named(NEGATIVE)
        if name is not None:
            return self._texts(NEGATIVE) if self._values[name] != [] else []
        numbered = sorted(filter(NUMBERED.fullmatch, self._values), key=lambda name: int(name.split("_")[1]))
        return [text for name in numbered for text in self._texts((name,))]

    def _texts(self, names: Sequence[str]) -> list[str]:
        name = self._named(names)
        if name is None:
            others = f" (nor {_listed(names[1:])})" if names[1:] else ""
            raise self._error(f'"{names[0]}" is missing{others}; the line has {_listed(list(self._values))}')
        value = self._values[name]
        texts = value if isinstance(value, list) else [value]
        if not texts:
            raise self._error(f'"{name}" is an empty list')
        for text in texts:
            if not isinstance(text, str):
                raise self._error(f'"{name}" holds {described(text)}; needed is a string')
            if not text or text.isspace():
                raise self._error(f'"{name}" is empty; leave the line out or give it a text')
        return texts

    def _numbers(self, names: Sequence[str], n: int) -> list[float] | None:
        name = self._named(names)
        if name is None:
            return None
        value = self._values[name]
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) != n:
            raise self._error(
                f'"{name}" holds {len(numbers)} numbers for {n} documents; needed is one for each'
            )
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                raise self._error(f'"{name}" holds {described(number)}; needed are finite numbers')
        return [float(number) for number in numbers]

    def _named(self, names: Sequence[str]) -> str | None:
        for name in names:  # a loop, since this runs several times for each of millions of lines
            if name in self._values:
                return name
        return None

    def _has(self, names: Sequence[str]) -> bool:
        return self._named(names) is not None

    def _error(self, message: str) -> FormatError:
        return FormatError(message, self._file, self._number)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "no field"
