"""Texts longer than a model reads at a time, in windows of like length. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.transformer.architectures import reading_length
from retrieval.encoders.transformer.checkpoint import Checkpoint
from retrieval.encoders.transformer.tokens import Tokens
from retrieval.errors import ConfigError

LONGEST = 8192
"""Tokens read of a text in windows where nothing else is said."""

_SMALLEST = 16


@dataclass(frozen=True, slots=True)
class Windows:
    """N texts as W windows, each a text for the model; those of a text follow each other.

    Attributes:
        tokens: of the windows.
        starts: (N + 1,) int64 first window of each text.
    """

    tokens: Tokens
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[NDArray[np.int32]], size: int | None, frame: tuple[int, int]) -> Windows:
        """Cut texts into windows.

        Args:
            texts: token ids of each.
            size: most tokens of a window; None for windows as long as their text.
            frame: tokens before and behind every text, such as [CLS] and [SEP]; every window has them.
        """
        parts = [[ids[places] for places in window_places(len(ids), size, frame)] for ids in texts]
        counts = np.fromiter((len(windows) for windows in parts), np.int64, len(parts))
        starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
        return cls(Tokens([ids for windows in parts for ids in windows], 0), starts)

    def rows(self) -> NDArray[np.int64]:
        """(W,) the text of each window."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def reading(checkpoint: Checkpoint, length: int | None, window: int | None) -> tuple[int | None, int | None]:
    """How much of a text is read, and how much at a time.

    Args:
        checkpoint: the model.
        length: the most tokens of a text, where that is chosen.
        window: the most tokens of a window, where that is chosen, otherwise what the model reads; 0 for none, so that
            longer texts are cut.

    Returns:
        The most tokens of a text, None where nothing says; and of a window, None for one window a text.

    Raises:
        ConfigError: the model's position table is shorter than what is chosen, or the window is too small.
    """
    if window is not None and 0 < window < _SMALLEST:
        raise ConfigError(f"window is {window}; it must be at least {_SMALLEST} tokens, or 0 for none")
    size = reading_length(checkpoint, window or None, "window")
    if size is None or window == 0 or (length is not None and length <= size):
        return reading_length(checkpoint, length), None
    return length or LONGEST, size


def window_places(n: int, size: int | None, frame: tuple[int, int]) -> list[slice | NDArray[np.int64]]:
    """Which of the n tokens of a text each of its windows reads: as few windows as will do, all about as long."""
    before, behind = frame
    if size is None or n <= size:
        return [slice(None)]
    count = -(-(n - before - behind) // max(1, size - before - behind))
    cuts = np.linspace(before, n - behind, count + 1).round().astype(np.int64)
    head, tail = np.arange(before), np.arange(n - behind, n)
    return [np.concatenate([head, np.arange(start, stop), tail]) for start, stop in itertools.pairwise(cuts)]
