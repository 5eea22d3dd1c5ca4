"""What an encoder has read so far: texts, tokens, and texts cut at the maximum length."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """Counts at one moment; the difference of two is what was read in between.

    Attributes:
        n_texts: texts encoded.
        n_tokens: tokens the model read (words for encoders without a model; 0 where nobody counts).
        n_truncated: texts longer than the model reads, whose end was left out.
    """

    n_texts: int = 0
    n_tokens: int = 0
    n_truncated: int = 0

    def __sub__(self, earlier: Reading) -> Reading:
        return Reading(
            self.n_texts - earlier.n_texts,
            self.n_tokens - earlier.n_tokens,
            self.n_truncated - earlier.n_truncated,
        )


class Tally:
    """Counts that several threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reading = Reading()

    def add(self, n_texts: int, n_tokens: int, n_truncated: int) -> None:
        """Count one call of an encoder."""
        with self._lock:
            now = self._reading
            self._reading = Reading(
                now.n_texts + n_texts, now.n_tokens + n_tokens, now.n_truncated + n_truncated
            )

    def snapshot(self) -> Reading:
        """The counts now."""
        return self._reading

    @property
    def n_texts(self) -> int:
        """Texts encoded so far."""
        return self._reading.n_texts

    @property
    def n_tokens(self) -> int:
        """Tokens read so far."""
        return self._reading.n_tokens

    @property
    def n_truncated(self) -> int:
        """Texts cut so far."""
        return self._reading.n_truncated
