"""Names of codes and features for people: the words nearest to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORDS = 3
_SHORTEST = 3  # letters of a word that says something to people
_OFTEN = 10  # tokens, from where on the vector of a piece is settled
_TOGETHER = 256


def naming_pieces(
    pieces: Sequence[str], telling: NDArray[np.bool_], counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Word pieces that can name something: whole words of letters that documents have often."""
    named = [name.isalpha() and len(name) >= _SHORTEST for name in pieces]
    return np.flatnonzero(np.array(named, dtype=np.bool_) & telling & (counts >= _OFTEN))


def nearest_words(
    directions: NDArray[np.float32], vectors: NDArray[np.float32], words: Sequence[str]
) -> list[str]:
    """A name for each direction.

    Args:
        directions: (M, D).
        vectors: (n, D), of the words.
        words: n, distinct.
    """
    names: list[str] = []
    for start in range(0, len(directions), _TOGETHER):
        scores = directions[start : start + _TOGETHER] @ vectors.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :_WORDS]
        names += [" ".join(["~", *(words[place] for place in places)]) for places in best.tolist()]
    return names
