"""Words as Lucene's StandardTokenizer cuts them: the word breaks of UAX #29, in one regular expression.

A token is a word that holds at least one letter, digit or katakana (``don't``, ``3,141.5``, ``snake_case``),
one ideograph, one hiragana, a run of a South East Asian script, or one emoji sequence; everything else
separates. Classes come from the Unicode tables of the module ``regex``, which are newer than Lucene's.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

MAX_TOKEN_UNITS = 255
"""Longer tokens are cut, as Lucene does; counted in UTF-16 units, as Java does."""

_ASCII_WORD = re.compile(
    r"\w+(?:[.:',;](?:(?<=[A-Za-z][.:'])(?=[A-Za-z])|(?<=[0-9][.,;'])(?=[0-9]))\w+)*", re.ASCII
)
_FOREIGN = re.compile(r"[^\x00-\x7f]+")


def _grammar() -> str:
    """The rules WB4 to WB13b and the emoji sequences of UTS #51, longest match first."""
    extend = r"[\p{WB=Format}\p{WB=Extend}\p{WB=ZWJ}--[\U0001F3FB-\U0001F3FF]]"
    x = f"{extend}*+"
    letter_class = r"\p{WB=ALetter}\p{WB=Hebrew_Letter}"
    digit_class = r"\p{WB=Numeric}[\p{Block=Halfwidth_and_Fullwidth_Forms}&&\p{Nd}]"
    letters, digits, katakana, joiners = (
        f"[{members}][{members}{extend}]*+"  # WB4: a run, marks included, is two sets and no group
        for members in (letter_class, digit_class, r"\p{WB=Katakana}", r"\p{WB=ExtendNumLet}")
    )
    hebrew = rf"\p{{WB=Hebrew_Letter}}{x}"
    mid_letter = r"[\p{WB=MidLetter}\p{WB=MidNumLet}\p{WB=Single_Quote}]"
    mid_digit = r"[\p{WB=MidNum}\p{WB=MidNumLet}\p{WB=Single_Quote}]"
    # WB7a-c: a Hebrew letter keeps a quote behind it, or a double quote between two; as in Lucene's grammar
    # the letter must not itself follow a mid-letter mark.
    quoted = rf"(?:(?=['\"])(?<=(?<!{mid_letter}{extend}*){hebrew})(?:'{x}|\"{x}{hebrew}))?+"
    letter_run = rf"{letters}(?:{mid_letter}{x}{letters})*+{quoted}"
    digit_run = rf"{digits}(?:{mid_digit}{x}{digits})*+"
    run = rf"(?:{katakana}|(?:{letter_run}|{digit_run})++)"
    word = rf"(?:{joiners})?+{run}(?:{joiners}{run})*+(?:{joiners})?+"

    zwj = r"\u200D"
    picture = (
        r"[\p{Extended_Pictographic}[\p{Emoji}--[0-9#*\u00A9\u00AE\u2122\u3030\u303D"
        r"\U0001F1E6-\U0001F1FF\U0001F3FB-\U0001F3FF]]]"
    )
    # Marks without presentation selectors, which the emoji grammar places itself, and without the joiner of a
    # sequence, which must stay for the next element.
    loose = rf"(?:[{extend}--[\uFE0E\uFE0F{zwj}]]|{zwj}++(?!{picture}|\p{{Emoji_Modifier}}))*+"
    modified = rf"(?:{zwj}*\p{{Emoji_Modifier_Base}}{loose})?\p{{Emoji_Modifier}}{loose}"
    element = rf"(?:{modified}|{zwj}*{picture}{loose}\uFE0F?)"
    marks = rf"[{extend}--[\uFE0E\uFE0F\u20E3]]*+"
    tags = r"[\U000E0020-\U000E007E]+\U000E007F"
    emoji = (
        rf"(?<!{zwj}){element}(?:{tags}|(?:{zwj}{element})*)|[0-9#*]{marks}\uFE0F?\u20E3{marks}|"
        rf"(?:\p{{WB=Regional_Indicator}}{x}){{2}}"
    )
    return rf"{word}|{emoji}|(?:\p{{LB=SA}}{x})++|[\p{{Script=Han}}\p{{Script=Hiragana}}]{x}"


@functools.cache
def unicode_word() -> Any:
    """The compiled grammar; made on first use, since ASCII text does not need it."""
    import regex

    return regex.compile(_grammar(), regex.VERSION1)


def words(text: str) -> list[str]:
    """The words of a text, in order; those over 255 UTF-16 units are not cut yet (see ``cut_words``)."""
    if text.isascii():
        return _ASCII_WORD.findall(text)
    found: list[str] = []
    for start, stop, ascii_only in _regions(text):
        part = text[start:stop]
        found += _ASCII_WORD.findall(part) if ascii_only else unicode_word().findall(part)
    return found


def word_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the words of a text start and end, in characters; long words are cut."""
    for start, stop, ascii_only in _regions(text):
        finditer: Callable[[str, int, int], Iterator[Any]]
        finditer = _ASCII_WORD.finditer if ascii_only else unicode_word().finditer
        for match in finditer(text, start, stop):
            if utf16_units(text, *match.span()) <= MAX_TOKEN_UNITS:
                yield match.span()
            else:
                yield from _pieces(text, *match.span())


def cut_words(text: str) -> list[str]:
    """The words of a text, those over 255 UTF-16 units cut into several."""
    return [text[start:stop] for start, stop in word_spans(text)]


def utf16_units(text: str, start: int, stop: int) -> int:
    """The length Java sees."""
    length = stop - start
    if length > MAX_TOKEN_UNITS or 2 * length <= MAX_TOKEN_UNITS:  # the answer is clear without counting
        return length
    return length + sum(character > "\uffff" for character in text[start:stop])


def _pieces(text: str, position: int, end: int) -> Iterator[tuple[int, int]]:
    """Match again with only 255 UTF-16 units in view, as Lucene's scanner does with its full buffer."""
    match_at = unicode_word().match
    while position < end:
        match = match_at(text, position, _view(text, position))
        if match is None:
            position += 1
            continue
        yield match.span()
        position = match.end()


def _view(text: str, start: int) -> int:
    """The end of the 255 UTF-16 units from a position on; a surrogate pair is not split."""
    part = text[start : start + MAX_TOKEN_UNITS]
    wide = sum(character > "\uffff" for character in part)
    stop = len(part)
    while stop + wide > MAX_TOKEN_UNITS:
        stop -= 1
        wide -= part[stop] > "\uffff"
    return start + stop


def _regions(text: str) -> Iterator[tuple[int, int, bool]]:
    """Cut a text at spaces, which no word spans, into regions that are ASCII and regions that may not be.

    Mostly foreign text stays one region.
    """
    foreign = [match.span() for match in _FOREIGN.finditer(text)]
    if 16 * len(foreign) > len(text) or sum(stop - start for start, stop in foreign) * 8 > len(text):
        yield 0, len(text), False
        return
    position = 0
    for start, stop in foreign:
        if stop <= position:
            continue  # inside the region before
        low = max(position, text.rfind(" ", position, start) + 1)
        high = text.find(" ", stop)
        high = len(text) if high < 0 else high
        if low > position:
            yield position, low, True
        yield low, high, False
        position = high
    if position < len(text):
        yield position, len(text), True
