"""Which texts go through the model together: alike in length, and so many tokens at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

MOST_TEXTS = 512
"""Texts that are read at a time, at most."""

_MOST_CHARACTERS = 1 << 17  # a character is a token at most, a fourth of one in English

SMALLEST = 64
LARGEST = 4096
"""Tokens a core gets at a time: fewer do not fill it; more no longer raise throughput, and take memory."""


def token_budget(lengths: NDArray[np.int64], workers: int) -> int:
    """Tokens a batch, such that the batches are about alike and their number a multiple of the workers'.

    Below ``SMALLEST`` tokens a worker, everything is one batch, which the workers share operator by operator.
    """
    n_tokens = int(lengths.sum())
    if n_tokens < SMALLEST * workers:
        return max(1, n_tokens)
    rounds = -(-n_tokens // (workers * LARGEST))
    return -(-n_tokens // (workers * rounds)) + int(lengths.min())  # room for the text that just does not fit


def text_groups(texts: Sequence[str]) -> Iterator[slice]:
    """Texts that are read at a time by encoders whose vectors of many tokens would fill the memory.

    Yields:
        Slices of at most ``MOST_TEXTS`` texts and about 32,768 English tokens, a partition of the texts in order.
    """
    start, characters = 0, 0
    for row, text in enumerate(texts):
        if row > start and (row - start == MOST_TEXTS or characters + len(text) > _MOST_CHARACTERS):
            yield slice(start, row)
            start, characters = row, 0
        characters += len(text)
    if start < len(texts):
        yield slice(start, len(texts))


def plan_batches(lengths: NDArray[np.int64], budget: int, padded: bool = False) -> list[NDArray[np.int64]]:
    """Rows of each batch, longest texts first, so that the last batches to run are the short ones.

    Args:
        lengths: (N,) tokens of each text.
        budget: most tokens a batch; a longer text is a batch of its own.
        padded: count every text of a batch as long as its longest.

    Returns:
        Row numbers, a partition of 0 .. N-1; within a batch by descending length.
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[NDArray[np.int64]] = []
    start, used = 0, 0
    for position, row in enumerate(order):
        cost = int(lengths[order[start]] if padded else lengths[row])
        if position > start and used + cost > budget:
            batches.append(order[start:position])
            start, used = position, 0
            cost = int(lengths[row])
        used += cost
    if start < len(order):
        batches.append(order[start:])
    return batches
