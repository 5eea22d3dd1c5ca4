"""The analyser: what Lucene's EnglishAnalyzer does, and Snowball for other languages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from retrieval.analysis.stemming import stemmer
from retrieval.analysis.words import MAX_TOKEN_UNITS, cut_words, utf16_units, word_spans, words

T = TypeVar("T")

ENGLISH_STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these "
    "they this to was will with".split()
)
"""Lucene's 33."""

_APOSTROPHES = ("'", "\u2019", "\uff07")
_JAVA_LOWER = {0x130: "i", 0x3A3: "\u03c3"}  # one character each in Java, whatever stands around them
_CACHE_LIMIT = 1_000_000


class _TooLongError(Exception):
    """A word must be cut before it can be looked up."""


@dataclass(frozen=True)
class Analyzer:
    """Text to terms: UAX #29 words, English possessives, lower case, stop words, stems.

    The defaults are the chain behind Anserini's BM25 figures (Lucene's EnglishAnalyzer: StandardTokenizer,
    EnglishPossessiveFilter, LowerCaseFilter, StopFilter, PorterStemFilter). Safe for threads.

    Attributes:
        possessives: whether a final ``'s`` is taken off.
        stop_words: lower-case words that are dropped.
        stemming: ``porter``, ``none`` or a Snowball algorithm ("german", "french", ...).
    """

    possessives: bool = True
    stop_words: frozenset[str] = ENGLISH_STOP_WORDS
    stemming: str = "porter"
    _cache: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _stem: Callable[[str], str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_stem", stemmer(self.stemming))

    def __reduce__(self) -> tuple[type[Analyzer], tuple[bool, frozenset[str], str]]:
        return Analyzer, (self.possessives, self.stop_words, self.stemming)

    def term(self, word: str) -> str:
        """The term of one word as ``words`` cuts them; "" when it is dropped."""
        term = self._cache.get(word)
        if term is None:
            if utf16_units(word, 0, len(word)) > MAX_TOKEN_UNITS:
                raise _TooLongError
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            term = self._cache[word] = self._make_term(word)
        return term

    def _make_term(self, word: str) -> str:
        if self.possessives and word[-1:] in ("s", "S") and word[-2:-1] in _APOSTROPHES:
            word = word[:-2]
        word = (word if word.isascii() else word.translate(_JAVA_LOWER)).lower()
        if word in self.stop_words or word.strip("_") == "":  # ASCII words may be joiners alone
            return ""
        with self._lock:
            return self._stem(word)

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in order."""
        return [term for term in self.map(text, self.term) if term]

    def map(self, text: str, of_word: Callable[[str], T]) -> list[T]:
        """``of_word`` of every word of a text; it must ask ``term`` about words it does not know."""
        try:
            return list(map(of_word, words(text)))
        except _TooLongError:
            return list(map(of_word, cut_words(text)))

    def spans(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Start, end (in characters) and term of every word that has one, for highlighting."""
        for start, stop in word_spans(text):
            if term := self.term(text[start:stop]):
                yield start, stop, term
