"""Analysed terms as the text that Lucene tokenises back into the same terms and frequencies."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

DELIMITER = "\x01"
"""Between a token and its frequency."""
_UNSAFE = re.compile(r"[\s\x00-\x1f\ud800-\udfff]")
_LONGEST = 8_000  # characters; Lucene takes 32,766 bytes
LONGEST_TOKEN = 20_000
"""UTF-16 units of the longest term with its frequency."""


def token_of(term: str) -> str:
    """The term itself, or a digest of one that Lucene cannot hold: empty, huge, with blanks or control characters."""
    if term and len(term) <= _LONGEST and _UNSAFE.search(term) is None:
        return term
    return "\x02" + hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def text_of(tokens: Iterable[tuple[str, int]]) -> str:
    """Tokens with their frequencies, as ``DelimitedTermFrequencyTokenFilter`` reads them."""
    return " ".join(
        token if frequency == 1 else f"{token}{DELIMITER}{frequency}" for token, frequency in tokens
    )
