"""Which generated queries are not worth training on, and why."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from typing import NamedTuple

from retrieval.analysis.words import words
from training.generation.generator import Answer

LONGEST = 64
"""Words of a query, unless told otherwise."""


class Kept(NamedTuple):
    """A query that is worth training on.

    Attributes:
        number: among those of its document.
        text: without superfluous white space.
        plain: as queries are compared (see ``normalised``).
    """

    number: int
    text: str
    plain: str


class Refusals:
    """Judges the queries of one document after another and counts what it refuses, by reason.

    Reasons: ``empty`` (no word in it), ``too long``, ``the document itself`` (all of its text, or of title and text),
    ``other script`` (most letters are of a script that the document does not hold), ``duplicate`` (the words of an
    earlier query of the same document).

    Attributes:
        counts: reason -> queries refused.
    """

    def __init__(self, longest: int = LONGEST) -> None:
        """Longest is the most words of a query."""
        self.counts: Counter[str] = Counter()
        self._longest = longest

    def kept(self, answer: Answer) -> list[Kept]:
        """The queries of a document that are not refused."""
        document = answer.document
        itself = {normalised(document.text), normalised(document.contents())}
        found = scripts(document.contents())
        kept: dict[str, Kept] = {}
        for number, query in enumerate(answer.queries):
            plain = normalised(query)
            reason = "duplicate" if plain in kept else self._reason(plain, query, itself, found)
            if reason is None:
                kept[plain] = Kept(number, " ".join(query.split()), plain)
            else:
                self.counts[reason] += 1
        return list(kept.values())

    def described(self) -> str:
        """The counts in words; "" where nothing was refused."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.counts.most_common())

    def _reason(self, plain: str, query: str, itself: set[str], of_document: set[str]) -> str | None:
        if not plain:
            return "empty"
        if plain.count(" ") >= self._longest:
            return "too long"
        if plain in itself:
            return "the document itself"
        return None if _usual_script(query) <= of_document else "other script"


def normalised(text: str) -> str:
    """The words of a text without case, marks between them and compatibility forms, joined by spaces."""
    return " ".join(words(unicodedata.normalize("NFKC", text).casefold()))


def scripts(text: str) -> set[str]:
    """The scripts that letters of a text are of, by the names of Unicode's characters."""
    return {_script(letter) for letter in set(text) if letter.isalpha()}


def _usual_script(text: str) -> set[str]:
    """The script of most letters; nothing of a text without letters."""
    counts = Counter(_script(letter) for letter in text if letter.isalpha())
    return {name for name, _ in counts.most_common(1)}


@functools.lru_cache(maxsize=1 << 14)
def _script(letter: str) -> str:
    """``LATIN``, ``CYRILLIC``, ``CJK``, ``HIRAGANA``, ..."""
    return unicodedata.name(letter, "").partition(" ")[0]
