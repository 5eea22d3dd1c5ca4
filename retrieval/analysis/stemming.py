"""Stemmers: Porter's as Lucene has it, and Snowball's for other languages."""

from __future__ import annotations

import re
from collections.abc import Callable

from retrieval.errors import ConfigError, unknown_name

_DOUBLE = re.compile(r"([^aeioulszbdfgmnprt])\1(?:ed|ing)s?\Z", re.DOTALL)  # Snowball knows the nine others
_BLE = re.compile(r"bl(?:ies|[yi](?:ed|ing)?s?)\Z")
_LOG = re.compile(r"log(?:ies|[yi](?:ed|ing)?s?)\Z")


def stemmer(name: str) -> Callable[[str], str]:
    """A function from a lower-case word to its stem; not safe for two threads at once.

    Args:
        name: ``porter`` (Lucene's PorterStemFilter), ``none``, or a Snowball algorithm of PyStemmer.

    Raises:
        ConfigError: there is no such stemmer.
    """
    if name == "none":
        return str
    import Stemmer

    if name not in Stemmer.algorithms():
        raise unknown_name("stemmer", name, ["none", *Stemmer.algorithms()])
    try:
        snowball = Stemmer.Stemmer(name, 0)  # no cache of its own: the analyzer has one
    except KeyError as error:
        raise ConfigError(f"PyStemmer cannot load the stemmer {name!r}") from error
    stem: Callable[[str], str] = snowball.stemWord
    return _lucene_porter(stem) if name == "porter" else stem


def _lucene_porter(snowball: Callable[[str], str]) -> Callable[[str], str]:
    """Porter's own program (which Lucene follows) on top of Snowball's rendering of the 1980 paper.

    Porter's program differs in four points (see the end of https://tartarus.org/martin/PorterStemmer/):
    words of one or two letters stay; ``-bli`` gives ``-ble`` and ``-logi`` gives ``-log`` in step 2; and in
    step 1b any doubled consonant but l, s, z is undoubled, where Snowball lists nine. Each is brought about
    by handing Snowball the word that the step would have left.
    """

    def stem(word: str) -> str:
        if len(word) <= 2:
            return word
        if (found := _BLE.search(word)) and "vc" in _forms(word[: found.start()]):
            word = word[: found.start()] + "ble"
        elif (found := _LOG.search(word)) and "vc" in _forms(word[: found.start()]):
            word = word[: found.start()] + "log"
        elif found := _DOUBLE.search(word):
            forms = _forms(word[: found.start() + 2])
            if "v" in forms and forms[-1] == "c":
                word = word[: found.start() + 1]
        return word if len(word) <= 2 else snowball(word)

    return stem


def _forms(word: str) -> str:
    """Porter's v (vowel) and c (consonant) for each letter; y is a vowel after a consonant."""
    forms = ""
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and forms[-1:] == "c")
        forms += "v" if vowel else "c"
    return forms
