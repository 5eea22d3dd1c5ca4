"""Which texts go through the model together: alike in length, and so many tokens at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SMALLEST = 256
LARGEST = 1024
"""Tokens a core gets at a time: more no longer raises throughput and leaves the cache."""


def token_budget(n_tokens: int, workers: int) -> int:
    """Tokens a batch, so that every worker gets several batches unless they would be too small."""
    return int(min(LARGEST, max(SMALLEST, n_tokens / (3 * max(1, workers)))))


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
