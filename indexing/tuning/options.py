"""What a tuning is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from indexing.commit import Commit
from indexing.tuning.frontier import Target
from indexing.tuning.grid import checked_kinds
from retrieval.encoders import family_class, query_value
from retrieval.errors import ConfigError
from retrieval.values import Dense

MOST_ROWS = 100_000
"""Of a sample: beyond it a grid of graphs takes longer than anybody waits for."""


def half_of_memory() -> int:
    """Half the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@dataclass(frozen=True)
class TuneOptions:
    """How to tune.

    Attributes:
        target: what is asked.
        using: the representation; "" means the one of dense vectors.
        queries: a file of queries; None makes pseudo-queries.
        sample_rows: rows that settings are tried on, at most.
        kinds: index kinds to try; empty means all.
        seconds: how long settings may be tried; the chosen index is built and verified after that.
        build_memory: bytes that a build may hold.
        dry_run: only say what would be chosen.
    """

    target: Target = field(default_factory=Target)
    using: str = ""
    queries: Path | None = None
    sample_rows: int = MOST_ROWS
    kinds: tuple[str, ...] = ()
    seconds: float = 600.0
    build_memory: int = field(default_factory=half_of_memory)
    dry_run: bool = False

    def __post_init__(self) -> None:
        checked_kinds(self.kinds)
        if not 1 <= self.sample_rows <= MOST_ROWS:
            raise ConfigError(
                f"a sample of {self.sample_rows} rows cannot be drawn; it has 1 to {MOST_ROWS:,}"
            )
        if self.sample_rows < self.target.k:
            raise ConfigError(
                f"a sample of {self.sample_rows} rows is less than the {self.target.k} results of a query; take more"
            )

    def representation(self, path: Path, commit: Commit) -> str:
        """The representation to tune.

        Raises:
            ConfigError: there is none of that name, or not exactly one where none is named.
        """
        dense = [
            name
            for name, part in commit.representations.items()
            if part.value == "dense" and query_value(family_class(part.encoder["family"])) is Dense
        ]
        if self.using:
            if self.using not in dense:
                raise ConfigError(
                    f"{path} has no dense representation {self.using!r}; it has: {', '.join(dense) or 'none'}"
                )
            return self.using
        if not dense:
            raise ConfigError(f"{path} has no dense representation; add one: tercet index {path} --add dense")
        if len(dense) > 1 and "dense" not in dense:
            raise ConfigError(
                f"{path} has several dense representations; name one: --using {' or '.join(dense)}"
            )
        return "dense" if "dense" in dense else dense[0]
