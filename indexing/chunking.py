"""Splitting a text into chunks that fit an encoder, at sentence boundaries where there is one.

A word is a run of at most 40 characters that are neither spaces nor CJK, or a single CJK ideograph or kana: what
has no spaces between words, or no words at all, is still cut into pieces an encoder can read.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from retrieval.errors import ConfigError

LONGEST_WORD = 40
_CJK = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]{{1,{LONGEST_WORD}}}")
_SENTENCE_END = re.compile(r"(?:[.!?…]|[。！？｡])[\"'”’»)\]」』）]*\Z")
_ENDERS = frozenset(".!?…。！？｡\"'”’»)]」』）")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n|\u2029|\f")
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st sr jr vs etc e.g i.e eg ie cf al fig figs eq eqs no nos vol pp p ed eds ca approx "
    "inc ltd co corp dept est ref refs sec ch jan feb mar apr jun jul aug sep sept oct nov dec u.s u.k".split()
)

DEFAULT_WORDS, DEFAULT_OVERLAP = 150, 30
"""The default encoder reads 256 wordpieces, two of them its own marks. Titles take about 20 more, and English has
1.3 (encyclopedic) to 1.57 (scientific) wordpieces a word over the collections this was measured on:
(256 - 2 - 20) / 1.57 = 149 words. Less would cost rows, more would cut chunks off unread."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents become rows.

    Attributes:
        words: most words of a chunk; 0 keeps documents whole.
        overlap: most words that two neighbours share, at most half of ``words``.
    """

    words: int = 0
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.words < 0 or self.overlap < 0 or self.overlap * 2 > self.words:
            raise ConfigError(
                f"chunking {self.words}/{self.overlap}: words and overlap are not negative, "
                "and the overlap is at most half the words"
            )

    @classmethod
    def none(cls) -> Chunking:
        """Documents stay whole."""
        return cls()

    @classmethod
    def default(cls) -> Chunking:
        """Fits the default encoder."""
        return cls(DEFAULT_WORDS, DEFAULT_OVERLAP)

    @classmethod
    def parse(cls, text: str) -> Chunking:
        """From ``none``, ``WORDS`` or ``WORDS/OVERLAP``; the inverse of ``str``.

        Raises:
            ConfigError: it is none of these.
        """
        given = text.strip().lower()
        if given == "none":
            return cls()
        if given == "default":
            return cls.default()
        match = re.fullmatch(r"([0-9]{1,9})(?:/([0-9]{1,9}))?", given)
        if match is None or not int(match[1]):
            raise ConfigError(
                f"chunking {text!r} is not understood; write none, or WORDS/OVERLAP such as {cls.default()}"
            )
        return cls(int(match[1]), int(match[2] or 0))

    def __str__(self) -> str:
        return f"{self.words}/{self.overlap}" if self.words else "none"

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Character ranges of the chunks, in order, at least one; linear in the text.

        A chunk that is not the last ends after the last sentence that ends in its last third, else after ``words``
        words. The next one starts at the first sentence that begins within its last ``overlap`` words, else exactly
        ``overlap`` words before its end. A text of at most ``words`` words is one chunk, (0, len(text)).
        """
        if not self.words or len(text) <= self.words or _surely_short(text, self.words):
            return [(0, len(text))]
        starts, ends = _word_spans(text)
        if len(starts) <= self.words:
            return [(0, len(text))]
        closed = _sentence_ends(text, starts, ends)
        return [(starts[first], ends[last - 1]) for first, last in self._windows(closed)]

    def _windows(self, closed: bytearray) -> list[tuple[int, int]]:
        """Word ranges of the chunks; ``closed[i]`` says that a sentence ends with word i."""
        n, first, windows = len(closed), 0, []
        while n - first > self.words:
            full = first + self.words
            last = closed.rfind(1, first + self.words * 2 // 3, full) + 1 or full
            windows.append((first, last))
            begin = last - self.overlap
            sentence = closed.find(1, begin - 1, last - 1) + 1 if self.overlap and begin > 0 else 0
            first = max(sentence or begin, first + 1)
        windows.append((first, n))
        return windows


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Character ranges of the sentences and paragraphs of a text, in order; none of a text without words."""
    starts, ends = _word_spans(text)
    last = [place for place, closed in enumerate(_sentence_ends(text, starts, ends)) if closed]
    first = [0, *(place + 1 for place in last)]
    return [(starts[begin], ends[end]) for begin, end in zip(first, last, strict=False)]


def _word_spans(text: str) -> tuple[array[int], array[int]]:
    """Where each word starts and ends, in characters."""
    starts, ends = array("q"), array("q")
    for match in _WORD.finditer(text):
        starts.append(match.start())
        ends.append(match.end())
    return starts, ends


def _surely_short(text: str, words: int) -> bool:
    """A quick upper bound on the number of words of a text without CJK (str.split is much faster than a regex)."""
    return text.isascii() and len(text.split()) + len(text) // LONGEST_WORD <= words


def _sentence_ends(text: str, starts: Sequence[int], ends: Sequence[int]) -> bytearray:
    """For every word whether a sentence, or a paragraph, ends with it."""
    n = len(starts)
    closed = bytearray(n)
    for i in range(n):
        end = ends[i]
        if i + 1 == n:
            closed[i] = 1
        elif text[end - 1] in _ENDERS and _ends_sentence(text[starts[i] : end], text[starts[i + 1]]):
            closed[i] = 1
        elif starts[i + 1] - end > 1 and _PARAGRAPH.search(text, end, starts[i + 1]):
            closed[i] = 1
    return closed


def _ends_sentence(word: str, following: str) -> bool:
    """Whether a word with closing punctuation ends a sentence, given the first character of the next word."""
    match = _SENTENCE_END.search(word)
    if match is None or following.islower():
        return False
    if word[match.start()] != ".":
        return True
    stem = word[: match.start()].lstrip("\"'“‘«([").lower()
    # "Dr." and "e.g." are abbreviations, "J." an initial; "..." and "3." may well end something
    return stem not in _ABBREVIATIONS and not (len(stem) == 1 and stem.isalpha())
