"""How long measuring may go on, and what the next build is going to take of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from indexing.tuning.grid import Candidate


class OutOfTime(Exception):
    """The time for measuring ended while an index was built."""


@dataclass(frozen=True)
class Clock:
    """How long measuring may go on.

    Attributes:
        end: by ``time.monotonic``.
    """

    end: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def watched(self, progress: Callable[[int], None]) -> Callable[[int], None]:
        """A build's progress that ends the build when the time is up."""

        def advance(amount: int) -> None:
            if self.left <= 0:
                raise OutOfTime("its build was not done in time")
            progress(amount)

        return advance


@dataclass(eq=False)
class BuildTimes:
    """Seconds that builds took, to tell what the next one will take."""

    _seconds: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, candidate: Candidate, seconds: float) -> None:
        """A build is done."""
        self._seconds[self._key(candidate)] = seconds / _effort(candidate.build)

    def expected(self, candidate: Candidate) -> float:
        """Seconds, as its effort compares with that of the last build of its kind; 0 before there is one."""
        return self._seconds.get(self._key(candidate), 0.0) * _effort(candidate.build)

    @staticmethod
    def _key(candidate: Candidate) -> tuple[str, str]:
        return candidate.kind, str(candidate.build.get("backend", ""))


def _effort(build: Mapping[str, Any]) -> int:
    return int(build.get("m", 1)) * int(build.get("ef_construction", 1))
