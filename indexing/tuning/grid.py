"""What is tried: index kinds, parameters to build them with, and those that a search may change."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indexing.kinds import KINDS
from indexing.tuning.ladder import ladder
from retrieval.errors import unknown_name


@dataclass(frozen=True)
class KindGrid:
    """How an index kind is tried.

    Attributes:
        builds: parameters of the indexes that are built, the most promising first. In a string, {lists} stands for
            what ``lists_for`` the rows gives, {half} and {quarter} for these parts of the width.
        raised: the parameter that is raised until enough is found, with its least (0: the results of a query) and
            its greatest value (0: as many as there are rows); None where nothing is left out.
        variants: other parameters of a search; the first is tried with every value of each.
        growth: by which factor a search slows down when the rows become so many times as many.
        scans: whether every search reads its way through the stored vectors themselves, by the build's parameters;
            otherwise it reads those that it scores at last.
    """

    builds: tuple[Mapping[str, Any], ...]
    raised: tuple[str, int, int] | None
    growth: Callable[[float, int], float]
    scans: Callable[[Mapping[str, Any]], bool]
    variants: tuple[Mapping[str, Any], ...] = ({},)


def _linear(times: float, n: int) -> float:
    return times


def _root(times: float, n: int) -> float:
    return math.sqrt(times)


def _logarithm(times: float, n: int) -> float:
    return max(0.0, 1 + math.log(times) / math.log(max(n, 2)))


GRID: dict[str, KindGrid] = {
    "flat": KindGrid(({},), None, _linear, scans=lambda build: True),
    "hnsw": KindGrid(
        builds=(
            {"backend": "tercet", "m": 16, "ef_construction": 200, "codes": "sq8"},
            {"backend": "tercet", "m": 32, "ef_construction": 200, "codes": "sq8"},
            {"backend": "faiss", "m": 16, "ef_construction": 200},
            {"backend": "hnswlib", "m": 16, "ef_construction": 200},
            {"backend": "tercet", "m": 12, "ef_construction": 100, "codes": "sq8"},
            {"backend": "hnswlib", "m": 32, "ef_construction": 200},
        ),
        raised=("ef", 0, 4096),
        growth=_logarithm,
        scans=lambda build: build.get("codes", "none") == "none" and build["backend"] != "hnswlib",
    ),
    "ivf": KindGrid(
        builds=(
            {"factory": "IVF{lists},PQ{half}x4fs"},
            {"factory": "IVF{lists},PQ{quarter}x4fs"},
            {"factory": "OPQ{quarter},IVF{lists},PQ{quarter}x4fs"},
            {"factory": "IVF{lists},SQ8"},
        ),
        raised=("nprobe", 1, 4096),
        growth=_root,
        scans=lambda build: False,
        variants=({}, {"rescored": 200}),
    ),
    "binary": KindGrid(({},), ("rescored", 0, 0), _linear, scans=lambda build: False),
}
"""Kind -> how it is tried; those that ``KINDS`` does not hold are passed over."""


@dataclass(frozen=True)
class Candidate:
    """An index to build, and what its searches are tried with.

    Attributes:
        kind: of ``GRID``.
        number: which of the kind's builds.
        build: its parameters, filled in for a number of rows.
        values: of the kind's raised parameter, ascending; one without meaning where there is none.
    """

    kind: str
    number: int
    build: Mapping[str, Any]
    values: tuple[int, ...]

    @classmethod
    def of(cls, kind: str, number: int, n: int, dim: int, k: int) -> Candidate:
        """A build of the grid for n rows of width dim and searches for k results."""
        grid = GRID[kind]
        sizes = {"lists": lists_for(n), "half": max(1, dim // 2), "quarter": max(1, dim // 4)}
        build = {
            name: value.format(**sizes) if isinstance(value, str) else value
            for name, value in grid.builds[number].items()
        }
        values = [0]
        if grid.raised is not None:
            _, low, high = grid.raised
            low = min(low or k, n)
            values = ladder(low, max(low, min(high or n, n)))
        return cls(kind, number, build, tuple(values))

    @property
    def name(self) -> str:
        """Kind and parameters, for people."""
        return shown(self.kind, self.build)

    def search(self, variant: Mapping[str, Any], place: int) -> dict[str, Any]:
        """The parameters of a search: a variant's, and the value at a place of the raised one."""
        raised = GRID[self.kind].raised
        return {**variant, **({raised[0]: self.values[place]} if raised else {})}

    def place(self, search: Mapping[str, Any]) -> int:
        """Where the raised parameter of a search comes nearest."""
        raised = GRID[self.kind].raised
        if raised is None:
            return 0
        wanted = search[raised[0]]
        return min(range(len(self.values)), key=lambda place: abs(self.values[place] - wanted))


def shown(kind: str, parameters: Mapping[str, Any]) -> str:
    """A setting in words."""
    return " ".join([kind, *(f"{name}={value}" for name, value in parameters.items())])


def tunable_kinds() -> list[str]:
    """The kinds that can be tried here."""
    return [kind for kind in GRID if kind in KINDS]


def checked_kinds(names: Sequence[str]) -> tuple[str, ...]:
    """The kinds of these names.

    Raises:
        ConfigError: one cannot be tried.
    """
    for name in names:
        if name not in tunable_kinds():
            raise unknown_name("kind to tune", name, tunable_kinds())
    return tuple(dict.fromkeys(names))


def candidates(kinds: Sequence[str], n: int, dim: int, k: int) -> list[Candidate]:
    """What is tried, see ``Candidate.of``, the most promising first: the first of every kind, then the second."""
    of_kinds = ([Candidate.of(kind, i, n, dim, k) for i in range(len(GRID[kind].builds))] for kind in kinds)
    rounds = itertools.zip_longest(*of_kinds)
    return [candidate for one_round in rounds for candidate in one_round if candidate is not None]


def lists_for(n: int) -> int:
    """A power of two near 2.4 times the root of the rows, and so few that each has 40 to learn from."""
    return 1 << max(0, min(round(math.log2(2.4 * math.sqrt(n))), int(math.log2(max(1.0, n / 40)))))
