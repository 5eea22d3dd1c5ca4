"""Which texts go through the model together: alike in length, and so many tokens at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
